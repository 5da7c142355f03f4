"""A DNS server on loopback for tests: real UDP and TCP sockets, scripted answers, a count of what was asked."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from relay.settings import Upstream

__all__ = ["DnsServer", "Reply", "empty", "failing", "records", "running_server", "silent"]

Reply = Callable[[dns.message.Message], dns.message.Message | None]
"Makes the response to a query; None stays silent."


def records(*lines: str, rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> Reply:
    """Answer with these lines of a zone file, such as `www.test. 60 IN A 192.0.2.1`."""

    def reply(query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.set_rcode(rcode)
        for line in lines:
            name, ttl, _, rdtype, value = line.split(maxsplit=4)
            section = response.authority if rdtype == "SOA" else response.answer
            section.append(dns.rrset.from_text(name, int(ttl), "IN", rdtype, value))
        return response

    return reply


def failing(rcode: dns.rcode.Rcode) -> Reply:
    """Answer with an error."""
    return records(rcode=rcode)


def empty(*lines: str) -> Reply:
    """Answer that the name has no such record; `lines` may hold the SOA."""
    return records(*lines)


def silent(_query: dns.message.Message) -> None:
    """Do not answer."""


class DnsServer(asyncio.DatagramProtocol):
    """The server's state: replies by name and type, and the questions that came."""

    def __init__(self) -> None:
        self.replies: dict[tuple[str, str], Reply] = {}
        self.asked: Counter[tuple[str, str]] = Counter()
        self.asked_by_tcp: Counter[tuple[str, str]] = Counter()
        self.queries: list[dns.message.Message] = []
        self.connections = 0
        self.truncates = False
        self.closes = False
        self.gate: asyncio.Event | None = None
        self.upstream = Upstream(ip_address("127.0.0.1"), 0)
        self._transport: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def answer(self, name: str, a: Reply, aaaa: Reply | None = None) -> None:
        """Script both families of a name."""
        self.replies[name, "A"] = a
        self.replies[name, "AAAA"] = empty() if aaaa is None else aaaa

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a query, once the gate is open."""
        task = asyncio.get_running_loop().create_task(self._answer_datagram(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_datagram(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        self.asked[self._key(query)] += 1
        self.queries.append(query)
        if self.gate is not None:
            await self.gate.wait()
        response = self._reply(query)
        if response is None or self._transport is None:
            return
        if self.truncates:
            options = response.options
            response = dns.message.make_response(query)
            response.flags |= dns.flags.TC
            response.use_edns(options=list(options))
        self._transport.sendto(response.to_wire(), addr)

    async def serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the queries of a TCP or TLS connection, each when its answer is ready."""
        self.connections += 1
        tasks: set[asyncio.Task[None]] = set()
        self._writers.add(writer)
        try:
            while True:
                size = struct.unpack("!H", await reader.readexactly(2))[0]
                query = dns.message.from_wire(await reader.readexactly(size))
                tasks.add(asyncio.get_running_loop().create_task(self._answer_stream(query, writer)))
        except (EOFError, ConnectionError):
            pass
        finally:
            for task in tasks:
                task.cancel()
            self._writers.discard(writer)
            writer.close()

    async def _answer_stream(self, query: dns.message.Message, writer: asyncio.StreamWriter) -> None:
        self.asked_by_tcp[self._key(query)] += 1
        wire = await self.respond(query)
        if wire is not None:
            writer.write(struct.pack("!H", len(wire)) + wire)
            if self.closes:
                writer.close()

    async def respond(self, query: dns.message.Message) -> bytes | None:
        """Make the response that a stream carries, once the gate is open; None is silence."""
        self.queries.append(query)
        if self.gate is not None:
            await self.gate.wait()
        response = self._reply(query)
        return None if response is None else response.to_wire(max_size=65535)

    def hang_up(self) -> None:
        """End all stream connections."""
        for writer in self._writers:
            writer.transport.abort()

    def close(self) -> None:
        """Stop answering."""
        for task in self._tasks:
            task.cancel()
        if self._transport is not None:
            self._transport.close()
        self.hang_up()

    @staticmethod
    def _key(query: dns.message.Message) -> tuple[str, str]:
        question = query.question[0]
        return question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)

    def _reply(self, query: dns.message.Message) -> dns.message.Message | None:
        return self.replies.get(self._key(query), failing(dns.rcode.NXDOMAIN))(query)


@asynccontextmanager
async def running_server() -> AsyncIterator[DnsServer]:
    """Run a server on a free loopback port, UDP and TCP alike."""
    loop = asyncio.get_running_loop()
    server = DnsServer()
    listener = await asyncio.start_server(server.serve_stream, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    await loop.create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", port))
    server.upstream = Upstream(ip_address("127.0.0.1"), port)
    try:
        yield server
    finally:
        server.close()
        listener.close()
        await listener.wait_closed()
