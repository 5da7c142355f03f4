"""Encrypted DNS servers on loopback for tests: TLS, HTTPS and QUIC in front of a scripted `DnsServer`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import dns.message
import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent, StreamDataReceived

from relay.settings import Upstream, UpstreamTransport
from tests.relay.dns_server import DnsServer

__all__ = ["EncryptedServer", "running_encrypted"]


@dataclass
class EncryptedServer:
    """A server, how it is reached, and what a test may have it do wrong."""

    dns: DnsServer
    upstream: Upstream
    hang_up: Callable[[], None] = lambda: None
    status: str = "200"
    media_type: str = "application/dns-message"
    headers: list[tuple[str, str] | tuple[bytes, bytes]] = field(default_factory=list)
    body: Callable[[bytes], bytes] = lambda wire: wire
    "Changes what is sent: for QUIC the message with its length."
    streams: int | None = None
    "The most streams at once of an HTTPS connection."
    refusals: int = 0
    "HTTPS requests to refuse without looking at them."
    retire: Callable[[int], None] = lambda _: None
    "Has all HTTPS connections end gracefully: streams up to this one are still answered."
    lost: int = 0
    "HTTPS connections that ended."


@asynccontextmanager
async def running_encrypted(
    transport: UpstreamTransport, folder: Path, name: str | None = "localhost"
) -> AsyncIterator[EncryptedServer]:
    """Run a server of a kind with the certificate of a folder, as `write_certificates` leaves it."""
    server = EncryptedServer(DnsServer(), Upstream(ip_address("127.0.0.1")))
    run = {UpstreamTransport.TLS: _tls, UpstreamTransport.HTTPS: _https, UpstreamTransport.QUIC: _quic}[transport]
    async with run(server, folder) as port:
        server.upstream = Upstream(ip_address("127.0.0.1"), port, transport, name, ca_file=folder / "ca.pem")
        try:
            yield server
        finally:
            server.dns.close()


def _context(folder: Path, protocol: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.set_alpn_protocols([protocol])
    return context


@asynccontextmanager
async def _tls(server: EncryptedServer, folder: Path) -> AsyncIterator[int]:
    server.hang_up = server.dns.hang_up
    listener = await asyncio.start_server(server.dns.serve_stream, "127.0.0.1", 0, ssl=_context(folder, "dot"))
    yield listener.sockets[0].getsockname()[1]
    server.dns.close()
    listener.close()
    await listener.wait_closed()


class _HttpPeer(asyncio.Protocol):
    """One HTTP/2 connection."""

    def __init__(self, server: EncryptedServer) -> None:
        self._server = server
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self._heads: dict[int, dict[str, str]] = {}
        self._bodies: dict[int, bytearray] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.transport: asyncio.Transport | None = None
        self.is_gone = False
        self._last = 1 << 31

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._server.dns.connections += 1
        self._h2.initiate_connection()
        if self._server.streams is not None:
            self._h2.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: self._server.streams})
        self._flush()

    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self._heads[event.stream_id] = {str(name): str(value) for name, value in event.headers}
                self._bodies[event.stream_id] = bytearray()
            elif isinstance(event, h2.events.DataReceived):
                self._bodies[event.stream_id] += event.data
            elif isinstance(event, h2.events.StreamEnded):
                task = asyncio.get_running_loop().create_task(self._answer(event.stream_id))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        self._flush()

    async def _answer(self, stream: int) -> None:
        head = self._heads[stream]
        assert (head[":method"], head[":path"]) == ("POST", "/dns-query")
        assert head["content-type"] == "application/dns-message"
        assert head[":authority"] == f"localhost:{self._server.upstream.port}"
        if self._server.refusals:
            self._server.refusals -= 1
            self._h2.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
            self._flush()
            return
        wire = await self._server.dns.respond(dns.message.from_wire(bytes(self._bodies[stream])))
        if wire is None or self.is_gone or stream > self._last:
            return
        fields = [(":status", self._server.status), ("content-type", self._server.media_type)]
        body = self._server.body(wire)
        try:
            self._h2.send_headers(stream, [*fields, *self._server.headers])
            for start in range(0, len(body), 16384):
                self._h2.send_data(stream, body[start : start + 16384])
            self._h2.end_stream(stream)
        except h2.exceptions.ProtocolError:
            return  # nobody waits for it any more
        self._flush()

    def go_away(self) -> None:
        self.is_gone = True
        self._h2.close_connection(last_stream_id=0)
        self._flush()

    def retire(self, last: int) -> None:
        """Send GOAWAY and go on, which the library cannot (RFC 9113 §6.8)."""
        self._last = last
        if self.transport is not None:
            self.transport.write(b"\0\0\x08\x07\0" + bytes(4) + last.to_bytes(4, "big") + bytes(4))

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.lost += 1
        for task in self._tasks:
            task.cancel()

    def _flush(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(self._h2.data_to_send())


@asynccontextmanager
async def _https(server: EncryptedServer, folder: Path) -> AsyncIterator[int]:
    peers: list[_HttpPeer] = []

    def accept() -> _HttpPeer:
        peers.append(_HttpPeer(server))
        return peers[-1]

    def hang_up() -> None:
        for peer in peers:
            if peer.transport is not None and not peer.transport.is_closing():
                peer.go_away()

    def retire(last: int) -> None:
        for peer in peers:
            peer.retire(last)

    server.hang_up = hang_up
    server.retire = retire
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(accept, "127.0.0.1", 0, ssl=_context(folder, "h2"))
    yield listener.sockets[0].getsockname()[1]
    for peer in peers:
        if peer.transport is not None:
            peer.transport.abort()
    listener.close()
    await listener.wait_closed()


class _QuicPeer(QuicConnectionProtocol):
    """One QUIC connection."""

    server: EncryptedServer
    peers: list[_QuicPeer]

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, HandshakeCompleted):
            assert event.alpn_protocol == "doq"
            self.server.dns.connections += 1
            self.peers.append(self)
            self.bodies: dict[int, bytearray] = {}
            self.tasks: set[asyncio.Task[None]] = set()
        elif isinstance(event, StreamDataReceived):
            body = self.bodies.setdefault(event.stream_id, bytearray())
            body += event.data
            if event.end_stream:
                task = asyncio.get_running_loop().create_task(self._answer(event.stream_id))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
        elif isinstance(event, ConnectionTerminated):
            for task in getattr(self, "tasks", ()):
                task.cancel()

    async def _answer(self, stream: int) -> None:
        body = self.bodies[stream]
        assert int.from_bytes(body[:2], "big") == len(body) - 2
        query = dns.message.from_wire(bytes(body[2:]))
        assert query.id == 0
        wire = await self.server.dns.respond(query)
        if wire is not None:
            message = self.server.body(len(wire).to_bytes(2, "big") + wire)
            self._quic.send_stream_data(stream, message, end_stream=True)
            self.transmit()


@asynccontextmanager
async def _quic(server: EncryptedServer, folder: Path) -> AsyncIterator[int]:
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["doq"])
    configuration.load_cert_chain(folder / "server.pem", folder / "server.key")
    peers: list[_QuicPeer] = []
    kind = type("Peer", (_QuicPeer,), {"server": server, "peers": peers})

    def hang_up() -> None:
        for peer in peers:
            peer.close()
        peers.clear()

    server.hang_up = hang_up
    listener = await serve("127.0.0.1", 0, configuration=configuration, create_protocol=kind)
    transport = listener._transport  # the library has no other way to learn the port
    assert transport is not None
    yield transport.get_extra_info("sockname")[1]
    hang_up()
    listener.close()
