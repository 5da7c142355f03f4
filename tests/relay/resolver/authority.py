"""Authoritative servers on loopback addresses, all on one port: honest ones, and every kind of bad one."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import cast

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from relay.resolver.recursion import Delegation, RecursionLimits, Recursor, parse_root_hints
from tests.relay.resolver.world import World
from tests.relay.resolver.zones import Zone

__all__ = ["PATIENT", "Authority", "Hierarchy", "Recursive", "running_hierarchy", "running_servers"]

Change = Callable[[dns.message.Message], "dns.message.Message | None"]
"Makes another response of a right one; None stays silent."

PATIENT = RecursionLimits(first_wait=5, least_wait=5, longest_wait=5)
"No query is repeated because the machine is busy."

_TRIES = 20


class Authority(asyncio.DatagramProtocol):
    """A server of some zones, and what it was asked."""

    def __init__(self, zones: Sequence[Zone]) -> None:
        self.zones = {zone.apex: zone for zone in zones}
        self.asked: Counter[tuple[str, str]] = Counter()
        self.asked_by_tcp = 0
        self.change: Change | None = None
        self.truncates = False
        self.knows_edns = True
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a query, in full or cut."""
        query = dns.message.from_wire(data)
        response = self._respond(query)
        if response is None or self._transport is None:
            return
        if self.truncates:
            response = dns.message.make_response(query)
            response.flags |= dns.flags.TC
        self._transport.sendto(response.to_wire(max_size=65535), addr)

    async def serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one query over TCP."""
        self.asked_by_tcp += 1
        size = struct.unpack("!H", await reader.readexactly(2))[0]
        response = self._respond(dns.message.from_wire(await reader.readexactly(size)))
        if response is not None:
            wire = response.to_wire(max_size=65535)
            writer.write(struct.pack("!H", len(wire)) + wire)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    def close(self) -> None:
        """Stop answering."""
        if self._transport is not None:
            self._transport.close()

    def _respond(self, query: dns.message.Message) -> dns.message.Message | None:
        question = query.question[0]
        self.asked[question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)] += 1
        if query.edns >= 0 and not self.knows_edns:
            response = dns.message.make_response(query)
            response.use_edns(False)
            response.set_rcode(dns.rcode.FORMERR)
            return response
        response = self._answer(query)
        return response if self.change is None else self.change(response)

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        """Answer from the deepest zone that is served here."""
        assert not query.flags & dns.flags.RD, "an authoritative server is not asked to recurse"
        question = query.question[0]
        place = question.name
        if question.rdtype == dns.rdatatype.DS and place != dns.name.root:
            place = place.parent()
        while place not in self.zones:
            if place == dns.name.root:
                response = dns.message.make_response(query)
                response.set_rcode(dns.rcode.REFUSED)
                return response
            place = place.parent()
        return self.zones[place].respond(query)


class Recursive(Authority):
    """A resolver that knows a whole world and validates nothing."""

    def __init__(self, world: World) -> None:
        super().__init__(())
        self._world = world

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        """Answer with whole chains of aliases."""
        return self._world.answer(query)


class Hierarchy:
    """Running servers by address."""

    def __init__(self, servers: Mapping[str, Authority], port: int) -> None:
        self.servers = servers
        self.port = port

    @property
    def hints(self) -> Delegation:
        """The first server as the root's."""
        return parse_root_hints(f". NS ns.\nns. A {next(iter(self.servers))}\n")

    def recursor(self) -> Recursor:
        """Make a resolver that starts here."""
        return Recursor(self.hints, port=self.port, limits=PATIENT)

    @property
    def queries(self) -> int:
        """How many queries came in all."""
        return sum(server.asked.total() for server in self.servers.values())


@asynccontextmanager
async def running_hierarchy(zones: Mapping[str, Sequence[Zone]], port: int = 0) -> AsyncIterator[Hierarchy]:
    """Run a server at each of these addresses, UDP and TCP alike; the first one is the root's."""
    async with running_servers({address: Authority(served) for address, served in zones.items()}, port) as found:
        yield found


@asynccontextmanager
async def running_servers(servers: Mapping[str, Authority], port: int = 0) -> AsyncIterator[Hierarchy]:
    """Run these servers, each at its address."""
    sockets = _bind(list(servers), port)
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        for server, (datagrams, listener) in zip(servers.values(), sockets, strict=True):
            await loop.create_datagram_endpoint(lambda it=server: it, sock=datagrams)  # type: ignore[misc]
            stack.callback(server.close)
            streams = await asyncio.start_server(server.serve_stream, sock=listener)
            stack.push_async_callback(streams.wait_closed)
            stack.callback(streams.close)
        yield Hierarchy(servers, sockets[0][0].getsockname()[1])


def _bind(addresses: Sequence[str], port: int) -> list[tuple[socket.socket, socket.socket]]:
    """Bind every address to one port, the given one or any that is free at all of them."""
    for _ in range(_TRIES):
        with ExitStack() as stack:
            found: list[tuple[socket.socket, socket.socket]] = []
            chosen = port
            try:
                for address in addresses:
                    datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    listener = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                    datagrams.bind((address, chosen))
                    chosen = datagrams.getsockname()[1]
                    listener.bind((address, chosen))
                    found.append((datagrams, listener))
            except OSError:
                if port:
                    raise
                continue
            for one in (one for pair in found for one in pair):
                one.setblocking(False)
            stack.pop_all()
            return found
    raise OSError("no port is free at all addresses")
