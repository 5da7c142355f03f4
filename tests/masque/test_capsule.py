"""The Capsule Protocol: splits, prefixes, limits, skipping without buffering."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.capsule import CapsuleParser, CapsuleType, encode_capsule
from masque.errors import ErrorCode, LimitExceeded, LocalMisuse, Malformed, MasqueError, Reach
from masque.varint import VARINT_MAX, encode_varint

KNOWN = frozenset({CapsuleType.DATAGRAM, CapsuleType.ADDRESS_ASSIGN, 0x2028D7F2})
LIMIT = 40

TYPES = st.one_of(st.sampled_from(sorted(KNOWN)), st.integers(0, 70), st.integers(0, VARINT_MAX))
CAPSULES = st.lists(st.tuples(TYPES, st.binary(max_size=LIMIT)), max_size=8)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut data at the positions given, which may repeat or lie beyond its end."""
    edges = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def receive_all(pieces: list[bytes], parser: CapsuleParser) -> tuple[list[tuple[int, bytes]], str | None]:
    """Feed the pieces and the end; return the capsules and the class of the error, if any."""
    capsules: list[tuple[int, bytes]] = []
    try:
        for piece in pieces:
            capsules += parser.receive(piece)
        parser.finish()
    except MasqueError as error:
        return capsules, type(error).__name__
    return capsules, None


@pytest.mark.parametrize(
    ("capsule_type", "value", "wire"),
    [
        (CapsuleType.DATAGRAM, b"", "0000"),
        (CapsuleType.DATAGRAM, b"\x00hi", "0003006869"),
        (CapsuleType.ROUTE_ADVERTISEMENT, b"x", "030178"),
        (0x2028D7F2, b"ab", "a028d7f2026162"),
    ],
)
def test_encoding(capsule_type: int, value: bytes, wire: str) -> None:
    assert encode_capsule(capsule_type, value) == bytes.fromhex(wire)


def test_type_out_of_range() -> None:
    with pytest.raises(LocalMisuse):
        encode_capsule(VARINT_MAX + 1, b"")


@given(CAPSULES, st.lists(st.integers(0, 300), max_size=12))
def test_any_split_gives_the_same_capsules(sent: list[tuple[int, bytes]], cuts: list[int]) -> None:
    wire = b"".join(encode_capsule(number, value) for number, value in sent)
    expected = [(number, value) for number, value in sent if number in KNOWN]
    pieces = split(wire, [min(cut, len(wire)) for cut in cuts])
    assert receive_all(pieces, CapsuleParser(LIMIT, KNOWN)) == (expected, None)


@given(CAPSULES)
def test_byte_at_a_time(sent: list[tuple[int, bytes]]) -> None:
    wire = b"".join(encode_capsule(number, value) for number, value in sent)
    expected = [(number, value) for number, value in sent if number in KNOWN]
    assert receive_all([bytes([byte]) for byte in wire], CapsuleParser(LIMIT, KNOWN)) == (expected, None)


def test_every_prefix_is_legal_only_between_capsules() -> None:
    parts = [
        encode_capsule(CapsuleType.DATAGRAM, b"one"),
        encode_capsule(0x1234, b"unknown"),
        encode_capsule(CapsuleType.DATAGRAM, b"x" * (LIMIT + 1)),
        encode_capsule(CapsuleType.ADDRESS_ASSIGN, b""),
        encode_capsule(0x2028D7F2, b"last"),
    ]
    wire = b"".join(parts)
    boundaries = {sum(map(len, parts[:count])) for count in range(len(parts) + 1)}
    for size in range(len(wire) + 1):
        parser = CapsuleParser(LIMIT, KNOWN)
        parser.receive(wire[:size])
        if size in boundaries:
            parser.finish()
            continue
        with pytest.raises(Malformed) as caught:
            parser.finish()
        assert caught.value.reach is Reach.STREAM
        assert caught.value.code is ErrorCode.H3_MESSAGE_ERROR
        with pytest.raises(Malformed):
            parser.receive(b"")
        with pytest.raises(Malformed):
            parser.finish()


def test_long_encodings_of_type_and_length() -> None:
    """A type and a length may take eight bytes each (RFC 9000 §16)."""
    wire = bytes.fromhex("c000000000000000") + bytes.fromhex("c000000000000002") + b"ok"
    for pieces in ([wire], [bytes([byte]) for byte in wire], [wire[:15], wire[15:]], [wire[:16], wire[16:]]):
        assert receive_all(pieces, CapsuleParser()) == ([(0, b"ok")], None)


def test_the_limit_is_inclusive() -> None:
    parser = CapsuleParser(LIMIT, KNOWN)
    value = b"v" * LIMIT
    assert parser.receive(encode_capsule(CapsuleType.ADDRESS_ASSIGN, value)) == [(1, value)]


@pytest.mark.parametrize("size", [LIMIT + 1, 1 << 30, VARINT_MAX])
def test_a_known_capsule_above_the_limit_kills(size: int) -> None:
    header = encode_varint(CapsuleType.ADDRESS_ASSIGN) + encode_varint(size)
    for pieces in ([header], [bytes([byte]) for byte in header], [header + b"more"]):
        parser = CapsuleParser(LIMIT, KNOWN)
        for piece in pieces[:-1]:
            assert parser.receive(piece) == []
        with pytest.raises(LimitExceeded) as caught:
            parser.receive(pieces[-1])
        assert caught.value.reach is Reach.STREAM
        assert caught.value.code is ErrorCode.H3_EXCESSIVE_LOAD
        with pytest.raises(LimitExceeded):
            parser.receive(encode_capsule(CapsuleType.DATAGRAM, b"fine"))
        with pytest.raises(LimitExceeded):
            parser.finish()


def test_a_datagram_above_the_limit_is_discarded_and_counted() -> None:
    parser = CapsuleParser(LIMIT, KNOWN)
    big = encode_capsule(CapsuleType.DATAGRAM, b"x" * (LIMIT + 1))
    small = encode_capsule(CapsuleType.DATAGRAM, b"after")
    assert parser.receive(big + small + big) == [(0, b"after")]
    assert parser.discarded == 2
    parser.finish()


@pytest.mark.parametrize("capsule_type", [CapsuleType.DATAGRAM, 0x1234])
def test_a_gigabyte_is_skipped_as_it_streams(capsule_type: int) -> None:
    parser = CapsuleParser()
    size = 1 << 30
    piece = bytes(1 << 20)
    tracemalloc.start()
    try:
        assert parser.receive(encode_varint(capsule_type) + encode_varint(size)) == []
        for _ in range(size // len(piece)):
            assert parser.receive(piece) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000
    assert parser.receive(encode_capsule(CapsuleType.DATAGRAM, b"after")) == [(0, b"after")]
    parser.finish()


def test_a_limit_of_zero_and_no_known_type() -> None:
    assert CapsuleParser(0).receive(b"\x00\x00") == [(0, b"")]
    parser = CapsuleParser(known=frozenset())
    assert parser.receive(encode_capsule(CapsuleType.DATAGRAM, b"x")) == []
    assert parser.discarded == 0
    parser.finish()


def test_byte_at_a_time_is_not_quadratic() -> None:
    """A capsule of a megabyte in single bytes ends well within the test's time limit."""
    size = 1 << 20
    parser = CapsuleParser(size)
    parser.receive(encode_varint(0) + encode_varint(size))
    for _ in range(size - 1):
        assert not parser.receive(b"a")
    ((capsule_type, value),) = parser.receive(b"a")
    assert (capsule_type, len(value)) == (0, size)


@given(st.binary(max_size=120), st.lists(st.integers(0, 120), max_size=10))
def test_any_input_is_parsed_or_the_documented_error(data: bytes, cuts: list[int]) -> None:
    whole, whole_error = receive_all([data], CapsuleParser(LIMIT, KNOWN))
    pieces = split(data, [min(cut, len(data)) for cut in cuts])
    parts, parts_error = receive_all(pieces, CapsuleParser(LIMIT, KNOWN))
    assert whole_error == parts_error
    assert whole_error in (None, "Malformed", "LimitExceeded")
    assert parts[: len(whole)] == whole
    if whole_error is None:
        assert parts == whole
    assert all(number in KNOWN and len(value) <= LIMIT for number, value in parts)
