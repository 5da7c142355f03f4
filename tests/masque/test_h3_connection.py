"""The machine as a whole: two wired back to back, our own calls, going away, closing (RFC 9114 §4, §5)."""

from __future__ import annotations

import pytest

import masque.h3
from masque.errors import ErrorCode, LocalMisuse
from masque.h3 import (
    CloseConnection,
    DataReceived,
    GoawayReceived,
    H3Connection,
    RequestReceived,
    ResetReceived,
    ResponseReceived,
    StopSendingReceived,
    StreamReset,
    StreamStop,
    StreamWrite,
    actions,
    connection,
    encode_data_header,
    limits,
)
from masque.h3 import events as event_module
from masque.head import RequestHead, ResponseHead
from tests.masque.h3_wire import (
    CONNECT,
    CONNECT_HEAD,
    GET_HEAD,
    UDP_HEAD,
    Pair,
    data,
    events,
    frame,
    headers,
    make_client,
    make_requester,
    make_server,
    ok_head,
)


def test_the_door_is_the_sum_of_its_public_modules() -> None:
    names = [name for module in (actions, connection, event_module, limits) for name in module.__all__]
    assert sorted(masque.h3.__all__) == sorted([*names, "Settings", "encode_data_header"])


@pytest.mark.parametrize("head", [CONNECT_HEAD, GET_HEAD, UDP_HEAD])
def test_an_exchange_in_both_directions(head: RequestHead) -> None:
    pair = Pair()
    pair.client.send_request(0, head)
    pair.client.send_data(0, b"early")
    pair.pump()
    assert events(pair.server) == [RequestReceived(0, head, False), DataReceived(0, b"early", False)]
    answer = ok_head((b"capsule-protocol", b"?1"))
    pair.server.send_response(0, ResponseHead(103))
    pair.server.send_response(0, answer)
    pair.server.send_data(0, b"down")
    pair.pump()
    assert events(pair.client) == [
        ResponseReceived(0, ResponseHead(103), False),
        ResponseReceived(0, answer, False),
        DataReceived(0, b"down", False),
    ]
    pair.client.send_data(0, b"up", fin=True)
    pair.pump()
    assert events(pair.server) == [DataReceived(0, b"up", True)]
    assert (pair.client.open_requests, pair.server.open_requests) == (1, 1)
    pair.server.send_data(0, b"", fin=True)
    pair.pump()
    assert events(pair.client) == [DataReceived(0, b"", True)]
    assert (pair.client.open_requests, pair.server.open_requests) == (0, 0)
    assert pair.closes == []


def test_a_whole_exchange_in_two_writes() -> None:
    pair = Pair()
    pair.client.send_request(0, GET_HEAD, fin=True)
    pair.pump()
    assert events(pair.server) == [RequestReceived(0, GET_HEAD, True)]
    pair.server.send_response(0, ResponseHead(404), fin=True)
    pair.pump()
    assert events(pair.client) == [ResponseReceived(0, ResponseHead(404), True)]
    assert (pair.client.open_requests, pair.server.open_requests) == (0, 0)


def test_what_is_written() -> None:
    machine = make_server()
    machine.receive_stream_data(0, headers(CONNECT), False)
    machine.send_response(0, ResponseHead(200))
    machine.send_data(0, b"abc")
    machine.send_data(0, b"")
    machine.send_data(0, b"", fin=True)
    assert machine.actions_to_send() == [
        StreamWrite(0, frame(1, b"\x00\x00\xd9"), False),
        StreamWrite(0, data(b"abc"), False),
        StreamWrite(0, b"", True),
    ]
    assert machine.actions_to_send() == []


def test_the_caller_may_write_content_itself() -> None:
    pair = Pair()
    pair.client.send_request(0, CONNECT_HEAD)
    pair.pump()
    pair.server.send_response(0, ResponseHead(200))
    pair.pump()
    events(pair.client)
    pair.client.receive_stream_data(0, encode_data_header(3), False)
    pair.client.receive_stream_data(0, b"abc", True)
    pair.server.stream_finished_locally(0)
    assert events(pair.client) == [DataReceived(0, b"abc", True)]
    pair.client.stream_finished_locally(0)
    assert (pair.client.open_requests, pair.server.open_requests) == (0, 1)
    pair.server.receive_stream_data(0, b"", True)
    assert pair.server.open_requests == 0
    assert pair.client.actions_to_send() == pair.server.actions_to_send() == []


def test_reset_stream() -> None:
    pair = Pair()
    pair.client.send_request(0, CONNECT_HEAD)
    pair.pump()
    pair.server.reset_stream(0, ErrorCode.H3_CONNECT_ERROR)
    assert pair.server.open_requests == 0
    pair.pump()
    assert events(pair.client) == [
        ResetReceived(0, ErrorCode.H3_CONNECT_ERROR),
        StopSendingReceived(0, ErrorCode.H3_CONNECT_ERROR),
    ]
    assert pair.client.open_requests == 0
    pair.server.reset_stream(0, ErrorCode.H3_CONNECT_ERROR)
    pair.server.send_data(0, b"late")
    pair.server.stop_sending(0, 0)
    pair.server.stream_finished_locally(0)
    assert pair.server.actions_to_send() == []


def test_reset_stream_names_what_is_open_only() -> None:
    machine = make_server()
    machine.receive_stream_data(0, headers(CONNECT), True)
    machine.reset_stream(0, 7)
    assert machine.actions_to_send() == [StreamReset(0, 7)]
    machine.receive_stream_data(4, headers(CONNECT), False)
    machine.send_response(4, ResponseHead(404), fin=True)
    machine.actions_to_send()
    machine.reset_stream(4, 7)
    assert machine.actions_to_send() == [StreamStop(4, 7)]
    assert machine.open_requests == 0


def test_stop_sending_ends_the_peers_half() -> None:
    machine = make_server()
    machine.receive_stream_data(0, headers(CONNECT), False)
    events(machine)
    machine.stop_sending(0, ErrorCode.H3_NO_ERROR)
    machine.stop_sending(0, ErrorCode.H3_NO_ERROR)
    assert machine.actions_to_send() == [StreamStop(0, ErrorCode.H3_NO_ERROR)]
    machine.receive_stream_data(0, data(b"x"), False)
    machine.receive_reset(0, ErrorCode.H3_NO_ERROR)
    assert events(machine) == []
    assert machine.open_requests == 1
    machine.send_response(0, ResponseHead(403), fin=True)
    assert machine.open_requests == 0


def test_the_peers_stop_sending_resets_our_half() -> None:
    machine = make_server()
    machine.receive_stream_data(0, headers(CONNECT), False)
    events(machine)
    machine.receive_stop_sending(0, 9)
    machine.receive_stop_sending(0, 9)
    assert events(machine) == [StopSendingReceived(0, 9)]
    assert machine.actions_to_send() == [StreamReset(0, 9)]
    machine.receive_stream_data(0, b"", True)
    assert machine.open_requests == 0
    machine.send_response(0, ResponseHead(200))
    machine.send_data(0, b"race")
    assert machine.actions_to_send() == []


def test_requests_that_may_not_be_sent() -> None:
    client = make_requester()
    for stream_id in (0, 1, 2, 3, -4):
        with pytest.raises(LocalMisuse):
            client.send_request(stream_id, GET_HEAD)
    with pytest.raises(LocalMisuse):
        client.send_request(4, RequestHead(b"CONNECT"))
    with pytest.raises(LocalMisuse):
        client.send_response(0, ResponseHead(200))
    with pytest.raises(LocalMisuse):
        make_server().send_request(0, GET_HEAD)
    assert client.actions_to_send() == []
    client.send_request(4, GET_HEAD)
    assert client.open_requests == 2


def test_extended_connect_needs_the_servers_offer() -> None:
    client = H3Connection(is_client=True)
    with pytest.raises(LocalMisuse):
        client.send_request(0, UDP_HEAD)
    client.receive_stream_data(3, b"\x00" + frame(4), False)
    with pytest.raises(LocalMisuse):
        client.send_request(0, UDP_HEAD)
    client.send_request(0, CONNECT_HEAD)
    assert client.open_requests == 1


def test_responses_that_may_not_be_sent() -> None:
    server = make_server()
    with pytest.raises(LocalMisuse):
        server.send_response(0, ResponseHead(200))
    server.receive_stream_data(0, headers(CONNECT)[:3], False)
    with pytest.raises(LocalMisuse):
        server.send_response(0, ResponseHead(200))
    server.receive_stream_data(0, headers(CONNECT)[3:], False)
    with pytest.raises(LocalMisuse):
        server.send_response(0, ResponseHead(100), fin=True)
    with pytest.raises(LocalMisuse):
        server.send_response(0, ResponseHead(200, ((b"Bad", b""),)))
    with pytest.raises(LocalMisuse):
        server.send_data(0, b"x")
    with pytest.raises(LocalMisuse):
        server.stream_finished_locally(0)
    server.send_response(0, ResponseHead(200))
    with pytest.raises(LocalMisuse):
        server.send_response(0, ResponseHead(200))
    server.send_data(0, b"", fin=True)
    with pytest.raises(LocalMisuse):
        server.send_data(0, b"x")
    with pytest.raises(LocalMisuse):
        server.stream_finished_locally(0)
    assert len(server.actions_to_send()) == 2


@pytest.mark.parametrize("stream_id", [4, 1, 2, 3])
def test_streams_that_never_were(stream_id: int) -> None:
    server = make_server()
    server.receive_stream_data(0, headers(CONNECT), False)
    with pytest.raises(LocalMisuse):
        server.send_data(stream_id, b"x")
    with pytest.raises(LocalMisuse):
        server.reset_stream(stream_id, 0)
    with pytest.raises(LocalMisuse):
        server.stop_sending(stream_id, 0)
    with pytest.raises(LocalMisuse):
        server.stream_finished_locally(stream_id)


def test_start_is_called_once() -> None:
    machine = H3Connection(is_client=False)
    with pytest.raises(LocalMisuse):
        machine.send_goaway(final=True)
    machine.start()
    with pytest.raises(LocalMisuse):
        machine.start()


def test_a_server_goes_away() -> None:
    pair = Pair()
    pair.client.send_request(0, CONNECT_HEAD)
    pair.client.send_request(8, CONNECT_HEAD)
    pair.pump()
    events(pair.server)
    pair.server.send_goaway(final=False)
    pair.server.send_goaway(final=False)
    pair.client.send_request(12, CONNECT_HEAD)
    pair.pump()
    assert events(pair.client) == [GoawayReceived((1 << 62) - 4)]
    assert events(pair.server) == [RequestReceived(12, CONNECT_HEAD, False)]
    pair.client.send_request(16, CONNECT_HEAD)
    pair.server.send_goaway(final=True)
    pair.server.send_goaway(final=True)
    pair.server.send_goaway(final=False)
    pair.pump()
    assert events(pair.client) == [
        GoawayReceived(16),
        ResetReceived(16, ErrorCode.H3_REQUEST_REJECTED),
        StopSendingReceived(16, ErrorCode.H3_REQUEST_REJECTED),
    ]
    assert events(pair.server) == []
    with pytest.raises(LocalMisuse):
        pair.client.send_request(20, CONNECT_HEAD)
    pair.client.send_request(4, CONNECT_HEAD)
    pair.pump()
    assert events(pair.server) == [RequestReceived(4, CONNECT_HEAD, False)]
    assert pair.server.open_requests == 4
    assert pair.closes == []


def test_a_client_opens_nothing_from_the_servers_line_on() -> None:
    client = make_client()
    client.receive_stream_data(3, frame(7, b"\x08"), False)
    with pytest.raises(LocalMisuse):
        client.send_request(8, GET_HEAD)
    client.send_request(4, GET_HEAD)
    assert client.open_requests == 1


def test_a_rejected_request_is_rejected_once() -> None:
    server = make_server()
    server.send_goaway(final=True)
    assert server.actions_to_send() == [StreamWrite(3, frame(7, b"\x00"), False)]
    server.receive_stream_data(0, headers(CONNECT), False)
    server.receive_stream_data(0, data(b"x"), True)
    server.receive_reset(0, 0)
    assert server.actions_to_send() == [
        StreamReset(0, ErrorCode.H3_REQUEST_REJECTED),
        StreamStop(0, ErrorCode.H3_REQUEST_REJECTED),
    ]
    assert (events(server), server.open_requests) == ([], 0)


def test_a_client_goes_away() -> None:
    pair = Pair()
    pair.client.send_goaway(final=False)
    pair.client.send_goaway(final=True)
    pair.pump()
    assert events(pair.server) == [GoawayReceived(0)]
    pair.client.send_request(0, GET_HEAD, fin=True)
    pair.pump()
    assert events(pair.server) == [RequestReceived(0, GET_HEAD, True)]


def test_close_is_the_end() -> None:
    client = make_client()
    client.send_request(0, GET_HEAD)
    client.close(ErrorCode.H3_NO_ERROR, "done")
    client.close(ErrorCode.H3_INTERNAL_ERROR)
    client.send_request(4, GET_HEAD)
    client.send_data(0, b"x")
    client.reset_stream(0, 0)
    client.send_goaway(final=True)
    actions_made = client.actions_to_send()
    assert [type(action) for action in actions_made] == [StreamWrite, CloseConnection]
    assert actions_made[-1] == CloseConnection(ErrorCode.H3_NO_ERROR, "done")
    assert client.is_closed
    assert client.open_requests == 0
    assert events(client) == []


def test_input_for_streams_that_we_never_opened_is_ignored_by_a_client() -> None:
    client = make_requester()
    client.receive_stream_data(4, b"\x00\x01x", True)
    client.receive_reset(8, 0)
    client.receive_stop_sending(12, 0)
    assert events(client) == []
    assert client.actions_to_send() == []
    client.send_request(4, GET_HEAD)
