"""UDP endpoints: the one socket of a server and its routes, and the socket of one client connection.

A server finds a packet's connection by its destination connection id (RFC 9000 §5.2). Ids come from the engine's
events; nothing is derived from addresses, so a client may move (§9). Packets that belong nowhere get Version
Negotiation, a Retry once too many handshakes are half open, a new connection, or nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable

from relay.poller import READABLE, WRITABLE, Poller
from relay.quic.engine import CONNECTION_ID_LENGTH, Address, Burst, Engine, EngineFactory
from relay.quic.link import Link, LinkHandler
from relay.quic.packet import (
    MIN_INITIAL_SIZE,
    VERSION_1,
    LongHeader,
    RetryTokens,
    encode_retry,
    encode_stateless_reset,
    encode_version_negotiation,
    parse_long_header,
    reset_token,
)
from relay.quic.socket import UdpSocket
from relay.telemetry import DropReason, LimitName, Metric, Metrics, get_logger

__all__ = ["ClientEndpoint", "ServerEndpoint"]

_log = get_logger()
_ID_END = 1 + CONNECTION_ID_LENGTH
_RESETS_PER_SECOND = 100
"Stateless resets sent at most; each costs a packet of ours for one of anybody's."


class _Endpoint:
    """A socket whose full send buffer delays flushes instead of losing packets."""

    def __init__(
        self,
        sock: UdpSocket,
        poller: Poller,
        loop: asyncio.AbstractEventLoop,
        metrics: Metrics,
        *,
        is_connected: bool,
    ) -> None:
        self._socket = sock
        self._poller = poller
        self._loop = loop
        self._metrics = metrics
        self._is_connected = is_connected
        self._unsent: deque[Burst] = deque()
        self._waiting: dict[Link, None] = {}
        self._is_closed = False
        poller.add(sock.fileno(), self._ready)

    @property
    def address(self) -> Address:
        """The socket's own address."""
        return self._socket.address

    @property
    def is_blocked(self) -> bool:
        """True while the send buffer is full. Links keep their data; what was built waits here."""
        return bool(self._unsent)

    def wait_writable(self, link: Link) -> None:
        """Flush `link` when the send buffer has room again."""
        self._waiting[link] = None

    def send(self, bursts: list[Burst], link: Link) -> None:
        """Send what one flush built. What the socket does not take waits, in order, before any other flush."""
        for index, (payloads, address) in enumerate(bursts):
            sent = self._send(payloads, address)
            if sent < len(payloads):
                self._unsent.append((payloads[sent:], address))
                self._unsent.extend(bursts[index + 1 :])
                self._poller.modify(self._socket.fileno(), READABLE | WRITABLE)
                return

    def close(self) -> None:
        """Close the socket; unsent packets are dropped."""
        if not self._is_closed:
            self._is_closed = True
            self._poller.remove(self._socket.fileno())
            self._unsent.clear()
            self._waiting.clear()
            self._socket.close()

    def _send(self, payloads: list[bytes], address: Address) -> int:
        """Send payloads; one that the kernel refuses (too big for the path, no route) is dropped alone."""
        done = 0
        while done < len(payloads):
            try:
                sent = self._socket.send(
                    payloads[done:] if done else payloads, None if self._is_connected else address
                )
            except OSError:
                done += 1
                continue
            done += sent
            break
        return done

    def _ready(self, events: int) -> None:
        if events & WRITABLE:
            self._unblock()
        if events & ~WRITABLE:
            try:
                found = self._socket.receive()
            except OSError:
                self._refused()
                return
            if found is not None:
                self._received(*found)

    def _received(self, data: bytes, segment: int, address: Address) -> None:
        raise NotImplementedError

    def _refused(self) -> None:
        """An ICMP error of an earlier packet: QUIC notices by itself (RFC 9000 §14.2.1)."""

    def _unblock(self) -> None:
        while self._unsent:
            payloads, address = self._unsent.popleft()
            sent = self._send(payloads, address)
            if sent < len(payloads):
                self._unsent.appendleft((payloads[sent:], address))
                return
        self._poller.modify(self._socket.fileno(), READABLE)
        waiting, self._waiting = self._waiting, {}
        for link in waiting:
            link.touch()


class ServerEndpoint(_Endpoint):
    """The listening socket, its connections, and who gets a new one."""

    def __init__(
        self,
        sock: UdpSocket,
        factory: EngineFactory,
        accept: Callable[[Link, Address], LinkHandler],
        poller: Poller,
        loop: asyncio.AbstractEventLoop,
        metrics: Metrics,
        *,
        max_connections: int,
        retry_threshold: int,
        handshake: float,
        reset_key: bytes,
    ) -> None:
        """Start to receive.

        Args:
            sock: bound, not connected.
            factory: makes engines; replace `factory` to use a new certificate for new connections.
            accept: makes the handler of a new link, given the client's address.
            poller: of this loop.
            loop: the loop.
            metrics: where counts go.
            max_connections: connections at once; beyond, Initial packets are dropped.
            retry_threshold: half-open handshakes from which clients must prove their address.
            handshake: seconds a handshake may take.
            reset_key: makes stateless reset tokens, the same that the factory's engines announce.
        """
        super().__init__(sock, poller, loop, metrics, is_connected=False)
        self.factory = factory
        self.is_accepting = True
        self._accept = accept
        self._max_connections = max_connections
        self._retry_threshold = retry_threshold
        self._handshake = handshake
        self._reset_key = reset_key
        self._reset_second = -1
        self._resets_left = 0
        self._tokens = RetryTokens(lifetime=handshake)
        self._routes: dict[bytes, Link] = {}
        self._ids: dict[Link, set[bytes]] = {}
        self._half_open: dict[Link, asyncio.TimerHandle] = {}
        self._empty: asyncio.Event | None = None

    @property
    def connections(self) -> int:
        """Connections now, half-open ones included."""
        return len(self._ids)

    @property
    def links(self) -> list[Link]:
        """All connections now."""
        return list(self._ids)

    async def quiet(self, limit: float = 1.0) -> None:
        """Wait until closed connections have said so for long enough, at most `limit` seconds (RFC 9000 §10.2)."""
        self._empty = asyncio.Event()
        if self._ids:
            try:
                async with asyncio.timeout(limit):
                    await self._empty.wait()
            except TimeoutError:
                return

    def close(self) -> None:
        """Close the socket and forget all connections."""
        for link in self.links:
            link.abandon()
        super().close()

    def id_issued(self, link: Link, connection_id: bytes) -> None:
        """Route this id to `link`."""
        ids = self._ids.get(link)
        if ids is not None:
            ids.add(connection_id)
            self._routes[connection_id] = link

    def id_retired(self, link: Link, connection_id: bytes) -> None:
        """Route this id no more."""
        ids = self._ids.get(link)
        if ids is not None and connection_id in ids:
            ids.discard(connection_id)
            self._routes.pop(connection_id, None)

    def link_established(self, link: Link) -> None:
        """Count the handshake as complete."""
        timer = self._half_open.pop(link, None)
        if timer is not None:
            timer.cancel()
            self._metrics.count(Metric.CONNECTIONS_OPENED)

    def link_over(self, link: Link) -> None:
        """Forget the connection and its ids."""
        for connection_id in self._ids.pop(link, ()):
            self._routes.pop(connection_id, None)
        self._waiting.pop(link, None)
        timer = self._half_open.pop(link, None)
        if timer is not None:
            timer.cancel()
            self._metrics.count(Metric.HANDSHAKES_FAILED)
        else:
            self._metrics.count(Metric.CONNECTIONS_CLOSED)
        self._metrics.count(Metric.CONNECTIONS_ACTIVE, -1)
        if self._empty is not None and not self._ids:
            self._empty.set()

    def _received(self, data: bytes, segment: int, address: Address) -> None:
        size = len(data)
        if size > segment:
            # One system call gave several packets. Nearly always all are of one connection: then feed them at once.
            first = data[1:_ID_END]
            for start in range(segment + 1, size, segment):
                if data[start : start + CONNECTION_ID_LENGTH] != first:
                    break
            else:
                link = self._routes.get(first)
                if link is not None and not data[0] & 0x80:
                    link.receive(data, segment, address)
                    return
            for start in range(0, size, segment):
                self._packet(data[start : start + segment], address)
        elif size:
            self._packet(data, address)

    def _packet(self, data: bytes, address: Address) -> None:
        if not data[0] & 0x80:
            link = self._routes.get(data[1:_ID_END])
            if link is not None:
                link.receive(data, len(data), address)
            else:
                self._unknown(data, address)
            return
        header = parse_long_header(data)
        if header is None:
            self._metrics.count(Metric.DATAGRAMS_DROPPED, 1, DropReason.UNROUTABLE)
            return
        link = self._routes.get(header.destination_id)
        if link is not None:
            link.receive(data, len(data), address)
        elif len(data) < MIN_INITIAL_SIZE:
            self._metrics.count(Metric.DATAGRAMS_DROPPED, 1, DropReason.UNROUTABLE)
        elif header.version != VERSION_1:
            if header.version != 0:
                self._reply(encode_version_negotiation(header), address)
                self._metrics.count(Metric.VERSION_NEGOTIATIONS)
        elif header.is_initial and len(header.destination_id) >= 8:
            self._initial(header, data, address)

    def _unknown(self, data: bytes, address: Address) -> None:
        """A packet of a connection that is no more, or never was: say so, a bounded number of times a second."""
        self._metrics.count(Metric.DATAGRAMS_DROPPED, 1, DropReason.UNROUTABLE)
        second = int(self._poller.now)
        if second != self._reset_second:
            self._reset_second = second
            self._resets_left = _RESETS_PER_SECOND
        if self._resets_left and len(data) > _ID_END:
            self._resets_left -= 1
            packet = encode_stateless_reset(len(data), reset_token(self._reset_key, data[1:_ID_END]))
            if packet is not None:
                self._reply(packet, address)

    def _initial(self, header: LongHeader, data: bytes, address: Address) -> None:
        """A client's first packet: make it prove its address, or make a connection."""
        if not self.is_accepting:
            return
        if len(self._ids) >= self._max_connections:
            self._metrics.count(Metric.LIMITS_HIT, 1, LimitName.CONNECTIONS)
            return
        now = self._poller.now
        original: bytes | None = header.destination_id
        retry_source: bytes | None = None
        if header.token:
            original = self._tokens.check(header.token, address, header.destination_id, now)
            retry_source = header.destination_id
        if original is None or (not header.token and len(self._half_open) >= self._retry_threshold):
            source_id = os.urandom(CONNECTION_ID_LENGTH)
            token = self._tokens.make(address, header.destination_id, source_id, now)
            self._reply(encode_retry(header, source_id, token), address)
            self._metrics.count(Metric.RETRIES_SENT)
            return
        try:
            engine = self.factory.server(original, header.source_id, retry_source, now)
        except Exception as exc:  # noqa: BLE001 - a library's fault costs this client only
            _log.error("engine_failed", exception_type=type(exc).__name__)
            return
        self._open(engine, header.destination_id, address).receive(data, len(data), address)

    def _open(self, engine: Engine, first_id: bytes, address: Address) -> Link:
        link = Link(engine, self, self._poller, self._loop, self._metrics)
        self._ids[link] = set()
        self.id_issued(link, first_id)
        self.id_issued(link, engine.connection_id)
        self._half_open[link] = self._loop.call_later(self._handshake, self._give_up, link)
        self._metrics.count(Metric.CONNECTIONS_ACTIVE)
        link.handler = self._accept(link, address)
        return link

    def _give_up(self, link: Link) -> None:
        self._metrics.count(Metric.LIMITS_HIT, 1, LimitName.HANDSHAKE)
        link.abandon()

    def _reply(self, packet: bytes, address: Address) -> None:
        """Send a packet outside any connection; one that does not go out is not missed."""
        if not self._unsent:
            self._send([packet], address)


class ClientEndpoint(_Endpoint):
    """The connected socket of one client connection."""

    def __init__(
        self, sock: UdpSocket, engine: Engine, poller: Poller, loop: asyncio.AbstractEventLoop, metrics: Metrics
    ) -> None:
        """Put `engine` on `sock`, which is connected to the server. Set `link.handler`, then `link.touch()`."""
        super().__init__(sock, poller, loop, metrics, is_connected=True)
        self.link = Link(engine, self, poller, loop, metrics)

    def rebind(self, sock: UdpSocket) -> None:
        """Go on with another socket that is connected to the same server; the server sees a new address and
        validates it (RFC 9000 §9). What the old socket still holds is lost."""
        self._poller.remove(self._socket.fileno())
        self._socket.close()
        self._socket = sock
        self._unsent.clear()
        self._poller.add(sock.fileno(), self._ready)
        self.link.touch()

    def _refused(self) -> None:
        """Nobody listens at the server's port: give up at once, unless it was once proven that somebody does."""
        if not self.link.is_established:
            self.link.abandon()

    def id_issued(self, link: Link, connection_id: bytes) -> None:
        """Nothing to route: all packets of this socket are the link's."""

    def id_retired(self, link: Link, connection_id: bytes) -> None:
        """Nothing to route."""

    def link_established(self, link: Link) -> None:
        """Nothing is half open here."""

    def link_over(self, link: Link) -> None:
        """The socket has no use without its connection."""
        self.close()

    def close(self) -> None:
        """Close the socket and forget the connection."""
        if not self._is_closed:
            super().close()
            self.link.abandon()

    def _received(self, data: bytes, segment: int, address: Address) -> None:
        if data:
            self.link.receive(data, segment, address)
