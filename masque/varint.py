"""Variable-length integers of QUIC (RFC 9000 §16): what frames, capsules and datagrams are built from.

The two leading bits of the first byte give the length: 1, 2, 4 or 8 bytes. A longer encoding than needed is
legal on input; output is always the shortest. Nothing here keeps state.
"""

from __future__ import annotations

from masque.errors import LocalMisuse

__all__ = ["VARINT_MAX", "encode_varint", "parse_varint", "varint_size"]

VARINT_MAX = (1 << 62) - 1
"The largest value that an encoding of eight bytes holds."

_PRECOMPUTED = 2048
"Values below this come from a table: the usual stream, context and capsule numbers and lengths."
_SIZES = (1, 2, 4, 8)
"Bytes of an encoding, by its two leading bits."
_MASKS = (0x3F, 0x3FFF, 0x3FFF_FFFF, VARINT_MAX)
"The bits that carry the value, by the two leading bits."


def _encode(value: int) -> bytes:
    """Encode a value from 0 to VARINT_MAX in the shortest form."""
    if value <= _MASKS[0]:
        return value.to_bytes(1, "big")
    if value <= _MASKS[1]:
        return (value | 0x4000).to_bytes(2, "big")
    if value <= _MASKS[2]:
        return (value | 0x8000_0000).to_bytes(4, "big")
    return (value | 0xC000_0000_0000_0000).to_bytes(8, "big")


_TABLE = tuple(_encode(value) for value in range(_PRECOMPUTED))


def encode_varint(value: int) -> bytes:
    """Encode an integer in the fewest bytes (RFC 9000 §16).

    Args:
        value: from 0 to VARINT_MAX.

    Returns:
        1, 2, 4 or 8 bytes.

    Raises:
        LocalMisuse: the value is out of range.
    """
    if 0 <= value < _PRECOMPUTED:
        return _TABLE[value]
    if not 0 <= value <= VARINT_MAX:
        raise LocalMisuse("a value out of the range of variable-length integers")
    return _encode(value)


def varint_size(value: int) -> int:
    """Count the bytes that `encode_varint` makes of a value.

    Args:
        value: from 0 to VARINT_MAX.

    Returns:
        1, 2, 4 or 8.

    Raises:
        LocalMisuse: the value is out of range.
    """
    for mask, size in zip(_MASKS, _SIZES, strict=True):
        if 0 <= value <= mask:
            return size
    raise LocalMisuse("a value out of the range of variable-length integers")


def parse_varint(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int, int] | None:
    """Decode the integer that begins at an offset (RFC 9000 §16).

    Args:
        data: what has arrived so far.
        offset: where the integer begins; not negative.

    Returns:
        The value and the offset after it, or None until more bytes arrive. Every byte string has a meaning.
    """
    available = len(data)
    if offset >= available:
        return None
    first = data[offset]
    if first < 0x40:
        return first, offset + 1
    kind = first >> 6
    end = offset + _SIZES[kind]
    if end > available:
        return None
    return int.from_bytes(data[offset:end], "big") & _MASKS[kind], end
