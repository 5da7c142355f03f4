"""A bounded map whose values have an end of life. Time is an argument."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["ExpiringMap"]

K = TypeVar("K")
V = TypeVar("V")


class ExpiringMap(Generic[K, V]):
    """Values by key, for as long as each holds. The least recently used goes first."""

    def __init__(self, entries: int) -> None:
        """Make an empty map.

        Args:
            entries: the most values kept; 0 keeps none.
        """
        self._entries = entries
        self._values: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many values are kept, those included whose time is over but that nobody asked for."""
        return len(self._values)

    def get(self, key: K, now: float) -> V | None:
        """Return the value of a key, or None when there is none that is still good."""
        found = self._values.get(key)
        if found is None:
            return None
        if found[0] <= now:
            del self._values[key]
            return None
        self._values.move_to_end(key)
        return found[1]

    def put(self, key: K, value: V, ttl: float, now: float) -> None:
        """Keep a value for `ttl` seconds."""
        self._values[key] = (now + ttl, value)
        self._values.move_to_end(key)
        if len(self._values) > self._entries:
            self._values.popitem(last=False)
