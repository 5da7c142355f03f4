"""masque.tunnel.udp: datagrams and capsules in, payloads or the documented error out."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.capsule import CapsuleType, encode_capsule
from masque.errors import ErrorCode, LimitExceeded, Malformed, MasqueError, Reach
from masque.tunnel import UdpTunnel
from masque.varint import VARINT_MAX, encode_varint

LONGEST = 65527
UNKNOWN_CAPSULE = 0x2FF
CONTEXT_0_FORMS = (b"\x00", b"\x40\x00", b"\x80\x00\x00\x00", b"\xc0" + bytes(7))


def capsule(value: bytes) -> bytes:
    """A DATAGRAM capsule with any value."""
    return encode_capsule(CapsuleType.DATAGRAM, value)


def feed(tunnel: UdpTunnel, pieces: Iterable[bytes]) -> list[bytes]:
    """Receive pieces of the stream one after the other, then its end."""
    payloads = [payload for piece in pieces for payload in tunnel.receive_data(piece)]
    return payloads + tunnel.receive_data(b"", True)


@pytest.mark.parametrize(
    ("stream_id", "prefix"),
    [
        (0, b"\x00\x00"),
        (63 * 4, b"\x3f\x00"),
        (64 * 4, b"\x40\x40\x00"),
        (16384 * 4, b"\x80\x00\x40\x00\x00"),
        (1 << 61, b"\xc8" + bytes(7) + b"\x00"),
    ],
)
def test_the_prefix_is_quarter_stream_id_and_context_0(stream_id: int, prefix: bytes) -> None:
    assert UdpTunnel(stream_id).prefix == prefix


@pytest.mark.parametrize("context", CONTEXT_0_FORMS)
@pytest.mark.parametrize("payload", [b"", b"x", bytes(LONGEST)], ids=["empty", "one", "longest"])
def test_context_0_in_every_encoding(context: bytes, payload: bytes) -> None:
    tunnel = UdpTunnel(0)
    assert tunnel.receive_datagram(context + payload) == payload
    assert tunnel.dropped == 0


@pytest.mark.parametrize("context_id", [1, 2, 63, 64, 16384, 1 << 30, VARINT_MAX])
def test_unknown_contexts_are_dropped_and_counted(context_id: int) -> None:
    tunnel = UdpTunnel(0)
    value = encode_varint(context_id) + b"payload"
    assert tunnel.receive_datagram(value) is None
    assert tunnel.receive_data(capsule(value)) == []
    assert tunnel.dropped == 2


def test_a_long_payload_of_an_unknown_context_is_dropped_too() -> None:
    tunnel = UdpTunnel(0, capsule_limit=1 << 20)
    assert tunnel.receive_datagram(b"\x02" + bytes(LONGEST + 1)) is None
    assert tunnel.dropped == 1


@pytest.mark.parametrize("datagram", [b"", b"\x40", b"\x80\x00\x00", b"\xc0" + bytes(6)])
def test_a_datagram_too_short_for_its_context_is_dropped(datagram: bytes) -> None:
    tunnel = UdpTunnel(0)
    assert tunnel.receive_datagram(datagram) is None
    assert tunnel.receive_data(capsule(datagram)) == []
    assert tunnel.dropped == 2


def test_65528_bytes_cost_the_stream() -> None:
    with pytest.raises(Malformed) as raised:
        UdpTunnel(0).receive_datagram(b"\x00" + bytes(LONGEST + 1))
    assert (raised.value.reach, raised.value.code) == (Reach.STREAM, ErrorCode.H3_MESSAGE_ERROR)


def test_a_capsule_of_65527_bytes_passes_and_one_of_65528_does_not() -> None:
    assert UdpTunnel(0).receive_data(capsule(b"\x00" + bytes(LONGEST))) == [bytes(LONGEST)]
    with pytest.raises(Malformed) as raised:
        UdpTunnel(0).receive_data(capsule(b"\x00" + bytes(LONGEST + 1)))
    assert raised.value.reach is Reach.STREAM


def test_a_capsule_above_the_limit_is_skipped_and_the_next_one_read() -> None:
    tunnel = UdpTunnel(0, capsule_limit=100)
    stream = capsule(b"\x00" + bytes(100)) + capsule(b"\x00next")
    assert feed(tunnel, [stream]) == [b"next"]
    assert (tunnel.discarded, tunnel.dropped) == (1, 0)


STREAM = (
    capsule(b"\x00first")
    + encode_capsule(UNKNOWN_CAPSULE, b"skip me")
    + capsule(b"\x00")
    + capsule(b"\x02other context")
    + capsule(b"\x40\x00long context")
    + capsule(b"")
    + capsule(b"\x00last")
)
PAYLOADS = [b"first", b"", b"long context", b"last"]


def test_every_split_in_two() -> None:
    for cut in range(len(STREAM) + 1):
        tunnel = UdpTunnel(0)
        assert feed(tunnel, [STREAM[:cut], STREAM[cut:]]) == PAYLOADS
        assert tunnel.dropped == 2


def test_byte_by_byte() -> None:
    assert feed(UdpTunnel(0), [STREAM[i : i + 1] for i in range(len(STREAM))]) == PAYLOADS


def test_the_end_inside_a_capsule_is_malformed() -> None:
    whole = capsule(b"\x00payload")
    for end in range(1, len(whole)):
        with pytest.raises(Malformed) as raised:
            UdpTunnel(0).receive_data(whole[:end], True)
        assert (raised.value.reach, raised.value.code) == (Reach.STREAM, ErrorCode.H3_MESSAGE_ERROR)
    assert UdpTunnel(0).receive_data(whole, True) == [b"payload"]
    assert UdpTunnel(0).receive_data(b"", True) == []


@given(st.binary(max_size=1500))
def test_capsules_round_trip(payload: bytes) -> None:
    assert feed(UdpTunnel(4), [UdpTunnel.encode_capsule(payload)]) == [payload]


@given(st.lists(st.binary(max_size=60), max_size=12), st.booleans(), st.integers(0, 40))
def test_any_bytes_give_payloads_or_the_documented_error(pieces: list[bytes], fin: bool, limit: int) -> None:
    tunnel = UdpTunnel(0, capsule_limit=limit)
    reach = Reach.STREAM
    try:
        for piece in pieces:
            for payload in tunnel.receive_data(piece):
                assert len(payload) <= limit
        tunnel.receive_data(b"", fin)
    except (Malformed, LimitExceeded) as error:
        reach = error.reach
    assert reach is Reach.STREAM


capsules = st.builds(
    encode_capsule, st.sampled_from([0, 0, 0, 1, 2, UNKNOWN_CAPSULE]), st.binary(max_size=40)
) | st.binary(max_size=6)


@given(st.lists(capsules, max_size=8), st.data())
def test_splits_change_nothing(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)

    def outcome(pieces: list[bytes]) -> tuple[object, int]:
        tunnel = UdpTunnel(0)
        payloads = []
        try:
            for piece in pieces:
                payloads += tunnel.receive_data(piece)
            tunnel.receive_data(b"", True)
        except MasqueError as error:
            return (type(error), payloads), tunnel.dropped
        return payloads, tunnel.dropped

    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert outcome(pieces) == outcome([stream])


@given(st.binary(max_size=30))
def test_any_datagram_gives_a_payload_or_none(datagram: bytes) -> None:
    tunnel = UdpTunnel(0)
    payload = tunnel.receive_datagram(datagram)
    if payload is None:
        assert tunnel.dropped == 1
    else:
        assert datagram.endswith(payload)
