"""The prefix of HTTP Datagrams: quarter stream ids and context ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.datagram import MAX_QUARTER_STREAM_ID, encode_prefix, parse_context, parse_datagram
from masque.errors import ErrorCode, LocalMisuse, Malformed, Reach
from masque.varint import VARINT_MAX, encode_varint

STREAMS = st.integers(0, MAX_QUARTER_STREAM_ID).map(lambda quarter: quarter << 2)


@pytest.mark.parametrize(
    ("stream_id", "context_id", "wire"),
    [
        (0, 0, "0000"),
        (4, 0, "0100"),
        (252, 0, "3f00"),
        (256, 2, "404002"),
        (MAX_QUARTER_STREAM_ID << 2, VARINT_MAX, "cfffffffffffffffffffffffffffffff"),
    ],
)
def test_prefixes(stream_id: int, context_id: int, wire: str) -> None:
    assert encode_prefix(stream_id, context_id) == bytes.fromhex(wire)


@pytest.mark.parametrize("stream_id", [1, 2, 3, 7, -4, 1 << 62, -1])
def test_only_request_streams_have_datagrams(stream_id: int) -> None:
    with pytest.raises(LocalMisuse):
        encode_prefix(stream_id)


@pytest.mark.parametrize("context_id", [-1, VARINT_MAX + 1])
def test_context_out_of_range(context_id: int) -> None:
    with pytest.raises(LocalMisuse):
        encode_prefix(0, context_id)


@given(STREAMS, st.integers(0, VARINT_MAX), st.binary(max_size=20))
def test_round_trip(stream_id: int, context_id: int, payload: bytes) -> None:
    data = encode_prefix(stream_id, context_id) + payload
    parsed, offset = parse_datagram(data)
    assert parsed == stream_id
    context, offset = parse_context(data, offset)
    assert context == context_id
    assert data[offset:] == payload
    assert parse_context(memoryview(data), parse_datagram(memoryview(data))[1]) == (context_id, offset)


@given(STREAMS)
def test_every_prefix_of_a_quarter_stream_id(stream_id: int) -> None:
    data = encode_varint(stream_id >> 2)
    for size in range(len(data)):
        with pytest.raises(Malformed) as caught:
            parse_datagram(data[:size])
        assert caught.value.reach is Reach.CONNECTION
        assert caught.value.code is ErrorCode.H3_DATAGRAM_ERROR


@given(st.integers(MAX_QUARTER_STREAM_ID + 1, VARINT_MAX))
def test_quarter_stream_id_too_large(quarter: int) -> None:
    with pytest.raises(Malformed) as caught:
        parse_datagram(encode_varint(quarter) + b"\x00")
    assert caught.value.reach is Reach.CONNECTION
    assert caught.value.code is ErrorCode.H3_DATAGRAM_ERROR


@given(st.integers(0, VARINT_MAX))
def test_every_prefix_of_a_context_id_costs_the_datagram_only(context_id: int) -> None:
    data = b"\x01" + encode_varint(context_id)
    for size in range(1, len(data)):
        with pytest.raises(Malformed) as caught:
            parse_context(data[:size], 1)
        assert caught.value.reach is Reach.DATAGRAM


@given(st.binary(max_size=20))
def test_any_input_is_parsed_or_malformed(data: bytes) -> None:
    try:
        stream_id, offset = parse_datagram(data)
        context_id, end = parse_context(data, offset)
    except Malformed:
        return
    assert stream_id % 4 == 0
    assert 0 <= context_id <= VARINT_MAX
    assert 0 < offset < end <= len(data)
