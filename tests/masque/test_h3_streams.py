"""What may happen on a request stream, and what each fault costs (RFC 9114 §4.1, §4.2.2, §4.4, §7)."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from aioquic.buffer import encode_uint_var

from masque.errors import ErrorCode
from masque.h3 import (
    CloseConnection,
    ConnectionFailed,
    DataReceived,
    H3Connection,
    H3Event,
    H3Limits,
    RequestReceived,
    ResetReceived,
    ResponseReceived,
    StreamFailed,
    StreamReset,
    StreamStop,
    StreamWrite,
    TrailersReceived,
)
from masque.head import RequestHead, ResponseHead
from tests.masque.h3_wire import (
    CONNECT,
    CONNECT_HEAD,
    GET,
    GET_HEAD,
    OK,
    UDP,
    UDP_HEAD,
    Lines,
    data,
    events,
    folded,
    frame,
    headers,
    make_requester,
    make_server,
    ok_head,
    section,
)

HEAD_HEAD = RequestHead(b"HEAD", authority=b"relay.example", scheme=b"https", path=b"/")
TRAILER: Lines = [(b"proxy-status", b"relay")]
GREASE = frame(0x21, b"nothing")


def sized(lines: Lines, length: bytes) -> bytes:
    """A HEADERS frame with a content-length."""
    return headers([*lines, (b"content-length", length)])


def receive(machine: H3Connection, wire: bytes, fin: bool, is_bytewise: bool = False) -> list[H3Event]:
    """Feed stream 0, whole or byte by byte with the end apart, and take the events."""
    if is_bytewise:
        for index in range(len(wire)):
            machine.receive_stream_data(0, wire[index : index + 1], False)
        if fin:
            machine.receive_stream_data(0, b"", True)
    else:
        machine.receive_stream_data(0, wire, fin)
    return events(machine)


REQUESTS = [
    (headers(CONNECT), False, [RequestReceived(0, CONNECT_HEAD, False)]),
    (headers(CONNECT), True, [RequestReceived(0, CONNECT_HEAD, True)]),
    (
        headers(CONNECT) + data(b"ab") + data(b"") + GREASE + data(b"c"),
        False,
        [RequestReceived(0, CONNECT_HEAD, False), DataReceived(0, b"abc", False)],
    ),
    (
        GREASE + headers(UDP) + GREASE + data(b"abc") + GREASE,
        True,
        [RequestReceived(0, UDP_HEAD, False), DataReceived(0, b"abc", True)],
    ),
    (headers(GET) + GREASE, True, [RequestReceived(0, GET_HEAD, True)]),
    (
        headers(UDP) + data(b"abc") + headers(TRAILER) + GREASE,
        True,
        [
            RequestReceived(0, UDP_HEAD, False),
            DataReceived(0, b"abc", False),
            TrailersReceived(0, tuple(TRAILER), True),
        ],
    ),
    (
        headers(GET) + headers([]),
        True,
        [RequestReceived(0, GET_HEAD, False), TrailersReceived(0, (), True)],
    ),
    (
        sized(CONNECT, b"7") + data(b"abc"),
        True,
        [
            RequestReceived(
                0,
                RequestHead(b"CONNECT", CONNECT_HEAD.authority, fields=((b"content-length", b"7"),)),
                False,
            ),
            DataReceived(0, b"abc", True),
        ],
    ),
]


@pytest.mark.parametrize(("wire", "fin", "expected"), REQUESTS)
def test_requests(wire: bytes, fin: bool, expected: list[H3Event]) -> None:
    assert receive(make_server(), wire, fin) == expected
    assert folded(receive(make_server(), wire, fin, is_bytewise=True)) == folded(expected)


RESPONSES = [
    (GET_HEAD, headers(OK), True, [ResponseReceived(0, ok_head(), True)]),
    (
        GET_HEAD,
        headers([(b":status", b"103")]) + headers([(b":status", b"100")]) + headers(OK) + data(b"x"),
        True,
        [
            ResponseReceived(0, ResponseHead(103), False),
            ResponseReceived(0, ResponseHead(100), False),
            ResponseReceived(0, ok_head(), False),
            DataReceived(0, b"x", True),
        ],
    ),
    (
        HEAD_HEAD,
        sized(OK, b"70"),
        True,
        [ResponseReceived(0, ok_head((b"content-length", b"70")), True)],
    ),
    (
        CONNECT_HEAD,
        sized(OK, b"70") + data(b"abc"),
        True,
        [ResponseReceived(0, ok_head((b"content-length", b"70")), False), DataReceived(0, b"abc", True)],
    ),
    (
        GET_HEAD,
        headers(OK) + data(b"x") + headers(TRAILER),
        True,
        [
            ResponseReceived(0, ok_head(), False),
            DataReceived(0, b"x", False),
            TrailersReceived(0, tuple(TRAILER)),
        ],
    ),
]


@pytest.mark.parametrize(("request_head", "wire", "fin", "expected"), RESPONSES)
def test_responses(request_head: RequestHead, wire: bytes, fin: bool, expected: list[H3Event]) -> None:
    assert receive(make_requester(request_head), wire, fin) == expected
    assert folded(receive(make_requester(request_head), wire, fin, is_bytewise=True)) == folded(expected)


STREAM_FAULTS = [
    (b"", True, ErrorCode.H3_REQUEST_INCOMPLETE),
    (GREASE, True, ErrorCode.H3_REQUEST_INCOMPLETE),
    (headers(GET[1:]), False, ErrorCode.H3_MESSAGE_ERROR),
    (headers([]), False, ErrorCode.H3_MESSAGE_ERROR),
    (headers([*UDP[:1], *UDP[2:], (b"a", b"b"), UDP[1]]), False, ErrorCode.H3_MESSAGE_ERROR),
    (headers(GET) + headers([(b":path", b"/")]), False, ErrorCode.H3_MESSAGE_ERROR),
    (sized(GET, b"3") + data(b"ab") + data(b"cd"), False, ErrorCode.H3_MESSAGE_ERROR),
    (sized(GET, b"3") + data(b"ab"), True, ErrorCode.H3_MESSAGE_ERROR),
    (sized(GET, b"3") + data(b"ab") + headers(TRAILER), True, ErrorCode.H3_MESSAGE_ERROR),
    (sized(GET, b"3"), True, ErrorCode.H3_MESSAGE_ERROR),
    (sized(GET, b"x"), False, ErrorCode.H3_MESSAGE_ERROR),
    (headers([*GET, (b"a", b"b" * 20000)]), False, ErrorCode.H3_EXCESSIVE_LOAD),
    (headers([*GET, *[(b"a", b"b" * 99)] * 125]), False, ErrorCode.H3_EXCESSIVE_LOAD),
    (headers([*GET, *[(b"a", b"b")] * 125]), False, ErrorCode.H3_EXCESSIVE_LOAD),
    (headers(GET) + headers([(b"a", b"b")] * 129), False, ErrorCode.H3_EXCESSIVE_LOAD),
    (b"\x01" + encode_uint_var(1 << 40), False, ErrorCode.H3_EXCESSIVE_LOAD),
    (frame(0x21) * 257, False, ErrorCode.H3_EXCESSIVE_LOAD),
    (headers(CONNECT) + data(b"") * 257, False, ErrorCode.H3_EXCESSIVE_LOAD),
]


@pytest.mark.parametrize(("wire", "fin", "code"), STREAM_FAULTS)
@pytest.mark.parametrize("is_bytewise", [False, True])
def test_faults_that_cost_the_stream(wire: bytes, fin: bool, code: ErrorCode, is_bytewise: bool) -> None:
    machine = make_server()
    machine.receive_stream_data(4, headers(CONNECT), False)
    events(machine)
    found = receive(machine, wire, fin, is_bytewise)
    failures = [event for event in found if isinstance(event, StreamFailed)]
    assert [(failure.stream_id, failure.code) for failure in failures] == [(0, code)]
    assert found[-1] is failures[0]
    stop = [] if fin else [StreamStop(0, code)]
    assert machine.actions_to_send() == [StreamReset(0, code), *stop]
    machine.receive_stream_data(0, headers(GET), True)
    machine.receive_reset(0, 0)
    machine.receive_stop_sending(0, 0)
    assert events(machine) == []
    assert machine.actions_to_send() == []
    machine.receive_stream_data(4, data(b"alive"), False)
    assert events(machine) == [DataReceived(4, b"alive", False)]
    assert (machine.is_closed, machine.open_requests) == (False, 1)


CONNECTION_FAULTS = [
    (data(b"x"), False, ErrorCode.H3_FRAME_UNEXPECTED),
    (data(b""), False, ErrorCode.H3_FRAME_UNEXPECTED),
    (headers(UDP) + headers(TRAILER) + data(b"x"), False, ErrorCode.H3_FRAME_UNEXPECTED),
    (headers(UDP) + headers(TRAILER) + headers(TRAILER), False, ErrorCode.H3_FRAME_UNEXPECTED),
    *((frame(kind), False, ErrorCode.H3_FRAME_UNEXPECTED) for kind in (2, 3, 4, 5, 6, 7, 8, 9, 0x0D)),
    (headers(GET) + frame(4), False, ErrorCode.H3_FRAME_UNEXPECTED),
    (headers(GET)[:-1], True, ErrorCode.H3_FRAME_ERROR),
    (headers(GET) + data(b"abc")[:-1], True, ErrorCode.H3_FRAME_ERROR),
    (headers(GET) + b"\x00", True, ErrorCode.H3_FRAME_ERROR),
    (headers(GET) + b"\x40", True, ErrorCode.H3_FRAME_ERROR),
    (headers(GET) + GREASE[:-1], True, ErrorCode.H3_FRAME_ERROR),
    (frame(1, b""), False, ErrorCode.QPACK_DECOMPRESSION_FAILED),
    (frame(1, b"\x02\x00\x80"), False, ErrorCode.QPACK_DECOMPRESSION_FAILED),
]


@pytest.mark.parametrize(("wire", "fin", "code"), CONNECTION_FAULTS)
@pytest.mark.parametrize("is_bytewise", [False, True])
def test_faults_that_cost_the_connection(wire: bytes, fin: bool, code: ErrorCode, is_bytewise: bool) -> None:
    machine = make_server()
    found = receive(machine, wire, fin, is_bytewise)
    assert [event for event in found if isinstance(event, StreamFailed)] == []
    assert isinstance(found[-1], ConnectionFailed)
    assert found[-1].code is code
    assert machine.actions_to_send() == [CloseConnection(code, found[-1].detail)]
    assert machine.open_requests == 0


CLIENT_STREAM_FAULTS = [
    (GET_HEAD, b"", True, ErrorCode.H3_MESSAGE_ERROR),
    (GET_HEAD, headers([(b":status", b"100")]), True, ErrorCode.H3_MESSAGE_ERROR),
    (GET_HEAD, headers([(b":status", b"100")]) * 257, False, ErrorCode.H3_EXCESSIVE_LOAD),
    (GET_HEAD, headers([(b":status", b"1000")]), False, ErrorCode.H3_MESSAGE_ERROR),
    (GET_HEAD, sized(OK, b"1"), True, ErrorCode.H3_MESSAGE_ERROR),
    (CONNECT_HEAD, sized([(b":status", b"300")], b"1"), True, ErrorCode.H3_MESSAGE_ERROR),
    (CONNECT_HEAD, sized([(b":status", b"407")], b"1"), True, ErrorCode.H3_MESSAGE_ERROR),
]


@pytest.mark.parametrize(("request_head", "wire", "fin", "code"), CLIENT_STREAM_FAULTS)
def test_responses_that_cost_the_stream(request_head: RequestHead, wire: bytes, fin: bool, code: ErrorCode) -> None:
    machine = make_requester(request_head)
    last = receive(machine, wire, fin)[-1]
    assert isinstance(last, StreamFailed)
    assert (last.stream_id, last.code, machine.is_closed, machine.open_requests) == (0, code, False, 0)


CLIENT_CONNECTION_FAULTS = [
    (GET_HEAD, data(b"x"), ErrorCode.H3_FRAME_UNEXPECTED),
    (GET_HEAD, headers([(b":status", b"100")]) + data(b"x"), ErrorCode.H3_FRAME_UNEXPECTED),
    (GET_HEAD, frame(5, b"\x00"), ErrorCode.H3_ID_ERROR),
    (GET_HEAD, frame(0x0D, b"\x00"), ErrorCode.H3_FRAME_UNEXPECTED),
    (CONNECT_HEAD, headers(OK) + headers(TRAILER), ErrorCode.H3_FRAME_UNEXPECTED),
]


@pytest.mark.parametrize(("request_head", "wire", "code"), CLIENT_CONNECTION_FAULTS)
def test_responses_that_cost_the_connection(request_head: RequestHead, wire: bytes, code: ErrorCode) -> None:
    last = receive(make_requester(request_head), wire, False)[-1]
    assert isinstance(last, ConnectionFailed)
    assert last.code is code


def test_content_of_the_announced_length() -> None:
    found = receive(make_server(), sized(GET, b"3") + data(b"ab") + data(b"c") + data(b""), True)
    assert found[1:] == [DataReceived(0, b"abc", True)]


@pytest.mark.parametrize(
    ("spare", "detail"), [(0, "a field section above the limit"), (-1, "a HEADERS frame above the limit")]
)
def test_a_frame_at_the_limit_is_decoded(spare: int, detail: str) -> None:
    encoded = section([(b":method", b"a" * 20)])
    (failure,) = receive(make_server(H3Limits(field_section=len(encoded) + spare)), frame(1, encoded), False)
    assert failure == StreamFailed(0, ErrorCode.H3_EXCESSIVE_LOAD, detail)


def test_only_data_on_an_accepted_connect() -> None:
    machine = make_server()
    receive(machine, headers(CONNECT), False)
    machine.send_response(0, ResponseHead(200))
    assert receive(machine, GREASE + data(b"x"), False) == [DataReceived(0, b"x", False)]
    (failure,) = receive(machine, headers(TRAILER), False)
    assert isinstance(failure, ConnectionFailed)
    assert failure.code is ErrorCode.H3_FRAME_UNEXPECTED


@pytest.mark.parametrize(("lines", "status"), [(UDP, 200), (CONNECT, 300), (CONNECT, 502)])
def test_trailers_where_there_is_no_tunnel(lines: Lines, status: int) -> None:
    machine = make_server()
    receive(machine, headers(lines), False)
    machine.send_response(0, ResponseHead(status))
    assert receive(machine, headers(TRAILER), True) == [TrailersReceived(0, tuple(TRAILER))]


def test_good_events_before_a_fault_are_told() -> None:
    found = receive(make_server(), headers(GET) + data(b"abc") + headers([(b":x", b"y")]), False)
    assert found[:2] == [RequestReceived(0, GET_HEAD, False), DataReceived(0, b"abc", False)]
    assert isinstance(found[2], StreamFailed)


def test_useful_frames_forgive_those_that_bring_nothing() -> None:
    machine = make_server(H3Limits(ignored_frames=2))
    found = receive(machine, headers(CONNECT) + (frame(0x21) * 2 + data(b"x")) * 50, False)
    assert found[1:] == [DataReceived(0, b"x" * 50, False)]


def test_a_frame_that_spans_inputs_is_passed_on_as_it_is() -> None:
    machine = make_server()
    receive(machine, headers(CONNECT) + b"\x00" + encode_uint_var(1 << 40), False)
    for _ in range(3):
        chunk = bytes(5000)
        (event,) = receive(machine, chunk, False)
        assert isinstance(event, DataReceived)
        assert event.data is chunk


def test_a_skipped_frame_is_not_kept() -> None:
    machine = make_server()
    receive(machine, headers(CONNECT) + b"\x21" + encode_uint_var(1 << 40), False)
    chunk = bytes(100_000)
    tracemalloc.start()
    try:
        for _ in range(100):
            machine.receive_stream_data(0, chunk, False)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 20_000


def test_empty_input_inside_a_frame_tells_nothing() -> None:
    machine = make_server()
    receive(machine, headers(CONNECT) + data(b"abc")[:-1], False)
    assert receive(machine, b"", False) == []
    assert receive(machine, b"c", False) == [DataReceived(0, b"c", False)]


def test_many_tiny_frames_come_as_one_event() -> None:
    machine = make_server()
    found = receive(machine, headers(CONNECT) + data(b"x") * 20_000, False)
    assert found[1:] == [DataReceived(0, b"x" * 20_000, False)]


def test_a_reset_is_told_once() -> None:
    machine = make_server()
    receive(machine, headers(CONNECT), False)
    machine.receive_reset(0, 0x10C)
    machine.receive_reset(0, 0x10C)
    machine.receive_stream_data(0, data(b"late"), True)
    assert events(machine) == [ResetReceived(0, 0x10C)]
    machine.send_response(0, ResponseHead(200), fin=True)
    assert machine.open_requests == 0


@pytest.mark.parametrize("wire", [b"", headers(GET)[:-1], GREASE])
def test_a_request_given_up_before_it_was_told(wire: bytes) -> None:
    machine = make_server()
    machine.receive_stream_data(0, wire, False)
    machine.receive_reset(0, 0x10C)
    assert machine.actions_to_send() == [StreamReset(0, ErrorCode.H3_REQUEST_CANCELLED)]
    machine.receive_stream_data(4, wire, False)
    machine.receive_stop_sending(4, 0x10C)
    assert machine.actions_to_send() == [
        StreamReset(4, ErrorCode.H3_REQUEST_CANCELLED),
        StreamStop(4, ErrorCode.H3_REQUEST_CANCELLED),
    ]
    assert events(machine) == []
    assert machine.open_requests == 0


@pytest.mark.slow
def test_streams_leave_nothing_behind() -> None:
    machine = make_server()
    wire = headers(CONNECT)

    def cycle(first: int, count: int) -> None:
        for stream_id in range(first, first + 4 * count, 4):
            machine.receive_stream_data(stream_id, wire, True)
            machine.next_event()
            machine.reset_stream(stream_id, 0x10C)
            machine.actions_to_send()

    cycle(0, 1000)
    gc.collect()
    tracemalloc.start()
    try:
        gc.disable()
        cycle(4000, 99_000)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        gc.enable()
        tracemalloc.stop()
    assert machine.open_requests == 0
    assert kept < 20_000


def test_streams_may_arrive_out_of_order() -> None:
    machine = make_server()
    for stream_id in (8, 0, 4):
        machine.receive_stream_data(stream_id, headers(CONNECT), True)
    assert [event.stream_id for event in events(machine) if isinstance(event, RequestReceived)] == [8, 0, 4]
    machine.send_response(0, ResponseHead(200), fin=True)
    machine.receive_stream_data(0, headers(CONNECT), True)
    assert events(machine) == []
    writes = machine.actions_to_send()
    assert [type(action) for action in writes] == [StreamWrite]
