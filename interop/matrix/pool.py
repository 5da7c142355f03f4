"""Server processes that cases share: one case at a time has a process, and the next with equal wishes gets it after.

So a log belongs to one case, piece by piece, and no case meets a server that a failed one has left in disorder.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType

from interop.matrix.process import Daemon

__all__ = ["Lease", "Pool", "Running"]


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready for clients."""

    daemon: Daemon
    "Its process."
    host: str
    "Where it listens."
    port: int
    "Its UDP port."

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"https://{self.host}:{self.port}"


class Lease:
    """A server for the time of one case."""

    def __init__(self, running: Running) -> None:
        """Begin; the log is counted from here."""
        self.running = running
        "The server."
        self.is_spent = False
        "Nobody shall get it after this case."
        self._start = running.daemon.log_size()

    def read_log(self) -> bytes:
        """What it printed since this case began."""
        return self.running.daemon.read_log(self._start)


class Pool:
    """Servers by what was wished for. Use it as a context manager: leaving ends them all."""

    def __init__(self, max_idle: int) -> None:
        """Start with none.

        Args:
            max_idle: how many may wait for another case; the one that waits longest goes first.
        """
        self._max_idle = max_idle
        self._idle: list[tuple[Hashable, Running]] = []

    async def __aenter__(self) -> Pool:
        """Hand out the pool."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all servers that wait."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(running.daemon.stop() for _, running in idle))

    @asynccontextmanager
    async def lease(self, wish: Hashable, start: Callable[[], Awaitable[Running]]) -> AsyncIterator[Lease]:
        """Have a server for the time of the context, and alone.

        Args:
            wish: what it must be like; servers of equal wishes are alike.
            start: starts one. What it raises is raised here, and it has then ended what it started.
        """
        running = self._take(wish) or await start()
        lease = Lease(running)
        is_kept = False
        try:
            yield lease
            is_kept = not lease.is_spent and not running.daemon.has_ended
        finally:
            await self._give_back(wish, running, is_kept)

    def _take(self, wish: Hashable) -> Running | None:
        for number, (other, running) in enumerate(self._idle):
            if other == wish and not running.daemon.has_ended:
                del self._idle[number]
                return running
        return None

    async def _give_back(self, wish: Hashable, running: Running, is_kept: bool) -> None:
        if is_kept:
            self._idle.append((wish, running))
            if len(self._idle) <= self._max_idle:
                return
            running = self._idle.pop(0)[1]
        await running.daemon.stop()
