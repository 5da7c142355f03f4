"""A TCP listener that leaves nothing behind: its end is the end of every connection it took."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

__all__ = ["listening"]

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"Serves one connection; it closes when this returns."


class _Connections:
    """The open connections of one listener."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._writers: set[asyncio.StreamWriter] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection; what the peer does to it is no fault here."""
        self._writers.add(writer)
        self._idle.clear()
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)
            if not self._writers:
                self._idle.set()

    async def cut(self) -> None:
        """Cut what is open and wait until nobody serves any more."""
        for writer in self._writers:
            writer.transport.abort()
        await self._idle.wait()


@asynccontextmanager
async def listening(serve: Serve, host: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Listen for the time of the context.

    Args:
        serve: serves one connection; OSError, EOFError, TimeoutError and ValueError end it quietly.
        host: the address to listen on.
        tls: speak TLS with this.

    Yields:
        The port.

    Raises:
        OSError: the address cannot be used.
    """
    connections = _Connections(serve)
    server = await asyncio.start_server(connections.take, host, 0, backlog=512, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await connections.cut()
