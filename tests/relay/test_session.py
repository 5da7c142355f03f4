"""relay.session and relay.exchange on a transport that only remembers: bytes in, calls out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import pytest

from masque.datagram import encode_prefix
from masque.errors import ErrorCode, LocalMisuse
from masque.h3 import H3Connection
from masque.head import ResponseHead
from masque.varint import encode_varint
from relay.exchange import EarlyLimits, Exchange
from relay.session import Session
from relay.telemetry import CounterMetrics, DropReason, Metric
from tests.masque.h3_wire import CONNECT, CONNECT_HEAD, CONTROL, OK, SETTINGS, UDP, UDP_HEAD, data, frame, headers

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
        assert session._routes == {}
        assert session._held == set()
        assert session._waiting == {}
        assert session._unsent == set()
        assert session.machine.open_requests == 0
        assert self.transport.held == set()


def test_settings_go_out_at_once_and_readiness_is_told_once() -> None:
    side = Side()
    assert side.transport.written[SERVER_CONTROL].startswith(CONTROL + b"\x04")
    assert side.ready == 1


def test_a_request_becomes_an_exchange() -> None:
    side = Side()
    exchange = side.request()
    assert side.session.exchanges == {0: exchange}
    assert (exchange.stream_id, exchange.head) == (0, CONNECT_HEAD)
    exchange.respond(OK_HEAD)
    assert side.transport.written[0] == headers(OK)
    exchange.write(b"hello")
    assert side.transport.written[0] == headers(OK) + data(b"hello")
    exchange.end_content()
    assert side.transport.ended == [0]
    assert not exchange.is_over


def test_a_refusal_answers_stops_and_forgets() -> None:
    side = Side()
    ends: list[bool] = []
    exchange = side.request()
    exchange.on_end = lambda: ends.append(True)
    exchange.respond(REFUSED_HEAD, fin=True)
    assert side.transport.ended == [0]
    assert side.transport.stops == [(0, ErrorCode.H3_NO_ERROR)]
    assert side.transport.resets == []
    assert exchange.is_over
    assert ends == [True]
    exchange.respond(OK_HEAD)
    exchange.abort(ErrorCode.H3_INTERNAL_ERROR)
    exchange.end()
    assert (ends, side.transport.resets) == ([True], [])
    side.assert_empty()


def test_content_reaches_the_sink_in_order_and_ends_once() -> None:
    side = Side()
    exchange = side.request()
    side.session.stream_data(0, data(b"early "), False)
    sink = Recorder()
    exchange.respond(OK_HEAD)
    exchange.attach(sink)
    side.session.stream_data(0, data(b"middle ")[:4], False)
    side.session.stream_data(0, data(b"middle ")[4:], False)
    side.session.stream_data(0, data(b"late"), True)
    assert (sink.data, sink.fins) == (b"early middle late", 1)


def test_an_early_end_is_delivered_at_attach() -> None:
    side = Side()
    side.session.stream_data(0, headers(CONNECT), True)
    sink = Recorder()
    side.requests[0].respond(OK_HEAD)
    side.requests[0].attach(sink)
    assert (sink.data, sink.fins) == (b"", 1)


# Datagrams.


@pytest.mark.parametrize("stream_id", [0, 4, 63 * 4, 64 * 4, 16383 * 4, 16384 * 4, (1 << 30) * 4, (1 << 62) - 4])
def test_datagrams_find_their_tunnel_by_its_prefix(stream_id: int) -> None:
    side = Side()
    _, sink = side.tunnel(stream_id)
    prefix = encode_prefix(stream_id)
    side.session.datagrams([prefix + b"one", prefix, prefix + b"three"])
    assert sink.batches == [[b"one", b"", b"three"]]
    assert sink.datagrams == []


@pytest.mark.parametrize("quarter", [b"\x40\x01", b"\x80\x00\x00\x01", b"\xc0" + bytes(6) + b"\x01"])
@pytest.mark.parametrize("context", [b"\x00", b"\x40\x00", b"\x02"])
def test_longer_encodings_take_the_long_way(quarter: bytes, context: bytes) -> None:
    side = Side()
    _, sink = side.tunnel(4)
    side.session.datagrams([quarter + context + b"payload"])
    assert sink.datagrams == [context + b"payload"]
    assert sink.batches == []


@pytest.mark.parametrize("context", [b"", b"\x40\x00", b"\x01"])
def test_other_contexts_of_a_known_stream_take_the_long_way(context: bytes) -> None:
    side = Side()
    _, sink = side.tunnel()
    side.session.datagrams([b"\x00" + context])
    assert (sink.datagrams, sink.batches) == ([context], [])


def test_one_turn_of_two_tunnels_is_two_batches() -> None:
    side = Side()
    _, first = side.tunnel(0)
    _, second = side.tunnel(4)
    side.session.datagrams([b"\x00\x00a", b"\x01\x00b", b"\x00\x00c", b"\x01\x00d"])
    assert (first.batches, second.batches) == ([[b"a", b"c"]], [[b"b", b"d"]])


def test_a_sink_that_ends_another_tunnel_in_the_same_turn() -> None:
    side = Side()
    _, first = side.tunnel(0)
    other, second = side.tunnel(4)
    first.on_payloads = lambda: other.abort(ErrorCode.H3_REQUEST_CANCELLED)
    side.session.datagrams([b"\x00\x00a", b"\x01\x00b"])
    assert (first.batches, second.batches) == ([[b"a"]], [])


def test_datagrams_of_a_stream_that_is_gone_are_dropped_and_counted() -> None:
    side = Side()
    exchange, sink = side.tunnel()
    exchange.abort(ErrorCode.H3_REQUEST_CANCELLED)
    side.session.datagrams([b"\x00\x00late"])
    assert sink.batches == []
    assert side.drops(DropReason.NO_TUNNEL) == 1
    assert side.transport.closes == []


def test_orphans_wait_for_their_request_and_keep_their_order() -> None:
    side = Side()
    side.session.datagrams([b"\x00\x00a", b"\x01\x00x", b"\x00\x00b"])
    _, sink = side.tunnel(0)
    assert sink.datagrams == [b"\x00a", b"\x00b"]
    _, other = side.tunnel(4)
    assert other.datagrams == [b"\x00x"]
    assert side.drops(DropReason.NO_TUNNEL) + side.drops(DropReason.EARLY_FULL) == 0


def test_orphans_are_bounded_the_oldest_goes_and_is_counted() -> None:
    side = Side()
    side.session.datagrams([b"\x00\x00%d" % number for number in range(7)])
    _, sink = side.tunnel(0)
    assert sink.datagrams == [b"\x003", b"\x004", b"\x005", b"\x006"]
    assert side.drops(DropReason.EARLY_FULL) == 3


def test_datagrams_before_the_answer_are_bounded_and_counted() -> None:
    side = Side()
    exchange = side.request(is_udp=True)
    side.session.datagrams([b"\x00\x00%d" % number for number in range(6)])
    assert side.drops(DropReason.EARLY_FULL) == 2
    sink = Recorder()
    exchange.respond(OK_HEAD)
    exchange.attach(sink)
    assert sink.datagrams == [b"\x000", b"\x001", b"\x002", b"\x003"]


def test_a_client_keeps_no_datagrams_of_streams_it_never_opened() -> None:
    side = Side(is_client=True)
    side.session.datagrams([b"\x05\x00nobody's"])
    assert side.drops(DropReason.NO_TUNNEL) == 1
    assert len(side.session._orphans) == 0


@pytest.mark.parametrize("bad", [b"", b"\x40", b"\xc0\x00", encode_varint(1 << 60) + b"\x00"])
def test_a_bad_datagram_closes_the_connection(bad: bytes) -> None:
    side = Side()
    _, sink = side.tunnel()
    side.session.datagrams([b"\x00\x00before", bad, b"\x00\x00after"])
    assert side.transport.closes == [ErrorCode.H3_DATAGRAM_ERROR]
    assert b"after" not in [payload for batch in sink.batches for payload in batch]
    side.session.terminated(ErrorCode.H3_DATAGRAM_ERROR)
    assert sink.aborts == 1
    assert side.session.exchanges == {}


def test_datagrams_need_the_peers_word() -> None:
    side = Side()
    assert side.session.max_datagram_payload == 1200
    transport = Transport()
    silent = Session(transport, H3Connection(is_client=False), side, LIMITS, 5000, CounterMetrics())
    assert silent.max_datagram_payload == 0
    silent.stream_data(CLIENT_CONTROL, CONTROL + SETTINGS, False)
    assert silent.max_datagram_payload == 0


# Holding.


def test_early_data_above_its_bound_holds_until_a_sink_is_there() -> None:
    side = Side()
    exchange = side.request()
    side.session.stream_data(0, data(bytes(1000)), False)
    assert side.transport.held == set()
    side.session.stream_data(0, data(b"x"), False)
    assert side.transport.held == {0}
    side.session.stream_data(0, data(b"y"), False)
    sink = Recorder()
    exchange.respond(OK_HEAD)
    exchange.attach(sink)
    assert side.transport.held == set()
    assert sink.data == bytes(1000) + b"xy"


def refuse(side: Side, exchange: Exchange) -> None:
    exchange.respond(REFUSED_HEAD, fin=True)


def cancel(side: Side, exchange: Exchange) -> None:
    exchange.abort(ErrorCode.H3_REQUEST_CANCELLED)


def lose(side: Side, exchange: Exchange) -> None:
    side.session.terminated(0)


def reset(side: Side, exchange: Exchange) -> None:
    exchange.on_abort = lambda: exchange.abort(ErrorCode.H3_REQUEST_CANCELLED)
    side.session.stream_reset(0, ErrorCode.H3_REQUEST_CANCELLED)


@pytest.mark.parametrize("death", [refuse, cancel, lose, reset])
def test_an_exchange_that_dies_held_releases_the_stream(death: Callable[[Side, Exchange], None]) -> None:
    side = Side()
    exchange = side.request()
    side.session.stream_data(0, data(bytes(1001)), False)
    assert side.transport.held == {0}
    death(side, exchange)
    assert side.transport.held == set()
    assert exchange.is_over
    assert side.session.exchanges == {}


def test_a_tunnel_that_dies_held_releases_the_stream() -> None:
    side = Side()
    exchange, _ = side.tunnel()
    exchange.hold()
    assert side.transport.held == {0}
    exchange.abort(ErrorCode.H3_CONNECT_ERROR)
    side.assert_empty()


def test_crowding_is_the_sum_of_all_exchanges() -> None:
    side = Side()
    first, _ = side.tunnel(0)
    second, _ = side.tunnel(4)
    first.add_buffered(3000)
    assert not second.is_crowded
    second.add_buffered(2001)
    assert first.is_crowded
    first.add_buffered(-3000)
    assert not first.is_crowded


def test_drained_is_told_once_for_each_wish() -> None:
    side = Side()
    exchange, sink = side.tunnel()
    side.session.flushed()
    assert sink.drains == 0
    exchange.await_drain()
    exchange.await_drain()
    side.session.flushed()
    side.session.flushed()
    assert sink.drains == 1
    exchange.await_drain()
    exchange.abort(ErrorCode.H3_CONNECT_ERROR)
    side.session.flushed()
    assert sink.drains == 1


# Ends.


def test_an_abort_is_told_exactly_once() -> None:
    side = Side()
    _, sink = side.tunnel()
    side.session.stream_reset(0, ErrorCode.H3_REQUEST_CANCELLED)
    side.session.stop_sending(0, ErrorCode.H3_REQUEST_CANCELLED)
    side.session.stream_data(0, b"\x00", True)
    side.session.terminated(0)
    side.session.terminated(0)
    assert sink.aborts == 1
    assert side.closed == [0]


def test_an_abort_before_the_answer_is_told_exactly_once() -> None:
    side = Side()
    aborts: list[bool] = []
    exchange = side.request()
    exchange.on_abort = lambda: aborts.append(True)
    side.session.stream_reset(0, ErrorCode.H3_REQUEST_CANCELLED)
    side.session.stop_sending(0, ErrorCode.H3_REQUEST_CANCELLED)
    side.session.terminated(0)
    assert aborts == [True]
    assert exchange.is_over


def test_an_abort_in_the_callers_own_name_is_not_told() -> None:
    side = Side()
    exchange, sink = side.tunnel()
    exchange.abort(ErrorCode.H3_CONNECT_ERROR)
    assert sink.aborts == 0
    assert side.transport.resets == [(0, ErrorCode.H3_CONNECT_ERROR)]
    assert side.transport.stops == [(0, ErrorCode.H3_CONNECT_ERROR)]


def test_a_sink_that_comes_after_the_abort_is_told_at_once() -> None:
    side = Side()
    exchange = side.request()
    exchange.respond(OK_HEAD)
    side.session.stream_data(0, data(b"early"), False)
    side.session.stream_reset(0, ErrorCode.H3_REQUEST_CANCELLED)
    sink = Recorder()
    exchange.attach(sink)
    assert sink.aborts == 1


def test_a_sink_that_comes_after_the_connections_end_is_told_at_once() -> None:
    side = Side(is_client=True)
    exchange = side.session.request(0, CONNECT_HEAD)
    side.session.stream_data(0, headers(OK), False)
    side.session.terminated(0)
    sink = Recorder()
    exchange.attach(sink)
    assert sink.aborts == 1


def test_a_malformed_request_costs_its_stream_alone() -> None:
    side = Side()
    _, sink = side.tunnel(0)
    side.session.stream_data(4, headers([(b":method", b"CONNECT")]), False)
    assert side.transport.resets == [(4, ErrorCode.H3_MESSAGE_ERROR)]
    assert len(side.requests) == 1
    assert (sink.aborts, side.transport.closes) == (0, [])


def test_a_broken_connection_aborts_all_and_answers_nobody() -> None:
    side = Side()
    sinks = [side.tunnel(stream_id)[1] for stream_id in (0, 4, 8)]
    side.session.stream_data(CLIENT_CONTROL, SETTINGS, False)
    assert side.transport.closes == [ErrorCode.H3_FRAME_UNEXPECTED]
    side.session.terminated(ErrorCode.H3_FRAME_UNEXPECTED)
    assert [sink.aborts for sink in sinks] == [1, 1, 1]
    assert side.session.exchanges == {}


def close_in_order(side: Side, exchange: Exchange) -> None:
    side.session.stream_data(exchange.stream_id, b"", True)
    exchange.end_content()
    exchange.end()


def close_ours_first(side: Side, exchange: Exchange) -> None:
    exchange.end_content()
    side.session.stream_data(exchange.stream_id, data(b"bye"), True)
    exchange.end()


def peer_resets(side: Side, exchange: Exchange) -> None:
    side.session.stream_reset(exchange.stream_id, ErrorCode.H3_REQUEST_CANCELLED)
    exchange.abort(ErrorCode.H3_REQUEST_CANCELLED)


def peer_stops(side: Side, exchange: Exchange) -> None:
    side.session.stop_sending(exchange.stream_id, ErrorCode.H3_REQUEST_CANCELLED)
    exchange.abort(ErrorCode.H3_REQUEST_CANCELLED)


def we_abort_held(side: Side, exchange: Exchange) -> None:
    exchange.hold()
    exchange.await_drain()
    exchange.abort(ErrorCode.H3_CONNECT_ERROR)


def test_ten_thousand_exchanges_leave_nothing() -> None:
    side = Side()
    endings = (close_in_order, close_ours_first, peer_resets, peer_stops, we_abort_held)
    for number in range(10_000):
        stream_id = number * 4
        exchange, sink = side.tunnel(stream_id)
        side.session.datagrams([exchange.prefix + b"x"] if exchange.prefix else [])
        assert sink.batches == [[b"x"]]
        endings[number % len(endings)](side, exchange)
        side.requests.clear()
        side.transport.written.clear()
    side.assert_empty()
    assert len(side.session._orphans) == 0
    assert not side.session.is_crowded


def test_a_session_is_idle_once_the_last_content_was_sent() -> None:
    side = Side()
    exchange, _ = side.tunnel()
    assert not side.session.is_idle
    side.transport.backlogs[0] = 100
    exchange.end()
    side.session.flushed()
    assert not side.session.is_idle
    side.transport.backlogs[0] = 0
    side.session.flushed()
    assert side.session.is_idle


def test_what_was_not_sent_is_forgotten_with_the_connection() -> None:
    side = Side()
    exchange, _ = side.tunnel()
    side.transport.backlogs[0] = 100
    exchange.end()
    side.session.terminated(0)
    assert side.session._unsent == set()


# The client's role.


def test_a_clients_request_and_its_answer() -> None:
    side = Side(is_client=True)
    exchange = side.session.request(0, CONNECT_HEAD)
    assert side.transport.written[0] == headers(CONNECT)
    side.session.stream_data(0, headers(OK) + data(b"hello"), False)
    assert side.responses == [200]
    assert exchange.response == OK_HEAD
    sink = Recorder()
    exchange.attach(sink)
    assert sink.data == b"hello"


def test_interim_responses_are_told_and_are_not_the_answer() -> None:
    side = Side(is_client=True)
    exchange = side.session.request(0, CONNECT_HEAD)
    side.session.stream_data(0, headers([(b":status", b"103")]), False)
    assert exchange.response is None
    side.session.stream_data(0, headers(OK), False)
    assert side.responses == [103, 200]


def test_a_refusal_with_stop_sending_first_is_heard() -> None:
    side = Side(is_client=True)
    aborts: list[bool] = []
    exchange = side.session.request(0, CONNECT_HEAD)
    exchange.on_abort = lambda: aborts.append(True)
    side.session.stop_sending(0, ErrorCode.H3_NO_ERROR)
    side.session.stream_data(0, headers([(b":status", b"403")]), True)
    assert side.responses == [403]
    assert aborts == []
    exchange.abort(ErrorCode.H3_REQUEST_CANCELLED)
    side.assert_empty()


def test_a_reset_before_the_answer_is_the_end() -> None:
    side = Side(is_client=True)
    aborts: list[bool] = []
    exchange = side.session.request(0, CONNECT_HEAD)
    exchange.on_abort = lambda: aborts.append(True)
    side.session.stream_reset(0, ErrorCode.H3_REQUEST_REJECTED)
    assert aborts == [True]


def test_goaway_is_told_and_stops_new_requests() -> None:
    side = Side(is_client=True)
    old = side.session.request(0, CONNECT_HEAD)
    side.session.stream_data(SERVER_CONTROL, frame(7, encode_varint(4)), False)
    assert side.draining == 1
    with pytest.raises(LocalMisuse):
        side.session.request(4, UDP_HEAD)
    assert side.session.exchanges == {0: old}


def test_our_goaway_goes_out_and_new_streams_are_rejected() -> None:
    side = Side()
    _, sink = side.tunnel(0)
    side.session.goaway(final=False)
    side.session.goaway(final=True)
    assert side.transport.written[SERVER_CONTROL].endswith(frame(7, encode_varint(4)))
    side.session.stream_data(4, headers(CONNECT), False)
    assert (4, ErrorCode.H3_REQUEST_REJECTED) in side.transport.resets
    assert len(side.requests) == 1
    assert sink.aborts == 0


def test_a_closed_session_takes_no_more_words() -> None:
    side = Side()
    exchange, sink = side.tunnel()
    side.session.close()
    assert side.transport.closes == [ErrorCode.H3_NO_ERROR]
    side.session.goaway(final=True)
    side.session.stream_data(0, data(b"late"), False)
    side.session.terminated(ErrorCode.H3_NO_ERROR)
    exchange.respond(OK_HEAD)
    exchange.abort(ErrorCode.H3_CONNECT_ERROR)
    assert (sink.data, sink.aborts) == (b"", 1)
    assert side.transport.closes == [ErrorCode.H3_NO_ERROR]


def test_an_exchanges_repr_names_no_target() -> None:
    side = Side()
    assert "target.example" not in repr(side.request())
