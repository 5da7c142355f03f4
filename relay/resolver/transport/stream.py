"""DNS over TCP and over TLS: messages with their length before them, answered in any order (RFC 7766, RFC 7858)."""

from __future__ import annotations

import asyncio
import secrets
import ssl

from relay.resolver.query import Query
from relay.resolver.transport.connection import Connection
from relay.settings import Upstream

__all__ = ["StreamConnection", "connect_stream", "open_stream"]

_LARGEST = 65535
_MESSAGE_TIME = 5.0
"Seconds from a message's length to its end."
_GIVEN_UP = 4096
"Ids of questions that were given up and may still be answered; the oldest is forgotten first."


class StreamConnection(Connection):
    """Queries and responses with two bytes of length each (RFC 1035 §4.2.2)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle: float) -> None:
        """Take over a connected stream."""
        super().__init__(idle)
        self._reader = reader
        self._writer = writer
        self._ident = secrets.randbelow(1 << 16)
        self._late: dict[int, None] = {}

    def _send(self, query: Query) -> int:
        ident = self._next_ident()
        wire = query.with_id(ident)
        self._writer.write(len(wire).to_bytes(2, "big") + wire)
        return ident

    def _cancel(self, key: int) -> None:
        """Remember the id: the answer will come all the same, and is no fault of the upstream's."""
        self._late[key] = None
        if len(self._late) > _GIVEN_UP:
            del self._late[next(iter(self._late))]

    def _next_ident(self) -> int:
        """Choose an id that no question under way has, and none whose answer may be late; they are few."""
        while True:
            self._ident = (self._ident + 1) & 0xFFFF
            if self._ident not in self._pending and self._ident not in self._late:
                return self._ident

    async def _receive(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._idle):
                    size = int.from_bytes(await self._reader.readexactly(2), "big")
            except TimeoutError:
                if not self._pending:
                    return
                continue
            async with asyncio.timeout(_MESSAGE_TIME):
                wire = await self._reader.readexactly(size)
            self._heard()
            ident = int.from_bytes(wire[:2], "big")
            if self._late.pop(ident, ident) is not None:
                self._settle(ident, wire, ident)
            if not self.is_open and not self._pending:
                return

    def _close(self) -> None:
        self._writer.transport.abort()  # nobody waits, and a TLS peer could take long over its goodbye


async def open_stream(
    upstream: Upstream, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to an upstream by its address.

    Raises:
        OSError: it cannot be reached, or its certificate is not the right one.
    """
    return await asyncio.open_connection(
        str(upstream.address),
        upstream.port,
        ssl=context,
        server_hostname=None if context is None else upstream.server_name,
        limit=_LARGEST,
    )


async def connect_stream(upstream: Upstream, context: ssl.SSLContext | None, idle: float) -> StreamConnection:
    """Connect for DNS over TCP, or over TLS with a context.

    Raises:
        OSError: the upstream cannot be reached, or its certificate is not the right one.
    """
    reader, writer = await open_stream(upstream, context)
    return StreamConnection(reader, writer, idle)
