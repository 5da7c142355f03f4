"""Joins equal questions: one is under way, all who ask get its answer.

The work is done by a task of its own. It stops when nobody waits for it any more, unless it was told to go on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import anyio
import anyio.abc

__all__ = ["Abandoned", "Flights"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Abandoned(Exception):
    """The work ended without a result."""


class _Flight(Generic[V]):
    """A piece of work under way."""

    __slots__ = ("done", "goes_on", "landed", "raised", "scope", "waiting")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.scope = anyio.CancelScope()
        self.landed: tuple[V] | None = None
        self.raised: Exception | None = None
        self.goes_on = False
        self.waiting = 0


class Flights(Generic[K, V]):
    """The pieces of work under way, by key."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        """Have nothing under way.

        Args:
            tasks: owns the work.
        """
        self._tasks = tasks
        self._flights: dict[K, _Flight[V]] = {}

    def __len__(self) -> int:
        """Return how many are under way."""
        return len(self._flights)

    async def join(self, key: K, work: Callable[[], Awaitable[V]]) -> V:
        """Wait for the work of this key; it starts when it is not under way.

        Args:
            key: what makes two pieces of work the same.
            work: does it; must come to an end by itself.

        Raises:
            Abandoned: the tasks that own the work are being ended.
            Exception: what the work raised, the same to each who waited.
        """
        flight = self._flights.get(key) or self._start(key, work)
        flight.waiting += 1
        try:
            await flight.done.wait()
        finally:
            flight.waiting -= 1
            if flight.waiting == 0 and not flight.goes_on:
                flight.scope.cancel()
                if self._flights.get(key) is flight:  # whoever comes now starts anew
                    del self._flights[key]
        if flight.landed is not None:
            return flight.landed[0]
        if flight.raised is not None:
            raise flight.raised
        raise Abandoned

    def launch(self, key: K, work: Callable[[], Awaitable[V]]) -> None:
        """Have the work done, whether anybody waits for it or not."""
        flight = self._flights.get(key) or self._start(key, work)
        flight.goes_on = True

    def _start(self, key: K, work: Callable[[], Awaitable[V]]) -> _Flight[V]:
        flight: _Flight[V] = _Flight()
        self._flights[key] = flight
        self._tasks.start_soon(self._run, key, flight, work)
        return flight

    async def _run(self, key: K, flight: _Flight[V], work: Callable[[], Awaitable[V]]) -> None:
        try:
            with flight.scope:
                flight.landed = (await work(),)
        except Exception as exc:  # noqa: BLE001 - it belongs to those who wait, and must not end the other tasks
            flight.raised = exc
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]
            flight.done.set()
