"""Variable-length integers: the RFC's examples, every boundary, every prefix."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import LocalMisuse
from masque.varint import VARINT_MAX, encode_varint, parse_varint, varint_size

VALUES = st.one_of(
    st.integers(0, VARINT_MAX), st.integers(0, 0x4001), st.sampled_from([1 << 30, (1 << 30) - 1, VARINT_MAX])
)

EXAMPLES = [
    ("c2197c5eff14e88c", 151288809941952652),
    ("9d7f3e7d", 494878333),
    ("7bbd", 15293),
    ("25", 37),
    ("00", 0),
    ("3f", 63),
    ("4040", 64),
    ("7fff", 16383),
    ("80004000", 16384),
    ("bfffffff", (1 << 30) - 1),
    ("c000000040000000", 1 << 30),
    ("ffffffffffffffff", VARINT_MAX),
]


@pytest.mark.parametrize(("wire", "value"), EXAMPLES)
def test_examples(wire: str, value: int) -> None:
    """RFC 9000 §A.1 and the edges of each length."""
    data = bytes.fromhex(wire)
    assert encode_varint(value) == data
    assert varint_size(value) == len(data)
    assert parse_varint(data) == (value, len(data))


@pytest.mark.parametrize("wire", ["4025", "80000025", "c000000000000025"])
def test_longer_encodings_are_legal(wire: str) -> None:
    """RFC 9000 §16 asks for the shortest encoding only of frame types."""
    data = bytes.fromhex(wire)
    assert parse_varint(data) == (37, len(data))


@pytest.mark.parametrize("value", [-1, VARINT_MAX + 1, 1 << 64])
def test_out_of_range(value: int) -> None:
    with pytest.raises(LocalMisuse):
        encode_varint(value)
    with pytest.raises(LocalMisuse):
        varint_size(value)


def test_every_precomputed_value_and_its_neighbours() -> None:
    for value in range(5000):
        data = encode_varint(value)
        assert len(data) == varint_size(value)
        assert parse_varint(data) == (value, len(data))


@given(VALUES, st.binary(max_size=9), st.binary(max_size=9))
def test_round_trip_anywhere(value: int, before: bytes, after: bytes) -> None:
    data = encode_varint(value)
    whole = before + data + after
    expected = (value, len(before) + len(data))
    assert parse_varint(whole, len(before)) == expected
    assert parse_varint(memoryview(whole), len(before)) == expected
    assert parse_varint(bytearray(whole), len(before)) == expected


@given(VALUES)
def test_every_prefix_needs_more(value: int) -> None:
    data = encode_varint(value)
    for size in range(len(data)):
        assert parse_varint(data[:size]) is None
        assert parse_varint(b"\xff" + data[:size], 1) is None
    assert parse_varint(data, len(data) + 5) is None


@given(st.binary(max_size=12))
def test_any_input_is_an_integer_or_too_short(data: bytes) -> None:
    parsed = parse_varint(data)
    if parsed is None:
        assert len(data) < 8
    else:
        value, end = parsed
        assert 0 <= value <= VARINT_MAX
        assert varint_size(value) <= end <= len(data)
