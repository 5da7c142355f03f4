"""Endpoints on loopback sockets: an echoing server, clients, and a path whose client address can change."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from relay.poller import Poller
from relay.quic.endpoint import ClientEndpoint, ServerEndpoint
from relay.quic.engine import (
    Address,
    ClientOptions,
    EngineFactory,
    EngineName,
    TransportLimits,
    load_factory,
)
from relay.quic.link import Link
from relay.quic.socket import UdpSocket, bind_udp, connect_udp
from relay.telemetry import CounterMetrics, NoMetrics
from tests.relay.quic.network import Pki

__all__ = ["Gate", "Narrow", "Path", "Peer", "Served", "client_to", "path_to", "serve", "settled"]

PATIENCE = 10.0
BUFFER = 1 << 20


class Peer:
    """A `LinkHandler` that keeps what it is told; a server's sends everything back."""

    def __init__(self, link: Link, *, echoes: bool) -> None:
        self.link = link
        self.streams: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.payloads: list[bytes] = []
        self.codes: list[int] = []
        self.alpn: list[str | None] = []
        self._echoes = echoes

    def established(self, alpn: str | None) -> None:
        self.alpn.append(alpn)

    def stream_data(self, stream_id: int, data: bytes, fin: bool) -> None:
        self.streams.setdefault(stream_id, bytearray()).extend(data)
        if fin:
            self.ended.add(stream_id)
        if self._echoes:
            self.link.send_stream(stream_id, data, fin)

    def stream_reset(self, stream_id: int, code: int) -> None: ...

    def stop_sending(self, stream_id: int, code: int) -> None: ...

    def datagrams(self, payloads: list[bytes]) -> None:
        self.payloads += payloads
        if self._echoes:
            for payload in payloads:
                self.link.send_datagrams(b"", payload, len(payload))

    def flushed(self) -> None: ...

    def terminated(self, code: int) -> None:
        self.codes.append(code)


@dataclass
class Served:
    """A server endpoint and what it counted."""

    endpoint: ServerEndpoint
    metrics: CounterMetrics
    poller: Poller
    peers: list[Peer] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.endpoint.address[1]


async def settled(peer: Peer, stream_id: int, data: bytes) -> bool:
    """Send `data` on a stream and wait for its echo; False when the connection ended instead."""
    peer.link.send_stream(stream_id, data, True)
    async with asyncio.timeout(PATIENCE):
        while stream_id not in peer.ended and not peer.codes:  # noqa: ASYNC110 - a link tells of no such moment
            await asyncio.sleep(0.001)
    return bytes(peer.streams.get(stream_id, b"")) == data


@asynccontextmanager
async def serve(
    pki: Pki,
    name: EngineName,
    *,
    factory: EngineFactory | None = None,
    sock: UdpSocket | None = None,
    limits: TransportLimits | None = None,
    max_connections: int = 100,
    retry_threshold: int = 100,
    handshake: float = 5.0,
) -> AsyncIterator[Served]:
    """An echoing server on a free loopback port."""
    loop = asyncio.get_running_loop()
    poller = Poller(loop)
    metrics = CounterMetrics()
    limits = limits or TransportLimits()

    def accept(link: Link, address: Address) -> Peer:
        served.peers.append(Peer(link, echoes=True))
        return served.peers[-1]

    endpoint = ServerEndpoint(
        sock or bind_udp("127.0.0.1", 0, BUFFER, BUFFER),
        factory or load_factory(name, limits, pki.certificate),
        accept,
        poller,
        loop,
        metrics,
        max_connections=max_connections,
        retry_threshold=retry_threshold,
        handshake=handshake,
        reset_key=limits.reset_key,
    )
    served = Served(endpoint, metrics, poller)
    try:
        yield served
    finally:
        endpoint.close()
        poller.close()


class Gate(UdpSocket):
    """A loopback socket whose send buffer is full while the gate is shut."""

    def __init__(self) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        super().__init__(sock)
        self.is_shut = False

    def send(self, payloads: Sequence[bytes], address: Address | None = None) -> int:
        return 0 if self.is_shut else super().send(payloads, address)


class Narrow(UdpSocket):
    """A connected socket whose send buffer is really full after a few packets, which loopback UDP's never is."""

    def __init__(self, sock: socket.socket, peer: Address) -> None:
        super().__init__(sock)
        self.has_gso = False
        self._peer = peer

    def receive(self) -> tuple[bytes, int, Address] | None:
        found = super().receive()
        return None if found is None else (found[0], found[1], self._peer)


@contextmanager
def client_to(
    pki: Pki,
    name: EngineName,
    port: int,
    *,
    sock: UdpSocket | None = None,
    limits: TransportLimits | None = None,
) -> Iterator[tuple[Peer, ClientEndpoint]]:
    """A client of the server at this port, its first packet about to leave."""
    loop = asyncio.get_running_loop()
    poller = Poller(loop)
    address: Address = ("127.0.0.1", port)
    options = ClientOptions("localhost", ca_file=pki.ca_file)
    engine = load_factory(name, limits or TransportLimits(), None).client(options, address, poller.refresh())
    endpoint = ClientEndpoint(sock or connect_udp("127.0.0.1", port), engine, poller, loop, NoMetrics())
    peer = Peer(endpoint.link, echoes=False)
    endpoint.link.handler = peer
    endpoint.link.touch()
    try:
        yield peer, endpoint
    finally:
        endpoint.link.close(0)
        poller.drain()
        endpoint.close()
        poller.close()


class Path:
    """A network between one client and a server: passes packets on, and can give the client a new address."""

    def __init__(self, server: Address) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = server
        self._client: Address | None = None
        self._outer = bind_udp("127.0.0.1", 0, BUFFER, BUFFER)
        self._inner = bind_udp("127.0.0.1", 0, BUFFER, BUFFER)
        self.adds_noise = False
        "Put a packet of the same size that belongs to nobody before each of the client's."
        self.noise = 0
        self._watch()

    @property
    def port(self) -> int:
        return self._outer.address[1]

    def rebind(self) -> None:
        """Reach the server from another port from now on, as a NAT does that forgot its mapping."""
        self._unwatch()
        old, self._inner = self._inner, bind_udp("127.0.0.1", 0, BUFFER, BUFFER)
        old.close()
        self._watch()

    def close(self) -> None:
        self._unwatch()
        self._outer.close()
        self._inner.close()

    def _watch(self) -> None:
        self._loop.add_reader(self._outer.fileno(), self._from_client)
        self._loop.add_reader(self._inner.fileno(), self._from_server)

    def _unwatch(self) -> None:
        self._loop.remove_reader(self._outer.fileno())
        self._loop.remove_reader(self._inner.fileno())

    def _from_client(self) -> None:
        if (found := self._outer.receive()) is not None:
            data, segment, self._client = found
            payloads = [data[at : at + segment] for at in range(0, len(data), segment)]
            if self.adds_noise:
                self.noise += len(payloads)
                payloads = [part for payload in payloads for part in (b"\x40" + bytes(len(payload) - 1), payload)]
            self._inner.send(payloads, self._server)

    def _from_server(self) -> None:
        if (found := self._inner.receive()) is not None and self._client is not None:
            data, segment, _ = found
            self._outer.send([data[at : at + segment] for at in range(0, len(data), segment)], self._client)


@contextmanager
def path_to(port: int) -> Iterator[Path]:
    """A path to the server at this port."""
    path = Path(("127.0.0.1", port))
    try:
        yield path
    finally:
        path.close()
