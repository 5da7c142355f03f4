"""A store in memory: exact within one process, and gone with it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from relay.spent.availability import Availability
from relay.spent.store import GRACE, AwayReason, StoreAway, check_spend

__all__ = ["MemoryStore"]

_SWEEP = 4
"Expired entries dropped with each spend: more than one, so that they run out, and few, so that nobody waits."


class MemoryStore:
    """A `SpentStore` in a dict. Bounded: when it is full of live entries it refuses; it never forgets one of them."""

    def __init__(self, clock: Callable[[], float], *, entries: int, retry: float) -> None:
        """Start empty.

        Args:
            clock: the wall clock.
            entries: the most tokens kept, some 300 bytes each.
            retry: seconds without a refusal after which the log calls a full store back.
        """
        self._clock = clock
        self._entries = entries
        self._availability = Availability("memory", retry)
        self._uses: dict[bytes, int] = {}
        self._ends: dict[bytes, float] = {}
        self._order: list[tuple[float, bytes]] = []
        self._closed = False

    def __len__(self) -> int:
        """Return how many tokens are kept, those included that are expired and not yet dropped."""
        return len(self._uses)

    async def probe(self) -> None:
        """Refuse when closed or full; see `SpentStore`."""
        self._refuse_closed()
        self._sweep()
        if len(self._uses) >= self._entries:
            raise StoreAway(AwayReason.FULL)

    async def is_spent(self, token_id: bytes, limit: int) -> bool:
        """Say whether a token is used up; see `SpentStore`."""
        check_spend(token_id, limit)
        if self._uses.get(token_id, 0) >= limit:
            return True
        self._refuse_closed()
        return False

    async def spend(self, token_id: bytes, limit: int, expires: float) -> bool:
        """Record one more use; see `SpentStore`.

        Raises:
            StoreFull: there is no room for one more live token.
        """
        check_spend(token_id, limit, expires)
        self._refuse_closed()
        if expires <= self._clock():
            return False
        self._sweep()
        now = asyncio.get_running_loop().time()
        uses = self._uses.get(token_id, 0)
        if uses == 0 and len(self._uses) >= self._entries:
            raise self._availability.overloaded(AwayReason.FULL, now)
        self._availability.succeeded(now)
        if uses >= limit:
            return False
        end = expires + GRACE
        if uses == 0:
            heapq.heappush(self._order, (end, token_id))
        self._uses[token_id] = uses + 1
        self._ends[token_id] = max(end, self._ends.get(token_id, end))
        return True

    async def close(self) -> None:
        """Refuse from now on; see `SpentStore`."""
        self._closed = True

    def _refuse_closed(self) -> None:
        if self._closed:
            raise StoreAway(AwayReason.CLOSED)

    def _sweep(self) -> None:
        """Drop a few entries whose time is over. One whose time was extended since is put back in its place."""
        now = self._clock()
        for _ in range(_SWEEP):
            if not self._order or self._order[0][0] > now:
                return
            _, token_id = heapq.heappop(self._order)
            end = self._ends[token_id]
            if end > now:
                heapq.heappush(self._order, (end, token_id))
            else:
                del self._uses[token_id], self._ends[token_id]
