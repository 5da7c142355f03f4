"""The cursor over one value: exact reads, truncation at every prefix, trailing bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import ErrorCode, Malformed, Reach
from masque.varint import VARINT_MAX, encode_varint
from masque.wire import Cursor

RECORDS = st.lists(
    st.one_of(st.integers(0, VARINT_MAX), st.binary(max_size=8), st.integers(0, 255).map(lambda byte: (byte,))),
    max_size=8,
)


def encode(records: list[int | bytes | tuple[int]]) -> bytes:
    """Encode integers as varints, one-tuples as single bytes and bytes as they are."""
    parts = []
    for record in records:
        if isinstance(record, int):
            parts.append(encode_varint(record))
        else:
            parts.append(bytes(record))
    return b"".join(parts)


def read(cursor: Cursor, records: list[int | bytes | tuple[int]]) -> list[int | bytes | tuple[int]]:
    """Read what `encode` wrote, and the end."""
    result: list[int | bytes | tuple[int]] = []
    for record in records:
        if isinstance(record, int):
            result.append(cursor.pull_varint())
        elif isinstance(record, tuple):
            result.append((cursor.pull_uint8(),))
        else:
            result.append(cursor.pull_bytes(len(record)))
    cursor.expect_end()
    return result


@given(RECORDS)
def test_reads_back_every_field(records: list[int | bytes | tuple[int]]) -> None:
    data = encode(records)
    cursor = Cursor(data)
    assert cursor.remaining == len(data)
    assert read(cursor, records) == records
    assert cursor.remaining == 0


@given(RECORDS)
def test_every_prefix_and_one_byte_more_are_malformed(records: list[int | bytes | tuple[int]]) -> None:
    data = encode(records)
    for wrong in [*(data[:size] for size in range(len(data))), data + b"\x00"]:
        with pytest.raises(Malformed) as caught:
            read(Cursor(wrong), records)
        assert caught.value.reach is Reach.STREAM
        assert caught.value.code is ErrorCode.H3_MESSAGE_ERROR


def test_an_empty_value() -> None:
    cursor = Cursor(b"")
    cursor.expect_end()
    assert cursor.pull_bytes(0) == b""
    for pull in (cursor.pull_varint, cursor.pull_uint8):
        with pytest.raises(Malformed):
            pull()


def test_a_failed_read_takes_nothing() -> None:
    cursor = Cursor(b"\x80\x01")
    with pytest.raises(Malformed):
        cursor.pull_varint()
    with pytest.raises(Malformed):
        cursor.pull_bytes(3)
    assert cursor.remaining == 2
    assert cursor.pull_bytes(2) == b"\x80\x01"
