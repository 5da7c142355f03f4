"""Unidirectional streams, SETTINGS first, GOAWAY and push ids (RFC 9114 §5.2, §6.2, §7.2; RFC 9204 §4.2)."""

from __future__ import annotations

import pytest
from aioquic.buffer import encode_uint_var

from masque.errors import ErrorCode
from masque.h3 import (
    CloseConnection,
    ConnectionFailed,
    GoawayReceived,
    H3Connection,
    H3Limits,
    RequestReceived,
    Settings,
    SettingsReceived,
    StreamStop,
    StreamWrite,
)
from tests.masque.h3_wire import CONNECT, CONTROL, SETTINGS, events, frame, headers, make_client, make_server


def expect_failure(machine: H3Connection, code: ErrorCode) -> None:
    """The connection has failed with this code, once, as the last event and the last action."""
    found = events(machine)
    failures = [event for event in found if isinstance(event, ConnectionFailed)]
    assert [failure.code for failure in failures] == [code]
    assert found[-1] is failures[0]
    actions = machine.actions_to_send()
    closes = [action for action in actions if isinstance(action, CloseConnection)]
    assert [close.code for close in closes] == [code]
    assert actions[-1] is closes[0]
    assert machine.is_closed
    machine.receive_stream_data(2, CONTROL + SETTINGS, True)
    machine.receive_stream_data(0, headers(CONNECT), True)
    machine.receive_reset(0, 0)
    machine.receive_stop_sending(0, 0)
    assert events(machine) == []
    assert machine.actions_to_send() == []


def fresh(is_client: bool) -> tuple[H3Connection, int]:
    """A machine without the peer's SETTINGS, and the peer's first unidirectional stream."""
    return H3Connection(is_client=is_client), 3 if is_client else 2


def ready(is_client: bool) -> tuple[H3Connection, int]:
    """A machine with the peer's SETTINGS, and the peer's control stream."""
    return (make_client(), 3) if is_client else (make_server(), 2)


def test_start_queues_the_control_stream_with_settings() -> None:
    for is_client, stream_id in ((True, 2), (False, 3)):
        machine = H3Connection(is_client=is_client)
        machine.start()
        (write,) = machine.actions_to_send()
        assert isinstance(write, StreamWrite)
        assert (write.stream_id, write.fin) == (stream_id, False)
        peer = H3Connection(is_client=not is_client)
        peer.receive_stream_data(stream_id, write.data, False)
        assert peer.peer_settings == Settings(
            max_field_section_size=16384, enable_connect_protocol=not is_client, h3_datagram=True
        )


def test_datagrams_need_not_be_offered() -> None:
    machine = H3Connection(is_client=False, enable_datagram=False)
    machine.start()
    (write,) = machine.actions_to_send()
    assert isinstance(write, StreamWrite)
    client = H3Connection(is_client=True)
    client.receive_stream_data(3, write.data, False)
    assert client.peer_settings is not None
    assert not client.peer_settings.h3_datagram


def test_settings_are_told_once_they_are_whole() -> None:
    machine, stream_id = fresh(False)
    wire = CONTROL + frame(4, b"\x06\x40\x64\x33\x01")
    for index in range(len(wire)):
        assert machine.peer_settings is None
        assert events(machine) == []
        machine.receive_stream_data(stream_id, wire[index : index + 1], False)
    settings = Settings(max_field_section_size=100, h3_datagram=True)
    assert events(machine) == [SettingsReceived(settings)]
    assert machine.peer_settings == settings


@pytest.mark.parametrize(
    "wire",
    [frame(7, b"\x00"), frame(0x21, b""), frame(0), frame(0x0D, b"\x00"), frame(2)],
    ids=["goaway", "unknown", "data", "push-id", "reserved"],
)
def test_settings_come_first(wire: bytes) -> None:
    machine, stream_id = fresh(False)
    machine.receive_stream_data(stream_id, CONTROL + wire, False)
    expect_failure(machine, ErrorCode.H3_MISSING_SETTINGS)


@pytest.mark.parametrize("is_client", [True, False])
@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (SETTINGS, ErrorCode.H3_FRAME_UNEXPECTED),
        (frame(0), ErrorCode.H3_FRAME_UNEXPECTED),
        (frame(1), ErrorCode.H3_FRAME_UNEXPECTED),
        (frame(5), ErrorCode.H3_FRAME_UNEXPECTED),
        (frame(2), ErrorCode.H3_FRAME_UNEXPECTED),
        (frame(6), ErrorCode.H3_FRAME_UNEXPECTED),
        (frame(8), ErrorCode.H3_FRAME_UNEXPECTED),
        (frame(9), ErrorCode.H3_FRAME_UNEXPECTED),
        (frame(7), ErrorCode.H3_FRAME_ERROR),
        (frame(7, b"\x00\x00"), ErrorCode.H3_FRAME_ERROR),
        (frame(7, b"\x40"), ErrorCode.H3_FRAME_ERROR),
        (frame(7, bytes(9)), ErrorCode.H3_FRAME_ERROR),
        (frame(3, b"\x00"), ErrorCode.H3_ID_ERROR),
        (frame(3), ErrorCode.H3_FRAME_ERROR),
        (frame(7, b"\x04") + frame(7, b"\x08"), ErrorCode.H3_ID_ERROR),
    ],
)
def test_frames_that_may_not_be_there(is_client: bool, wire: bytes, code: ErrorCode) -> None:
    for chunks in ([wire], [wire[index : index + 1] for index in range(len(wire))]):
        machine, stream_id = ready(is_client)
        for chunk in chunks:
            machine.receive_stream_data(stream_id, chunk, False)
        expect_failure(machine, code)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\x02\x00", ErrorCode.H3_SETTINGS_ERROR),
        (b"\x06\x00\x06\x00", ErrorCode.H3_SETTINGS_ERROR),
        (b"\x06", ErrorCode.H3_FRAME_ERROR),
        (bytes(5000), ErrorCode.H3_EXCESSIVE_LOAD),
    ],
)
def test_bad_settings(payload: bytes, code: ErrorCode) -> None:
    machine, stream_id = fresh(False)
    machine.receive_stream_data(stream_id, CONTROL + frame(4, payload), False)
    expect_failure(machine, code)


def test_settings_at_the_limit_are_read() -> None:
    payload = b"\x21\x00\x33\x01"
    for limit, is_closed in ((len(payload), False), (len(payload) - 1, True)):
        machine = H3Connection(is_client=False, limits=H3Limits(control_frame=limit))
        machine.receive_stream_data(2, CONTROL + frame(4, payload), False)
        assert machine.is_closed == is_closed


def test_settings_above_the_limit_are_refused_by_their_length() -> None:
    machine, stream_id = fresh(False)
    machine.receive_stream_data(stream_id, CONTROL + b"\x04" + encode_uint_var(1 << 40), False)
    expect_failure(machine, ErrorCode.H3_EXCESSIVE_LOAD)


def test_unknown_frames_are_skipped_whatever_their_length() -> None:
    machine, stream_id = ready(False)
    machine.receive_stream_data(stream_id, b"\x21" + encode_uint_var(1_000_000), False)
    for _ in range(100):
        machine.receive_stream_data(stream_id, bytes(10_000), False)
    machine.receive_stream_data(stream_id, frame(0xF0700, b"\x00u=3") + frame(7, b"\x00"), False)
    assert events(machine) == [GoawayReceived(0)]


def test_max_push_id_may_grow_only() -> None:
    machine, stream_id = ready(False)
    machine.receive_stream_data(stream_id, frame(0x0D, b"\x05") + frame(0x0D, b"\x05"), False)
    assert not machine.is_closed
    machine.receive_stream_data(stream_id, frame(0x0D, b"\x04"), False)
    expect_failure(machine, ErrorCode.H3_ID_ERROR)


def test_max_push_id_is_the_clients() -> None:
    machine, stream_id = ready(True)
    machine.receive_stream_data(stream_id, frame(0x0D, b"\x05"), False)
    expect_failure(machine, ErrorCode.H3_FRAME_UNEXPECTED)


def test_goaway_may_shrink_only() -> None:
    machine, stream_id = ready(True)
    for value in ((1 << 62) - 4, 8, 8, 0):
        machine.receive_stream_data(stream_id, frame(7, encode_uint_var(value)), False)
    assert events(machine) == [GoawayReceived(value) for value in ((1 << 62) - 4, 8, 8, 0)]


def test_a_servers_goaway_names_a_request() -> None:
    for value in (1, 2, 3):
        machine, stream_id = ready(True)
        machine.receive_stream_data(stream_id, frame(7, bytes([value])), False)
        expect_failure(machine, ErrorCode.H3_ID_ERROR)


def test_a_clients_goaway_names_any_push() -> None:
    machine, stream_id = ready(False)
    machine.receive_stream_data(stream_id, frame(7, b"\x03"), False)
    assert events(machine) == [GoawayReceived(3)]


@pytest.mark.parametrize("wire", [frame(0x21), frame(7, b"\x00"), frame(0x0D, b"\x00")])
def test_a_flood_on_the_control_stream(wire: bytes) -> None:
    machine = make_server(H3Limits(ignored_frames=10))
    machine.receive_stream_data(2, wire * 10, False)
    assert not machine.is_closed
    machine.receive_stream_data(2, wire, False)
    expect_failure(machine, ErrorCode.H3_EXCESSIVE_LOAD)


def test_requests_forgive_what_brought_nothing() -> None:
    machine = make_server(H3Limits(ignored_frames=10))
    for stream_id in range(0, 400, 4):
        machine.receive_stream_data(2, frame(0x21) * 10, False)
        machine.receive_stream_data(stream_id, headers(CONNECT), True)
    assert len(events(machine)) == 100


@pytest.mark.parametrize("is_client", [True, False])
@pytest.mark.parametrize("stream_type", [0, 2, 3])
def test_critical_streams_exist_once(is_client: bool, stream_type: int) -> None:
    machine, first = ready(is_client)
    machine.receive_stream_data(first + 4, bytes([stream_type]), False)
    machine.receive_stream_data(first + 8, bytes([stream_type]), False)
    expect_failure(machine, ErrorCode.H3_STREAM_CREATION_ERROR)


@pytest.mark.parametrize("stream_type", [0, 2, 3])
@pytest.mark.parametrize("how", ["fin", "late-fin", "reset"])
def test_critical_streams_must_live(stream_type: int, how: str) -> None:
    machine, _ = fresh(False)
    machine.receive_stream_data(2, bytes([stream_type]), how == "fin")
    if how == "late-fin":
        machine.receive_stream_data(2, b"", True)
    elif how == "reset":
        machine.receive_reset(2, 0)
    expect_failure(machine, ErrorCode.H3_CLOSED_CRITICAL_STREAM)


def test_our_control_stream_must_live() -> None:
    for machine, stream_id in ((make_server(), 3), (make_client(), 2)):
        machine.receive_stop_sending(stream_id, ErrorCode.H3_NO_ERROR)
        expect_failure(machine, ErrorCode.H3_CLOSED_CRITICAL_STREAM)


def test_push_streams() -> None:
    server = make_server()
    server.receive_stream_data(6, b"\x01", False)
    expect_failure(server, ErrorCode.H3_STREAM_CREATION_ERROR)
    client = make_client()
    client.receive_stream_data(7, b"\x40\x01\x00", False)
    expect_failure(client, ErrorCode.H3_ID_ERROR)


def test_unknown_streams_are_stopped_and_ignored() -> None:
    machine = make_server()
    wire = encode_uint_var(0x21 + 0x1F * 1_000_000) + b"\x00\x04\x00" * 100
    for index in range(len(wire)):
        machine.receive_stream_data(6, wire[index : index + 1], False)
    machine.receive_stream_data(6, b"more", True)
    machine.receive_stream_data(6, b"\x00", False)
    assert machine.actions_to_send() == [StreamStop(6, ErrorCode.H3_STREAM_CREATION_ERROR)]
    assert events(machine) == []


@pytest.mark.parametrize("wire", [b"", b"\x40", b"\xc0\x00\x00"])
def test_a_stream_may_end_before_its_type(wire: bytes) -> None:
    machine = make_server()
    machine.receive_stream_data(6, wire, True)
    machine.receive_stream_data(10, wire, False)
    machine.receive_reset(10, 0)
    machine.receive_reset(14, 0)
    machine.receive_stream_data(14, b"\x00", False)
    assert events(machine) == []
    assert machine.actions_to_send() == []


def test_a_long_type_of_a_known_stream() -> None:
    machine, stream_id = fresh(False)
    wire = bytes(bytearray.fromhex("c000000000000000")) + SETTINGS
    for index in range(len(wire)):
        machine.receive_stream_data(stream_id, wire[index : index + 1], False)
    assert events(machine) == [SettingsReceived(Settings())]


def test_too_many_streams_at_one_time() -> None:
    machine = make_server(H3Limits(uni_streams=4))
    for stream_id in range(6, 4006, 4):
        machine.receive_stream_data(stream_id, b"\x21", False)
        machine.receive_stream_data(stream_id, b"", True)
    for stream_id in range(4006, 4018, 4):
        machine.receive_stream_data(stream_id, b"\x40", False)
    assert not machine.is_closed
    machine.actions_to_send()
    machine.receive_stream_data(4018, b"", False)
    expect_failure(machine, ErrorCode.H3_EXCESSIVE_LOAD)


def test_qpack_streams() -> None:
    machine = make_server()
    machine.receive_stream_data(6, b"\x02\x20", False)
    machine.receive_stream_data(10, b"\x03\x44\x7f", False)
    machine.receive_stream_data(10, b"\x00", False)
    assert not machine.is_closed
    assert machine.actions_to_send() == []
    machine.receive_stream_data(6, b"\x3f\xe1\x1f", False)
    expect_failure(machine, ErrorCode.QPACK_ENCODER_STREAM_ERROR)
    machine = make_server()
    machine.receive_stream_data(10, b"\x03\x80", False)
    expect_failure(machine, ErrorCode.QPACK_DECODER_STREAM_ERROR)


@pytest.mark.parametrize(("is_client", "stream_ids"), [(True, (1, 2)), (False, (1, 3))])
def test_streams_that_the_peer_cannot_open(is_client: bool, stream_ids: tuple[int, int]) -> None:
    for stream_id in stream_ids:
        machine, _ = ready(is_client)
        machine.receive_stream_data(stream_id, b"", False)
        expect_failure(machine, ErrorCode.H3_STREAM_CREATION_ERROR)
        machine, _ = ready(is_client)
        machine.receive_reset(stream_id, 0)
        expect_failure(machine, ErrorCode.H3_STREAM_CREATION_ERROR)


def test_requests_may_come_before_settings() -> None:
    machine, _ = fresh(False)
    machine.receive_stream_data(0, headers(CONNECT), False)
    assert [type(event) for event in events(machine)] == [RequestReceived]
