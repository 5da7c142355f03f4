"""A map whose values have an end, bounded in bytes too, as estimated: whoever owns a zone fills its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import dns.name

from relay.resolver.expiring import ExpiringMap

__all__ = ["ADDRESS_SIZE", "SizedMap", "size_of_name"]

K = TypeVar("K")
V = TypeVar("V")

ADDRESS_SIZE = 130
"Bytes of an address."
_ENTRY_SIZE = 350
"Bytes of an entry without its key and value."
_NAME_SIZE = 120
_LABEL_SIZE = 41


def size_of_name(name: dns.name.Name) -> int:
    """Estimate the bytes that a name takes in memory: of many labels, many times what it takes on the wire."""
    return _NAME_SIZE + sum(_LABEL_SIZE + len(label) for label in name.labels)


class SizedMap(ExpiringMap[K, V]):
    """Values by key, for as long as each holds. The least recently used go first."""

    def __init__(self, entries: int, limit: int, size_of: Callable[[K, V], int]) -> None:
        """Make an empty map.

        Args:
            entries: the most values kept.
            limit: the most bytes that they may take.
            size_of: estimates the bytes of a key and its value; the same each time.
        """
        super().__init__(entries)
        self._limit = limit
        self._size_of = size_of
        self._sizes: dict[K, int] = {}
        self.size = 0
        "Bytes that the entries take."

    def get(self, key: K, now: float) -> V | None:
        """Return the value of a key, or None when there is none that is still good."""
        found = super().get(key, now)
        if found is None:
            self._drop(key)
        return found

    def put(self, key: K, value: V, ttl: float, now: float) -> None:
        """Keep a value for `ttl` seconds."""
        self._drop(key)
        self._values[key] = (now + ttl, value)
        self._sizes[key] = _ENTRY_SIZE + self._size_of(key, value)
        self.size += self._sizes[key]
        while len(self._values) > self._entries or self.size > self._limit:
            self._drop(next(iter(self._values)))

    def _drop(self, key: K) -> None:
        self._values.pop(key, None)
        self.size -= self._sizes.pop(key, 0)
