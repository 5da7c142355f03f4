"""Two QUIC connections joined in memory: no socket, and a clock that only the test moves."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from aioquic.quic.configuration import QuicConfiguration as AioquicConfiguration
from aioquic.quic.connection import QuicConnection as AioquicConnection
from qh3.quic.configuration import QuicConfiguration as Qh3Configuration
from qh3.quic.connection import QuicConnection as Qh3Connection

from relay.quic.engine import (
    Address,
    Burst,
    Certificate,
    ClientOptions,
    Engine,
    EngineFactory,
    EngineName,
    Established,
    Event,
    StreamData,
    TransportLimits,
    load_factory,
)
from relay.quic.packet import parse_long_header

__all__ = ["CLIENT", "SERVER", "End", "LibraryEnd", "Network", "Pki", "library_client"]

CLIENT: Address = ("192.0.2.1", 50000)
SERVER: Address = ("192.0.2.2", 4433)
_LATENCY = 0.002
"Seconds a packet travels."

_E = TypeVar("_E")


@dataclass(frozen=True)
class Pki:
    """The files of a development authority."""

    folder: Path

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def certificate(self) -> Certificate:
        return Certificate(self.folder / "server.pem", self.folder / "server.key")


class Connection(Protocol):
    """What the network needs of an engine; `LibraryEnd` offers it for a bare library connection."""

    def receive(self, data: bytes, segment: int, address: Address, now: float) -> None: ...
    def take_events(self) -> list[Event]: ...
    def take_datagrams(self) -> list[bytes]: ...
    def transmit(self, now: float) -> list[Burst]: ...
    def deadline(self) -> float | None: ...
    def on_deadline(self, now: float) -> None: ...


class LibraryEnd:
    """A client connection of a library itself, without our engine, for peers that differ from us."""

    def __init__(self, connection: Any, address: Address, now: float) -> None:
        self.connection = connection
        self.events: list[Any] = []
        connection.connect(address, now)

    def receive(self, data: bytes, segment: int, address: Address, now: float) -> None:
        for start in range(0, len(data), segment):
            self.connection.receive_datagram(data[start : start + segment], address, now)

    def take_events(self) -> list[Event]:
        while (event := self.connection.next_event()) is not None:
            self.events.append(event)
        return []

    def take_datagrams(self) -> list[bytes]:
        self.take_events()
        found = [event.data for event in self.events if type(event).__name__ == "DatagramFrameReceived"]
        self.events = [event for event in self.events if type(event).__name__ != "DatagramFrameReceived"]
        return found

    def transmit(self, now: float) -> list[Burst]:
        return [([payload], address) for payload, address in self.connection.datagrams_to_send(now)]

    def deadline(self) -> float | None:
        due: float | None = self.connection.get_timer()
        return due

    def on_deadline(self, now: float) -> None:
        self.connection.handle_timer(now)


def library_client(name: EngineName, **options: Any) -> LibraryEnd:
    """A client of the library `name` that checks no certificate, configured by `options`."""
    options |= {"is_client": True, "alpn_protocols": ["h3"], "server_name": "localhost"}
    connection: Any
    if name is EngineName.AIOQUIC:
        connection = AioquicConnection(configuration=AioquicConfiguration(verify_mode=ssl.CERT_NONE, **options))
    else:
        connection = Qh3Connection(configuration=Qh3Configuration(verify_mode=ssl.CERT_NONE, **options))
    return LibraryEnd(connection, SERVER, Network.START)


class End:
    """One side of the network: its connection, and all that came of it so far."""

    def __init__(self, connection: Connection, address: Address) -> None:
        self.connection = connection
        self.address = address
        self.events: list[Event] = []
        self.datagrams: list[bytes] = []
        self.ended: set[int] = set()
        self.sent: list[bytes] = []
        "UDP payloads sent, for tests that replay them."
        self.sent_bytes = 0
        self.keeps_sent = True

    def of(self, kind: type[_E]) -> list[_E]:
        """The events of one type."""
        return [event for event in self.events if isinstance(event, kind)]

    def stream(self, stream_id: int) -> bytes:
        """All bytes that arrived on a stream."""
        return b"".join(event.data for event in self.of(StreamData) if event.stream_id == stream_id)

    def has_fin(self, stream_id: int) -> bool:
        """True when the stream's end arrived."""
        return stream_id in self.ended


class Network:
    """Carries packets between a client and a server that is made from the client's first packet."""

    START = 1000.0

    def __init__(self, client: Connection, make_server: EngineFactory) -> None:
        self.now = self.START
        self.client_end = End(client, CLIENT)
        self._factory = make_server
        self._server_end: End | None = None
        self.loses: Callable[[bytes], bool] = lambda payload: False
        "Packets for which this is true are lost."
        self.reaches: Callable[[Address], bool] = lambda address: True
        "Addresses at which the client still gets what the server sends there."
        self.arrivals: dict[Address, int] = {}
        "Bytes that the server sent to each address."

    @classmethod
    def of_engines(
        cls,
        pki: Pki,
        client: EngineName,
        server: EngineName,
        *,
        client_limits: TransportLimits | None = None,
        server_limits: TransportLimits | None = None,
        options: ClientOptions | None = None,
    ) -> Network:
        """A network of two engines; the server is made when the client's first packet arrives."""
        options = options or ClientOptions("localhost", ca_file=pki.ca_file)
        clients = load_factory(client, client_limits or TransportLimits(), None)
        servers = load_factory(server, server_limits or TransportLimits(), pki.certificate)
        return cls(clients.client(options, SERVER, cls.START), servers)

    @property
    def client(self) -> Any:
        """The client's engine (or its `LibraryEnd`)."""
        return self.client_end.connection

    @property
    def server_end(self) -> End:
        assert self._server_end is not None, "no packet of the client has arrived"
        return self._server_end

    @property
    def server(self) -> Engine:
        """The server's engine."""
        engine: Any = self.server_end.connection
        return engine  # type: ignore[no-any-return]

    @property
    def ends(self) -> list[End]:
        return [self.client_end] + ([self._server_end] if self._server_end is not None else [])

    def serve(self, engine: Engine, packet: bytes) -> None:
        """Let `engine` be the server and give it the client's packet, where the test itself makes the server."""
        self._server_end = End(engine, SERVER)
        self._to_server(packet)

    def establish(self) -> None:
        """Run the handshake, and what follows it at once (ids, tickets, acknowledgements)."""
        self.run(1.0)
        assert self.server_end.of(Established), "the handshake did not complete"

    def step(self) -> bool:
        """Carry what both sides have to send; True when there was anything."""
        client_sends = self._transmit(self.client_end)
        server_sends = self._transmit(self._server_end) if self._server_end is not None else []
        self.now += _LATENCY
        for payload in client_sends:
            self._to_server(payload)
        if server_sends:
            self._feed(self.client_end, server_sends, SERVER)
        self.collect()
        return bool(client_sends or server_sends)

    def run(self, seconds: float = 1.0, until: Callable[[], bool] = lambda: False) -> None:
        """Let `seconds` pass, timers included, or less when `until` comes true."""
        end = self.now + seconds
        while not until() and self.now < end:
            if self.step():
                self._fire()
                continue
            due = [deadline for side in self.ends if (deadline := side.connection.deadline()) is not None]
            self.now = max(self.now, min([*due, end]))
            self._fire()

    def collect(self) -> None:
        """Take the events and datagrams of both sides."""
        for side in self.ends:
            events = side.connection.take_events()
            side.events += events
            side.ended.update(event.stream_id for event in events if isinstance(event, StreamData) and event.fin)
            side.datagrams += side.connection.take_datagrams()

    def _fire(self) -> None:
        for side in self.ends:
            due = side.connection.deadline()
            if due is not None and due <= self.now:
                side.connection.on_deadline(self.now)
        self.collect()

    def _transmit(self, side: End) -> list[bytes]:
        arriving: list[bytes] = []
        for payloads, destination in side.connection.transmit(self.now):
            size = sum(map(len, payloads))
            side.sent_bytes += size
            if side.keeps_sent:
                side.sent += payloads
            if side is self._server_end:
                self.arrivals[destination] = self.arrivals.get(destination, 0) + size
            if side is self.client_end or self.reaches(destination):
                arriving += payloads
        return [payload for payload in arriving if not self.loses(payload)]

    def _to_server(self, payload: bytes) -> None:
        if self._server_end is None:
            header = parse_long_header(payload)
            assert header is not None, "a client begins with a long header"
            engine = self._factory.server(header.destination_id, header.source_id, None, self.now)
            self._server_end = End(engine, SERVER)
        self._feed(self._server_end, [payload], self.client_end.address)

    def _feed(self, side: End, payloads: Iterable[bytes], source: Address) -> None:
        for payload in payloads:
            side.connection.receive(payload, len(payload), source, self.now)
