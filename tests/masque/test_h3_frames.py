"""The frame reader: any split gives the same frames, nothing is held that need not be (RFC 9114 §7)."""

from __future__ import annotations

from itertools import pairwise

import pytest
from aioquic.h3.connection import encode_frame as aioquic_encode_frame
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import LocalMisuse
from masque.h3.frames import FrameReader, FrameType, FrameUse, encode_data_header, encode_frame

USES = {0: FrameUse.STREAM, 1: FrameUse.COLLECT, 2: FrameUse.SKIP}
FRAMES = st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=80)), max_size=8)


def admit(frame_type: int, length: int) -> FrameUse:
    """Collect odd types, stream DATA, skip the rest."""
    return USES[frame_type % 3]


def read(chunks: list[bytes]) -> tuple[list[tuple[int, bytes]], bool]:
    """Read chunks; pieces of streamed frames are joined when they follow each other."""
    reader = FrameReader()
    found: list[tuple[int, bytes]] = []
    for chunk in chunks:
        for frame_type, payload in reader.receive(chunk, admit):
            if frame_type == 0 and found and found[-1][0] == 0:
                found[-1] = (0, found[-1][1] + bytes(payload))
            else:
                found.append((frame_type, bytes(payload)))
    return found, reader.is_between_frames


def expected(frames: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """What `read` must give for whole frames."""
    result: list[tuple[int, bytes]] = []
    for frame_type, payload in frames:
        if frame_type == 1:
            result.append((1, payload))
        elif frame_type == 0 and payload:
            if result and result[-1][0] == 0:
                result[-1] = (0, result[-1][1] + payload)
            else:
                result.append((0, payload))
    return result


@given(FRAMES, st.lists(st.integers(0, 400), max_size=10))
def test_any_split_gives_the_same_frames(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    wire = b"".join(encode_frame(frame_type, payload) for frame_type, payload in frames)
    edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    chunks = [wire[first:end] for first, end in pairwise(edges)]
    assert read(chunks) == (expected(frames), True)
    assert read([wire[index : index + 1] for index in range(len(wire))]) == (expected(frames), True)


@given(st.binary(max_size=200))
def test_garbage_never_raises(garbage: bytes) -> None:
    read([garbage])


def test_every_prefix_knows_whether_a_frame_is_cut() -> None:
    frames = [(0, b"abc"), (1, b""), (2, b"x" * 70), (0, b""), (1, b"head")]
    wires = [encode_frame(frame_type, payload) for frame_type, payload in frames]
    wire = b"".join(wires)
    ends = {sum(len(part) for part in wires[:count]) for count in range(len(wires) + 1)}
    for length in range(len(wire) + 1):
        assert read([wire[:length]])[1] == (length in ends)


def test_long_integers_are_read() -> None:
    wire = bytes.fromhex("c000000000000001") + bytes.fromhex("c000000000000002") + b"ok"
    assert read([wire[index : index + 1] for index in range(len(wire))]) == ([(1, b"ok")], True)


def test_a_skipped_frame_is_not_kept() -> None:
    reader = FrameReader()
    assert list(reader.receive(b"\x02" + bytes.fromhex("ffffffffffffffff"), admit)) == []
    for _ in range(100):
        assert list(reader.receive(b"x" * 10000, admit)) == []
    assert reader.payload_left == (1 << 62) - 1 - 1_000_000
    assert not reader._buffer
    assert not reader._header


def test_a_streamed_piece_is_not_copied() -> None:
    reader = FrameReader()
    list(reader.receive(encode_data_header(1 << 40), admit))
    chunk = b"x" * 5000
    ((_, piece),) = reader.receive(chunk, admit)
    assert isinstance(piece, memoryview)
    assert piece.obj is chunk


def test_what_admit_raises_passes() -> None:
    def refuse(frame_type: int, length: int) -> FrameUse:
        raise LocalMisuse("no")

    with pytest.raises(LocalMisuse):
        list(FrameReader().receive(b"\x00\x05", refuse))


@given(st.integers(0, (1 << 62) - 1), st.binary(max_size=300))
def test_frames_are_encoded_as_aioquic_does(frame_type: int, payload: bytes) -> None:
    assert encode_frame(frame_type, payload) == aioquic_encode_frame(frame_type, payload)


@given(st.integers(0, 70000))
def test_a_data_header_is_the_start_of_the_frame(length: int) -> None:
    payload = bytes(length)
    assert encode_data_header(length) + payload == aioquic_encode_frame(FrameType.DATA, payload)


def test_a_length_out_of_range_is_our_mistake() -> None:
    for length in (-1, 1 << 62):
        with pytest.raises(LocalMisuse):
            encode_data_header(length)
