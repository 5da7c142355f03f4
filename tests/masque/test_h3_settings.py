"""SETTINGS (RFC 9114 §7.2.4, RFC 9204 §5, RFC 9220 §3, RFC 9297 §2.1.1)."""

from __future__ import annotations

import pytest
from aioquic.h3.connection import parse_settings as aioquic_parse_settings
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import ErrorCode, LimitExceeded, Malformed, Reach
from masque.h3.limits import H3Limits
from masque.h3.settings import Settings, encode_settings, parse_settings
from masque.varint import encode_varint, parse_varint
from tests.masque.h3_wire import refusal

OURS = Settings(max_field_section_size=16384, enable_connect_protocol=True, h3_datagram=True)
SETTINGS = st.builds(
    Settings,
    max_field_section_size=st.none() | st.integers(0, (1 << 62) - 1),
    enable_connect_protocol=st.booleans(),
    h3_datagram=st.booleans(),
    qpack_max_table_capacity=st.integers(0, 1 << 30),
    qpack_blocked_streams=st.integers(0, 1 << 16),
)


def entries(*pairs: tuple[int, int]) -> bytes:
    """Encode identifiers and values."""
    return b"".join(encode_varint(identifier) + encode_varint(value) for identifier, value in pairs)


@given(SETTINGS)
def test_round_trip(settings: Settings) -> None:
    assert parse_settings(encode_settings(settings), H3Limits()) == settings


def test_ours_as_aioquic_reads_them() -> None:
    read = aioquic_parse_settings(encode_settings(OURS))
    grease = {identifier for identifier in read if identifier > 0x33}
    assert {identifier: value for identifier, value in read.items() if identifier not in grease} == {
        0x01: 0,
        0x07: 0,
        0x06: 16384,
        0x08: 1,
        0x33: 1,
    }
    assert len(grease) == 1
    assert all((identifier - 0x21) % 0x1F == 0 for identifier in grease)


def test_defaults_of_an_empty_frame() -> None:
    assert parse_settings(b"", H3Limits()) == Settings()


def test_unknown_and_draft_settings_are_ignored() -> None:
    payload = entries((0x276, 1), (0xFFD277, 1), (0x2B603742, 1), (0x21, 77), (0x33, 1))
    assert parse_settings(payload, H3Limits()) == Settings(h3_datagram=True)


@pytest.mark.parametrize(
    "payload",
    [
        entries((0x06, 1), (0x06, 1)),
        entries((0x21, 1), (0x21, 2)),
        entries((0x02, 0)),
        entries((0x03, 0)),
        entries((0x04, 0)),
        entries((0x05, 0)),
        entries((0x08, 2)),
        entries((0x33, 2)),
        entries((0x33, (1 << 62) - 1)),
    ],
)
def test_forbidden(payload: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        parse_settings(payload, H3Limits())
    assert (caught.value.code, caught.value.reach) == (ErrorCode.H3_SETTINGS_ERROR, Reach.CONNECTION)


def test_every_prefix_is_whole_entries_or_cut_short() -> None:
    payload = encode_settings(OURS)
    offsets = [0]
    while (parsed := parse_varint(payload, offsets[-1])) is not None:
        offsets.append(parsed[1])
    ends = set(offsets[::2])
    assert len(payload) in ends
    for length in range(len(payload) + 1):
        if length in ends:
            parse_settings(payload[:length], H3Limits())
        else:
            with pytest.raises(Malformed) as caught:
                parse_settings(payload[:length], H3Limits())
            assert caught.value.code is ErrorCode.H3_FRAME_ERROR


def test_too_many_entries() -> None:
    many = entries(*((0x1000 + index, 0) for index in range(5)))
    assert parse_settings(many, H3Limits(settings=5)) == Settings()
    with pytest.raises(LimitExceeded) as caught:
        parse_settings(many, H3Limits(settings=4))
    assert (caught.value.code, caught.value.reach) == (ErrorCode.H3_EXCESSIVE_LOAD, Reach.CONNECTION)


@given(st.binary(max_size=100))
def test_garbage(garbage: bytes) -> None:
    error = refusal(lambda: parse_settings(garbage, H3Limits()))
    assert error is None or error.reach is Reach.CONNECTION
