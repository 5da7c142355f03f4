"""A server of streams on loopback whose every connection is a function of the test."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

__all__ = ["Serve", "running"]

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"Serves one connection."


@asynccontextmanager
async def running(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run a server of streams; yields its port."""

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass

    listener = await asyncio.start_server(guarded, "127.0.0.1", 0, ssl=context)
    async with listener:
        yield listener.sockets[0].getsockname()[1]
