"""How many echoes a second a server carries: the largest rate at which it keeps up, found by trying."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from interop.bench.plan import Answer

__all__ = ["FIRST_RATE", "Verdict", "find_capacity", "judge_probe"]

FIRST_RATE = 8_000.0
"Where the search begins when nothing is known."

_DELIVERED = 0.99
_LONGEST = 0.005
_LATE = 0.01
_STEP = 2.0
_NEAR, _NEAR_STEP = 0.8, 1.25
_PRECISION = 1.05
_LEAST, _MOST = 250.0, 1_000_000.0


class Verdict(Enum):
    """What became of a rate."""

    CARRIED = "carried"
    OVERLOADED = "overloaded"
    "The server lost echoes, or they waited ever longer."
    LATE = "late"
    "The generator itself could not keep up, so nothing is known of the server."


def judge_probe(answer: Answer) -> Verdict:
    """Judge a try.

    Args:
        answer: what the generator said to an order for latency.

    Returns:
        Carried, when 99 % of the echoes came back, and 99 % of those within 5 ms.
    """
    if "error" in answer:
        return Verdict.OVERLOADED
    if answer["late"] > _LATE:
        return Verdict.LATE
    is_whole = answer["work"] >= _DELIVERED * answer["offered"] and answer["p99"] <= _LONGEST
    return Verdict.CARRIED if is_whole else Verdict.OVERLOADED


def find_capacity(probe: Callable[[float], Verdict], known: float | None = None) -> tuple[float, Verdict]:
    """Find the largest rate that is carried, to 5 %.

    A rate that is not carried is tried a second time: something else on the machine may have been at fault, and a
    server does not carry by chance what is too much for it.

    Args:
        probe: tries a rate.
        known: an earlier result, to begin a little below it.

    Returns:
        The rate, zero when even the smallest is too much; and what became of the next larger one.
    """
    step = _STEP if known is None else _NEAR_STEP
    low, high, verdict = 0.0, 0.0, Verdict.CARRIED
    rate = FIRST_RATE if known is None else max(known * _NEAR, _LEAST)
    while not 0 < high <= low * _PRECISION and _LEAST <= rate <= _MOST:
        found = _try_twice(probe, rate)
        if found is Verdict.CARRIED:
            low = rate
        else:
            high, verdict = rate, found
        if not low:
            rate /= step
        elif not high:
            rate *= step
        else:
            rate = (low * high) ** 0.5
    return low, verdict


def _try_twice(probe: Callable[[float], Verdict], rate: float) -> Verdict:
    """Try a rate, and again if it was not carried."""
    found = probe(rate)
    return found if found is Verdict.CARRIED else probe(rate)
