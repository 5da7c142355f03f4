"""Joins equal questions: one is under way, all who ask get its answer.

The one who asks first does the work in its own task. When it is cancelled, the others are not: one of them
starts over and the rest wait for that one. So nothing runs that nobody waits for, and no task is without an
owner.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import anyio

__all__ = ["Flights"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Flight(Generic[V]):
    """A piece of work under way."""

    __slots__ = ("done", "landed")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.landed: tuple[V] | None = None


class Flights(Generic[K, V]):
    """The pieces of work under way, by key."""

    def __init__(self) -> None:
        self._flights: dict[K, _Flight[V]] = {}

    def __len__(self) -> int:
        """Return how many are under way."""
        return len(self._flights)

    async def join(self, key: K, work: Callable[[], Awaitable[V]]) -> V:
        """Wait for the work of this key, doing it when nobody does.

        Args:
            key: what makes two pieces of work the same.
            work: does it; must come to an end by itself.

        Raises:
            Exception: what one's own `work` raised. The work of another one that raised is done again.
        """
        while True:
            flight = self._flights.get(key)
            if flight is None:
                return await self._lead(key, work)
            await flight.done.wait()
            if flight.landed is not None:
                return flight.landed[0]

    async def _lead(self, key: K, work: Callable[[], Awaitable[V]]) -> V:
        flight: _Flight[V] = _Flight()
        self._flights[key] = flight
        try:
            value = await work()
            flight.landed = (value,)
            return value
        finally:
            del self._flights[key]
            flight.done.set()
