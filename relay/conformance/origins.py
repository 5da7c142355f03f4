"""Targets for the cases: one TCP port that does as the first line says, one UDP port that echoes, and web pages.

The first line a client sends over TCP says what the origin does:

    echo            send everything back; end when the client ends
    source N        send N bytes of the pattern, then end; take no more
    digest          read to the end, answer `SIZE SHA256`, then end
    greet KEY       send `hello` and end at once; go on reading to the end
    hold KEY        send `held`; read to the end
    reset           send nothing more and reset the connection

What `greet` and `hold` saw is kept under KEY, so that a case can ask how a connection ended. Over UDP a payload
`reply N` and a line end is answered with N bytes of the pattern, everything else with itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from relay.conformance.driver import DriverTimeout, pattern
from relay.conformance.listener import listening
from relay.conformance.pages import Pages, serve_pages

__all__ = ["Origins", "Seen", "can_listen", "running_origins"]

_PIECE = 65536
_FIRST_LINE = 10.0
_BATCH = 64
_REPLY = re.compile(rb"reply (\d{1,5})\n")


@dataclass(frozen=True, slots=True)
class Seen:
    """How a connection to the origin ended."""

    data: bytes
    "What the client sent after the first line."
    is_clean: bool
    "FIN; else the connection was reset."


class Origins:
    """Where the origins listen, and what they saw."""

    def __init__(self, pages: Pages) -> None:
        """Only the pages are served yet."""
        self.pages = pages
        "Where the web pages are."
        self.tcp: dict[str, int] = {}
        "TCP ports by host."
        self.udp: dict[str, int] = {}
        "UDP ports by host."
        self._seen: dict[str, asyncio.Future[Seen]] = {}

    async def seen(self, key: str, within: float = 10.0) -> Seen:
        """How the connection ended that named this key.

        Args:
            key: what the client sent with `greet` or `hold`.
            within: seconds to wait.

        Raises:
            DriverTimeout: it has not ended.
        """
        try:
            async with asyncio.timeout(within):
                return await asyncio.shield(self._future(key))
        except TimeoutError:
            raise DriverTimeout("the origin's connection has not ended") from None

    async def serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: what the first line says."""
        async with asyncio.timeout(_FIRST_LINE):
            words = (await reader.readuntil(b"\n")).decode("ascii", "replace").split()
        await self._carry_out(words, reader, writer)

    async def _carry_out(self, words: list[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match words:
            case ["echo"]:
                while data := await reader.read(_PIECE):
                    writer.write(data)
                    await writer.drain()
            case ["source", size]:
                content = memoryview(pattern(min(int(size), 1 << 26)))
                for start in range(0, len(content), _PIECE):
                    writer.write(content[start : start + _PIECE])
                    await writer.drain()
                writer.write_eof()
                await _read_to_end(reader)
            case ["digest"]:
                received, _ = await _read_to_end(reader)
                writer.write(f"{len(received)} {hashlib.sha256(received).hexdigest()}\n".encode())
            case ["greet", key]:
                writer.write(b"hello")
                writer.write_eof()
                await self._watch(key, reader)
            case ["hold", key]:
                writer.write(b"held")
                await self._watch(key, reader)
            case ["reset"]:
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            case _:
                writer.write(b"unknown\n")

    async def _watch(self, key: str, reader: asyncio.StreamReader) -> None:
        data, is_clean = await _read_to_end(reader)
        future = self._future(key)
        if not future.done():
            future.set_result(Seen(data, is_clean))

    def _future(self, key: str) -> asyncio.Future[Seen]:
        if key not in self._seen:
            self._seen[key] = asyncio.get_running_loop().create_future()
        return self._seen[key]


async def _read_to_end(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """Everything up to the end, and whether the end was clean."""
    received = bytearray()
    try:
        while data := await reader.read(_PIECE):
            received += data
    except OSError:
        return bytes(received), False
    return bytes(received), True


def _answer_udp(sock: socket.socket) -> None:
    """Answer what is waiting, empty datagrams too, which asyncio's own UDP transport does not send."""
    for _ in range(_BATCH):
        try:
            payload, sender = sock.recvfrom(65535)
            match = _REPLY.fullmatch(payload)
            sock.sendto(pattern(min(int(match[1]), 65507)) if match else payload, sender)
        except BlockingIOError:
            return
        except OSError:
            continue  # an earlier sender is gone


def can_listen(host: str) -> bool:
    """True when sockets can be at an address: a machine need not have IPv6."""
    try:
        with socket.socket(_family(host), socket.SOCK_DGRAM) as sock:
            sock.bind((host, 0))
    except OSError:
        return False
    return True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@asynccontextmanager
async def running_origins(hosts: tuple[str, ...], folder: Path, names: tuple[str, ...]) -> AsyncIterator[Origins]:
    """Run the origins for the time of the context.

    Args:
        hosts: addresses of this machine to listen on; the pages are on the first only.
        folder: where the pages' certificate goes.
        names: more names for that certificate.

    Raises:
        OSError: an address cannot be used.
    """
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        origins = Origins(await stack.enter_async_context(serve_pages(hosts[0], folder, names)))
        for host in hosts:
            origins.tcp[host] = await stack.enter_async_context(listening(origins.serve_tcp, host))
            sock = stack.enter_context(socket.socket(_family(host), socket.SOCK_DGRAM))
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            sock.bind((host, 0))
            loop.add_reader(sock, _answer_udp, sock)
            stack.callback(loop.remove_reader, sock)
            origins.udp[host] = sock.getsockname()[1]
        yield origins
