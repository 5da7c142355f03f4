"""A deciding hook's answer: go on, refuse, or go on with another value.

Never a bool: with three words nobody has to remember which of True and False lets traffic pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from relay.errors import Failure

__all__ = ["Continue", "Reject", "Replace", "Verdict"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Continue:
    """This hook has nothing to say: the next one is asked."""


@dataclass(frozen=True, slots=True)
class Reject:
    """The exchange ends here. No later hook is asked."""

    failure: Failure
    "Why; it becomes the exchange's outcome."


@dataclass(frozen=True, slots=True)
class Replace(Generic[T_co]):
    """The exchange goes on with this value, and the hooks that follow see it."""

    value: T_co
    "What takes the place of the value so far."


Verdict: TypeAlias = Continue | Reject | Replace[T]
"What a deciding hook of a phase returns; T is the phase's value."
