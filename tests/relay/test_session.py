"""relay.session and relay.exchange on a transport that only remembers: bytes in, calls out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from masque.datagram import encode_prefix
from masque.errors import ErrorCode
from masque.h3 import H3Connection
from masque.varint import encode_varint
from relay.exchange import Exchange
from relay.session import Session
from relay.telemetry import CounterMetrics, DropReason, LimitName, Metric
from tests.masque.h3_wire import CONNECT, CONNECT_HEAD, CONTROL, OK, SETTINGS, data, headers
from tests.relay.session_rig import (
    CLIENT_CONTROL,
    LIMITS,
    OK_HEAD,
    REFUSED_HEAD,
    SERVER_CONTROL,
    Recorder,
    Side,
    Transport,
)


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
    assert side.transport.stops == [], "the answer leaves first"
    side.session.flushed()
    side.session.flushed()
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
    assert side.session._datagrams.is_empty


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


@pytest.mark.parametrize("is_crowded", [False, True])
def test_early_data_is_never_held_at_the_neighbours_cost(is_crowded: bool) -> None:
    """Where a hold stops the whole connection, the stream is given some more room and is aborted beyond it."""
    side = Side()
    side.transport.holds_connection = True
    exchange = side.request()
    aborts: list[None] = []
    exchange.on_abort = lambda: aborts.append(None)
    if is_crowded:
        side.request(4).deliver_data(bytes(1000), False)
        side.requests[1].add_buffered(500)
    else:
        side.session.stream_data(0, data(bytes(1500)), False)
        assert not exchange.is_aborted
    side.session.stream_data(0, data(bytes(1001 if is_crowded else LIMITS.spare)), False)
    assert side.transport.held == set()
    assert exchange.is_aborted
    assert aborts == [None]
    assert (0, ErrorCode.H3_EXCESSIVE_LOAD) in side.transport.resets
    assert side.metrics.value(Metric.LIMITS_HIT, LimitName.EARLY_DATA) == 1
    exchange.end()
    assert not exchange.is_crowded


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
    first.add_buffered(1500)
    assert not second.is_crowded
    second.add_buffered(1001)
    assert first.is_crowded
    first.add_buffered(-1500)
    assert not first.is_crowded


def test_what_waits_to_be_sent_is_shared_evenly() -> None:
    side = Side()
    first, _ = side.tunnel(0)
    assert first.fair_share == 2500
    second, _ = side.tunnel(4)
    assert first.fair_share == second.fair_share == 1250
    second.abort(ErrorCode.H3_CONNECT_ERROR)
    assert first.fair_share == 2500


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
