"""relay.session and relay.exchange: how exchanges end, that nothing stays behind, and the client's role."""

from __future__ import annotations

import pytest

from masque.errors import ErrorCode, LocalMisuse
from masque.varint import encode_varint
from relay.exchange import Exchange
from tests.masque.h3_wire import CONNECT, CONNECT_HEAD, OK, SETTINGS, UDP_HEAD, data, frame, headers
from tests.relay.session_rig import (
    CLIENT_CONTROL,
    OK_HEAD,
    SERVER_CONTROL,
    Recorder,
    Side,
)


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
    assert side.session._datagrams.is_empty
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
