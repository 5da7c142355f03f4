"""The one open connection to an upstream: made when it is needed, used by all, made anew when it has ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.abc
import dns.message

from relay.resolver.query import Query
from relay.resolver.transport.connection import Closed, Connection, Unseen

__all__ = ["SharedConnection"]

_AT_ONCE = 128
"Questions under way with one upstream; further ones wait."
_TRIES = 5
"Attempts at a question that the upstream did not look at."


class SharedConnection:
    """A connection for whoever asks."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], tasks: anyio.abc.TaskGroup) -> None:
        """Have no connection yet.

        Args:
            connect: makes one; must leave nothing open when it is cancelled.
            tasks: owns the task that receives.
        """
        self._connect = connect
        self._tasks = tasks
        self._lock = anyio.Lock()
        self._limiter = anyio.CapacityLimiter(_AT_ONCE)
        self._connection: Connection | None = None

    async def ask(self, query: Query) -> dns.message.Message:
        """Send a query and wait for its response.

        It is sent once more when a kept connection turns out to have ended, and a few times more while the upstream
        says that it has not looked at it.

        Raises:
            OSError: the upstream cannot be reached, or breaks its transport's rules.
            dns.exception.DNSException: the response is malformed or too long.
        """
        async with self._limiter:
            for number in range(_TRIES):
                connection, is_new = await self._connected()
                try:
                    return await connection.ask(query)
                except Unseen:
                    continue
                except Closed:
                    if is_new or number:
                        raise
        raise Closed

    async def _connected(self) -> tuple[Connection, bool]:
        """Return an open connection, and whether it was made for this question."""
        if self._connection is not None and self._connection.is_open:
            return self._connection, False
        async with self._lock:
            if self._connection is not None and self._connection.is_open:
                return self._connection, False
            self._connection = await self._connect()
            self._tasks.start_soon(self._connection.run)
            return self._connection, True
