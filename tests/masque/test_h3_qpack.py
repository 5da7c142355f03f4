"""Field compression without a dynamic table (RFC 9204)."""

from __future__ import annotations

from functools import partial

import pylsqpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import ErrorCode, LocalMisuse, Malformed, Reach
from masque.h3.qpack import DecoderStream, FieldCodec, check_encoder_stream
from tests.masque.h3_wire import refusal

LINES = st.lists(st.tuples(st.binary(min_size=1, max_size=30), st.binary(max_size=200)), max_size=30)


def prefix_integer(first: int, bits: int, value: int) -> bytes:
    """Encode an integer of RFC 9204 §4.1.1."""
    top = (1 << bits) - 1
    if value < top:
        return bytes([first | value])
    rest = value - top
    result = bytearray([first | top])
    while rest >= 0x80:
        result.append(rest & 0x7F | 0x80)
        rest >>= 7
    result.append(rest)
    return bytes(result)


@given(LINES)
def test_round_trip(lines: list[tuple[bytes, bytes]]) -> None:
    codec = FieldCodec()
    assert codec.decode(4, codec.encode(0, lines)) == lines


@given(LINES)
def test_another_decoder_needs_no_table(lines: list[tuple[bytes, bytes]]) -> None:
    encoded = FieldCodec().encode(0, [(b"x", b"y"), *lines])
    assert pylsqpack.Decoder(4096, 16).feed_header(0, encoded) == (b"", [(b"x", b"y"), *lines])


@pytest.mark.parametrize("section", [b"\x00\x00", b"\x00\x05"])
def test_a_section_without_lines(section: bytes) -> None:
    assert FieldCodec().decode(0, section) == []


@pytest.mark.parametrize(
    "section",
    [
        b"",
        b"\x00",
        b"\x00\x80",
        b"\x00\x7f",
        b"\x01\x00\xc1",
        b"\x02\x00\x80",
        b"\x00\x00\x80",
        b"\x00\x00\x10",
        b"\x00\x00\xff\xff\xff",
        b"\x00\x00\x51\x05ab",
        b"\x00\x00\x51\x82\xff\xff",
    ],
    ids=[
        "empty",
        "no-base",
        "negative",
        "cut",
        "ric",
        "dynamic-ric",
        "dynamic",
        "post",
        "static",
        "short",
        "huffman",
    ],
)
def test_what_cannot_be_decoded_costs_the_connection(section: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        FieldCodec().decode(0, section)
    assert caught.value.code is ErrorCode.QPACK_DECOMPRESSION_FAILED
    assert caught.value.reach is Reach.CONNECTION


@given(st.binary(max_size=60))
def test_garbage_sections(garbage: bytes) -> None:
    codec = FieldCodec()
    for section in (garbage, b"\x00\x00" + garbage):
        error = refusal(partial(codec.decode, 0, section))
        assert error is None or error.code is ErrorCode.QPACK_DECOMPRESSION_FAILED


def test_expansion_is_bounded() -> None:
    lines = FieldCodec().decode(0, b"\x00\x00" + b"\xff\x05" * 8000)
    assert sum(len(name) + len(value) for name, value in lines) < 100 * 16002


def test_a_codec_survives_what_it_refused() -> None:
    codec = FieldCodec()
    for _ in range(100):
        with pytest.raises(Malformed):
            codec.decode(0, b"\x00\x00\x80")
    assert codec.decode(0, b"\x00\x00\xd1") == [(b":method", b"GET")]


@pytest.mark.parametrize("lines", [[(b"", b"x")], [(b"x", bytes(70000))], [(b"x" * 70000, b"")]])
def test_what_cannot_be_encoded_is_our_mistake(lines: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(LocalMisuse):
        FieldCodec().encode(0, lines)


def test_the_encoder_stream_may_say_that_there_is_no_table() -> None:
    check_encoder_stream(b"")
    check_encoder_stream(b"\x20\x20")


@given(st.integers(0, 255).filter(lambda byte: byte != 0x20))
def test_the_encoder_stream_may_say_nothing_else(byte: int) -> None:
    for wire in (bytes([byte]), bytes([0x20, byte]), bytes([byte, 0x20])):
        with pytest.raises(Malformed) as caught:
            check_encoder_stream(wire)
        assert (caught.value.code, caught.value.reach) == (
            ErrorCode.QPACK_ENCODER_STREAM_ERROR,
            Reach.CONNECTION,
        )


@given(st.lists(st.integers(0, (1 << 62) - 1), max_size=8))
def test_cancellations_pass_in_any_split(stream_ids: list[int]) -> None:
    wire = b"".join(prefix_integer(0x40, 6, stream_id) for stream_id in stream_ids)
    DecoderStream().receive(wire)
    bytewise = DecoderStream()
    for index in range(len(wire)):
        bytewise.receive(wire[index : index + 1])
    with pytest.raises(Malformed):
        bytewise.receive(b"\x80")


def test_cancellations_are_what_a_real_decoder_sends() -> None:
    decoder = pylsqpack.Decoder(4096, 16)
    DecoderStream().receive(b"".join(decoder.cancel_stream(stream_id) for stream_id in (0, 4, 252, 70000)))


@pytest.mark.parametrize("wire", [b"\x80", b"\x84", b"\x00", b"\x01", b"\x44\x81", b"\x7f" + b"\xff" * 11])
def test_the_decoder_stream_may_acknowledge_nothing(wire: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        DecoderStream().receive(wire)
    assert (caught.value.code, caught.value.reach) == (ErrorCode.QPACK_DECODER_STREAM_ERROR, Reach.CONNECTION)
