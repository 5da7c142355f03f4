"""Any input in any split: events or one failure, never an exception, and the same whatever the split.

The invariants of `masque.h3`: input never raises; a stream fails at most once and nothing follows for it; the
connection fails at most once, as the last event, together with the last action.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import ErrorCode
from masque.h3 import (
    CloseConnection,
    ConnectionFailed,
    DataReceived,
    H3Connection,
    H3Event,
    RequestReceived,
    ResetReceived,
    ResponseReceived,
    SettingsReceived,
    StopSendingReceived,
    StreamFailed,
    TrailersReceived,
)
from tests.masque.h3_wire import (
    CONNECT,
    CONTROL,
    GET,
    OK,
    SETTINGS,
    UDP,
    UDP_HEAD,
    data,
    events,
    folded,
    frame,
    headers,
    make_client,
    section,
)

GREASE = frame(0x21 + 0x1F * 5, b"ignored")
EXCHANGE = GREASE + headers(UDP) + data(b"a" * 70) + GREASE + data(b"") + data(b"bc") + headers([(b"t", b"v")])
CONTROL_BYTES = CONTROL + frame(4, b"\x33\x01\x08\x01") + GREASE + frame(0x0D, b"\x05") + frame(7, b"\x00")

PIECES = st.sampled_from(
    [
        headers(GET),
        headers(CONNECT),
        headers(UDP),
        headers(OK),
        headers([(b":status", b"103")]),
        headers([(b"trailer", b"x")]),
        headers([*GET, (b"content-length", b"3")]),
        headers([*GET, (b"Bad", b"")]),
        frame(1, section(GET)[:-1]),
        data(b"abc"),
        data(b""),
        GREASE,
        SETTINGS,
        frame(7, b"\x00"),
        frame(3, b"\x00"),
        frame(5, b"\x00"),
        frame(2),
        b"\x00\x40",
        b"\x01\x05",
    ]
)
WIRES = st.lists(PIECES | st.binary(max_size=12), max_size=6).map(b"".join)
STREAM_IDS = st.integers(0, 15) | st.integers(0, (1 << 62) - 1)
STEPS = st.one_of(
    st.tuples(st.just("data"), STREAM_IDS, WIRES, st.booleans()),
    st.tuples(
        st.just("uni"), STREAM_IDS, st.sampled_from([b"\x00\x04\x00", b"\x02", b"\x03", b"\x21"]), st.booleans()
    ),
    st.tuples(st.just("reset"), STREAM_IDS, st.just(b""), st.booleans()),
    st.tuples(st.just("stop"), STREAM_IDS, st.just(b""), st.booleans()),
)


def check_once(machine: H3Connection, found: list[H3Event]) -> None:
    """Check what holds for every list of events."""
    ended: set[int] = set()
    failed: set[int] = set()
    headed: set[int] = set()
    for position, event in enumerate(found):
        match event:
            case ConnectionFailed():
                assert position == len(found) - 1
            case StreamFailed(stream_id):
                assert stream_id not in failed
                failed.add(stream_id)
            case RequestReceived(stream_id, _, fin):
                assert stream_id not in headed | ended | failed
                headed.add(stream_id)
                ended |= {stream_id} if fin else set()
            case ResponseReceived(stream_id, _, fin) | DataReceived(stream_id, _, fin):
                assert stream_id not in ended | failed
                ended |= {stream_id} if fin else set()
            case TrailersReceived(stream_id) | ResetReceived(stream_id):
                assert stream_id not in ended | failed
                ended.add(stream_id)
            case StopSendingReceived(stream_id):
                assert stream_id not in failed
            case _:
                pass
    has_failed = bool(found) and isinstance(found[-1], ConnectionFailed)
    assert machine.is_closed == has_failed
    made = machine.actions_to_send()
    assert [isinstance(action, CloseConnection) for action in made].count(True) == has_failed
    assert not has_failed or isinstance(made[-1], CloseConnection)


@given(st.booleans(), st.lists(STEPS, max_size=12))
def test_garbage_on_any_stream(is_client: bool, steps: list[tuple[str, int, bytes, bool]]) -> None:
    machine = make_client() if is_client else H3Connection(is_client=False)
    if is_client:
        machine.send_request(0, UDP_HEAD)
        machine.send_request(4, UDP_HEAD)
        machine.actions_to_send()
    for kind, stream_id, wire, fin in steps:
        if kind == "data":
            machine.receive_stream_data(stream_id & ~3, wire, fin)
        elif kind == "uni":
            machine.receive_stream_data(stream_id & ~3 | 2 | is_client, wire, fin)
        elif kind == "reset":
            machine.receive_reset(stream_id, 0)
        else:
            machine.receive_stop_sending(stream_id, 0)
    check_once(machine, events(machine))


@given(st.sampled_from([b"", b"\x00", b"\x00\x04\x00", b"\x01", b"\x02", b"\x03", b"\x21"]), WIRES, st.booleans())
def test_garbage_on_unidirectional_streams(start: bytes, wire: bytes, fin: bool) -> None:
    for is_client in (True, False):
        machine = H3Connection(is_client=is_client)
        machine.receive_stream_data(3 if is_client else 2, start + wire, fin)
        check_once(machine, events(machine))


def outcome(is_client: bool, chunks: list[bytes], fin: bool) -> list[H3Event | tuple[object, ...]]:
    """Feed chunks to one request stream and give the folded events."""
    machine = make_client() if is_client else H3Connection(is_client=False)
    if is_client:
        machine.send_request(0, UDP_HEAD)
        machine.actions_to_send()
    for index, chunk in enumerate(chunks):
        machine.receive_stream_data(0, chunk, fin and index == len(chunks) - 1)
    found = events(machine)
    check_once(machine, found)
    return folded(found)


@given(st.booleans(), WIRES, st.lists(st.integers(0, 300), max_size=6), st.booleans())
def test_the_split_of_input_changes_nothing(is_client: bool, wire: bytes, cuts: list[int], fin: bool) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut <= len(wire)), len(wire)]
    whole = outcome(is_client, [wire], fin)
    assert outcome(is_client, [wire[first:end] for first, end in pairwise(edges)], fin) == whole
    bytewise = [wire[index : index + 1] for index in range(len(wire))]
    assert outcome(is_client, [*bytewise, b""], fin) == whole


def test_every_prefix_of_an_exchange() -> None:
    """A prefix gives the beginning of the whole's events; cut by an end it fails, but for the frames' edges."""
    whole = outcome(False, [EXCHANGE], True)
    edges = {EXCHANGE.index(part) + len(part) for part in (headers(UDP), data(b"a" * 70), data(b"bc"))}
    edges |= {EXCHANGE.rindex(GREASE) + len(GREASE), EXCHANGE.rindex(GREASE) + len(GREASE + data(b"")), len(EXCHANGE)}
    for length in range(len(EXCHANGE) + 1):
        open_ended = outcome(False, [EXCHANGE[:length]], False)
        assert open_ended == outcome(False, [EXCHANGE[index : index + 1] for index in range(length)], False)
        assert open_ended[:1] in ([], whole[:1])
        last = outcome(False, [EXCHANGE[:length]], True)[-1]
        if length in (0, len(GREASE)):
            assert isinstance(last, StreamFailed)
            assert last.code is ErrorCode.H3_REQUEST_INCOMPLETE
        elif length in edges:
            assert last == ("end", 0) or isinstance(last, TrailersReceived)
        else:
            assert isinstance(last, ConnectionFailed)
            assert last.code is ErrorCode.H3_FRAME_ERROR


@pytest.mark.parametrize("stride", [1, 2, 3, 7])
def test_every_split_of_a_control_stream(stride: int) -> None:
    machine = H3Connection(is_client=False)
    machine.receive_stream_data(2, CONTROL_BYTES, False)
    whole = events(machine)
    assert isinstance(whole[0], SettingsReceived)
    assert len(whole) == 2
    machine = H3Connection(is_client=False)
    for index in range(0, len(CONTROL_BYTES), stride):
        machine.receive_stream_data(2, CONTROL_BYTES[index : index + stride], False)
    assert events(machine) == whole
