"""A call's outcome as a value, for properties that allow either."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from masque.errors import RequestRejected

__all__ = ["attempt"]

T = TypeVar("T")


def attempt(call: Callable[[], T]) -> T | RequestRejected:
    """Return what the call returns, or the rejection it raises. Any other exception passes."""
    try:
        return call()
    except RequestRejected as rejection:
        return rejection
