"""A session on a transport that only remembers, for the tests of `relay.session` and `relay.exchange`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from masque.datagram import encode_prefix
from masque.h3 import H3Connection
from masque.head import ResponseHead
from relay.exchange import EarlyLimits, Exchange
from relay.session import Session
from relay.telemetry import CounterMetrics, DropReason, Metric
from tests.masque.h3_wire import CONNECT, CONTROL, UDP, frame, headers

__all__ = ["CLIENT_CONTROL", "LIMITS", "OK_HEAD", "REFUSED_HEAD", "SERVER_CONTROL", "Recorder", "Side", "Transport"]

OK_HEAD = ResponseHead(200)
REFUSED_HEAD = ResponseHead(502)
CLIENT_CONTROL, SERVER_CONTROL = 2, 3
SERVER_SETTINGS = CONTROL + frame(4, b"\x08\x01\x33\x01")
CLIENT_SETTINGS = CONTROL + frame(4, b"\x33\x01")
LIMITS = EarlyLimits(data=1000, datagrams=4)


class Transport:
    """Remembers what a session asks for, and refuses what makes no sense."""

    def __init__(self) -> None:
        self.max_datagram_payload = 1200
        self.holds_connection = False
        self.written: defaultdict[int, bytes] = defaultdict(bytes)
        self.ended: list[int] = []
        self.resets: list[tuple[int, int]] = []
        self.stops: list[tuple[int, int]] = []
        self.closes: list[int] = []
        self.held: set[int] = set()
        self.datagrams: list[bytes] = []
        self.backlogs: dict[int, int] = {}

    def send_stream(self, stream_id: int, data: bytes | memoryview, fin: bool = False) -> None:
        assert stream_id not in self.ended
        self.written[stream_id] += bytes(data)
        if fin:
            self.ended.append(stream_id)

    def send_datagrams(self, prefix: bytes, data: bytes, segment: int) -> int:
        self.datagrams.append(prefix + data)
        return 1

    def backlog(self, stream_id: int) -> int:
        return self.backlogs.get(stream_id, 0)

    def hold(self, stream_id: int) -> None:
        assert stream_id not in self.held
        self.held.add(stream_id)

    def release(self, stream_id: int) -> None:
        self.held.remove(stream_id)

    def reset_stream(self, stream_id: int, code: int) -> None:
        self.resets.append((stream_id, code))

    def stop_sending(self, stream_id: int, code: int) -> None:
        self.stops.append((stream_id, code))

    def close(self, code: int, reason: str = "") -> None:
        self.closes.append(code)


class Recorder:
    """A sink that keeps all it gets."""

    def __init__(self) -> None:
        self.data = b""
        self.fins = 0
        self.batches: list[list[bytes]] = []
        self.datagrams: list[bytes] = []
        self.drains = 0
        self.aborts = 0
        self.on_payloads: Callable[[], None] = lambda: None

    def data_received(self, data: bytes, fin: bool) -> None:
        self.data += data
        self.fins += fin

    def payloads_received(self, payloads: list[bytes]) -> None:
        self.batches.append(payloads)
        self.on_payloads()

    def datagram_received(self, datagram: bytes) -> None:
        self.datagrams.append(datagram)

    def drained(self) -> None:
        self.drains += 1

    def aborted(self) -> None:
        self.aborts += 1


class Side:
    """A session with its transport, and the observer of what happens on it."""

    def __init__(self, *, is_client: bool = False) -> None:
        self.transport = Transport()
        self.metrics = CounterMetrics()
        self.requests: list[Exchange] = []
        self.responses: list[int] = []
        self.ready = 0
        self.draining = 0
        self.closed: list[int] = []
        self.on_request: Callable[[Exchange], None] = lambda exchange: None
        machine = H3Connection(is_client=is_client)
        self.session = Session(self.transport, machine, self, LIMITS, 5000, self.metrics)
        if is_client:
            self.session.stream_data(SERVER_CONTROL, SERVER_SETTINGS, False)
        else:
            self.session.stream_data(CLIENT_CONTROL, CLIENT_SETTINGS, False)

    def request_received(self, session: Session, exchange: Exchange) -> None:
        self.requests.append(exchange)
        self.on_request(exchange)

    def response_received(self, session: Session, exchange: Exchange, head: ResponseHead) -> None:
        self.responses.append(head.status)

    def session_ready(self, session: Session) -> None:
        self.ready += 1

    def session_draining(self, session: Session) -> None:
        self.draining += 1

    def session_closed(self, session: Session, code: int) -> None:
        self.closed.append(code)

    def request(self, stream_id: int = 0, *, is_udp: bool = False) -> Exchange:
        """A client's request arrives."""
        self.session.stream_data(stream_id, headers(UDP if is_udp else CONNECT), False)
        return self.requests[-1]

    def tunnel(self, stream_id: int = 0) -> tuple[Exchange, Recorder]:
        """A UDP exchange, accepted and with its prefix opened."""
        exchange = self.request(stream_id, is_udp=True)
        exchange.respond(OK_HEAD)
        sink = Recorder()
        exchange.open_datagrams(encode_prefix(stream_id))
        exchange.attach(sink)
        return exchange, sink

    def drops(self, reason: DropReason) -> int:
        return self.metrics.value(Metric.DATAGRAMS_DROPPED, reason)

    def assert_empty(self) -> None:
        """No exchange left a trace."""
        session = self.session
        assert session.exchanges == {}
        assert session._datagrams.is_empty
        assert session._held == set()
        assert session._waiting == {}
        assert session._unsent == set()
        assert session.machine.open_requests == 0
        assert self.transport.held == set()
