"""Keeps readings for as long as their owners allow, within the operator's bounds. Time is an argument.

The key is what was asked, never who asked. Bounded in entries and in estimated bytes; the least recently used goes
first. A reading stays a while past its end, for when nobody gives a new one (RFC 8767).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import TypeAlias

from relay.resolver.answer import Reading

__all__ = ["AnswerCache", "Entry"]

Key: TypeAlias = Hashable

_HOT = 3
"Uses since it was asked for that make an answer worth a refresh."
_REFRESH_PART = 0.1
"Part of its time that is left when a hot answer is asked for again."
_LEAST_REFRESHED = 10.0
"Seconds that an answer must hold to be refreshed early: shorter ones would be asked for all the time."
_RECHECK = 30.0
"Seconds between attempts to replace an answer whose time is over (RFC 8767 §5)."


class Entry:
    """A reading in the cache."""

    __slots__ = ("_refresh_at", "ends", "reading", "recheck_at", "size", "stale_ends", "uses")

    def __init__(self, reading: Reading, ttl: float, max_stale: float, now: float) -> None:
        """Keep a reading.

        Args:
            reading: what was read.
            ttl: seconds that it is good for.
            max_stale: seconds after that, in which it may still do.
            now: the time.
        """
        self.reading = reading
        self.ends = now + ttl
        self.stale_ends = self.ends + (max_stale if reading.failure is None else 0.0)
        self.recheck_at = 0.0
        "When an answer whose time is over is asked for anew."
        self.uses = 0
        self.size = reading.size
        self._refresh_at = self.ends - ttl * _REFRESH_PART if ttl >= _LEAST_REFRESHED else self.stale_ends

    def wants_refresh(self, now: float) -> bool:
        """Count a use, and say whether the answer is hot and about to end. Says so once."""
        self.uses += 1
        if self.uses < _HOT or now < self._refresh_at or self.reading.failure is not None:
            return False
        self._refresh_at = self.stale_ends
        return True


class AnswerCache:
    """Entries by key."""

    def __init__(self, entries: int, size: int, max_stale: float = 0.0) -> None:
        """Make an empty cache.

        Args:
            entries: the most entries kept; 0 keeps none.
            size: the most bytes that they may take, as estimated.
            max_stale: seconds that an answer is kept past its end.
        """
        self._entries = entries
        self._limit = size
        self._max_stale = max_stale
        self._values: OrderedDict[Key, Entry] = OrderedDict()
        self.size = 0
        "Bytes that the entries take, as estimated."

    def __len__(self) -> int:
        """Return how many entries are kept, those included whose time is over but that nobody asked for."""
        return len(self._values)

    def get(self, key: Key, now: float) -> Entry | None:
        """Return what is known, good or stale: the caller looks at `Entry.ends`. None when nothing is."""
        found = self._values.get(key)
        if found is None:
            return None
        if found.stale_ends <= now:
            self._drop(key)
            return None
        self._values.move_to_end(key)
        return found

    def put(self, key: Key, reading: Reading, ttl: float, now: float) -> None:
        """Keep a reading for `ttl` seconds; nothing is kept for none.

        A failure that says nothing of the name itself does not replace an answer that may still do.
        """
        if reading.failure is not None and not reading.is_final:
            old = self.get(key, now)
            if old is not None and old.reading.failure is None and not reading.is_bogus:
                old.recheck_at = now + _RECHECK
                return
        self._drop(key)
        if ttl <= 0 or self._entries == 0:
            return
        entry = Entry(reading, ttl, self._max_stale, now)
        self._values[key] = entry
        self.size += entry.size
        while len(self._values) > self._entries or self.size > self._limit:
            self._drop(next(iter(self._values)))

    def _drop(self, key: Key) -> None:
        found = self._values.pop(key, None)
        if found is not None:
            self.size -= found.size
