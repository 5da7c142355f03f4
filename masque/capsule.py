"""The Capsule Protocol: typed pieces of the data stream (RFC 9297 §3.2).

`CapsuleParser` cuts a stream into capsules. It is in one of four states:

- header: collecting the type and the length, at most 16 bytes;
- value: collecting the value of a capsule of a known type, at most `limit` bytes;
- skip: dropping the value of a capsule as it comes, whatever its length, buffering nothing;
- dead: an error was raised, and is raised again by every later call.

A capsule of an unknown type is skipped silently. A DATAGRAM capsule above the limit is skipped too, since a
datagram may be lost (RFC 9297 §3.5); any other known capsule above the limit ends the exchange. What a value
means is not known here: each extension parses its own capsules.
"""

from __future__ import annotations

from masque.errors import LimitExceeded, Malformed, MasqueError
from masque.varint import encode_varint, parse_varint

__all__ = ["CapsuleParser", "CapsuleType", "encode_capsule"]


class CapsuleType:
    """Capsule types by number (RFC 9297 §5.4, RFC 9484 §8.4). Plain numbers: a peer may send any other."""

    DATAGRAM = 0x00
    "An HTTP Datagram's payload (RFC 9297 §3.5)."
    ADDRESS_ASSIGN = 0x01
    "The addresses that the receiver may use (RFC 9484 §4.7.1)."
    ADDRESS_REQUEST = 0x02
    "A wish for addresses (RFC 9484 §4.7.2)."
    ROUTE_ADVERTISEMENT = 0x03
    "The ranges that the sender can reach (RFC 9484 §4.7.3)."


_DATAGRAM_ONLY = frozenset({CapsuleType.DATAGRAM})
_LONGEST_HEADER = 16
"Bytes of a type and a length at their longest."


def encode_capsule(capsule_type: int, value: bytes) -> bytes:
    """Encode a capsule (RFC 9297 §3.2).

    Args:
        capsule_type: a number of `CapsuleType`, or any other.
        value: the whole value.

    Returns:
        Type, length and value.

    Raises:
        LocalMisuse: the type is no variable-length integer.
    """
    return encode_varint(capsule_type) + encode_varint(len(value)) + value


class CapsuleParser:
    """Cuts one direction of a data stream into capsules (RFC 9297 §3.2).

    Holds at most one incomplete capsule of a known type. The work is proportional to the bytes received,
    however they are split.
    """

    def __init__(self, limit: int = 65536, known: frozenset[int] = _DATAGRAM_ONLY) -> None:
        """Start before the first capsule.

        Args:
            limit: the longest value kept, in bytes.
            known: the types to return; all others are skipped.
        """
        self._limit = limit
        self._known = known
        self._header = bytearray()
        self._type: int | None = None
        self._value = bytearray()
        self._missing = 0
        self._skip = 0
        self._failure: MasqueError | None = None
        self.discarded = 0
        "DATAGRAM capsules skipped for being above the limit."

    def receive(self, data: bytes) -> list[tuple[int, bytes]]:
        """Receive bytes of the stream and return the capsules they complete (RFC 9297 §3.2).

        An error hides the capsules that the same bytes completed before it; the stream is lost anyway.

        Args:
            data: the next bytes, any number of them.

        Returns:
            Type and value of each capsule of a known type that is now complete, in order.

        Raises:
            LimitExceeded: a known type other than DATAGRAM announced a value above the limit (reach STREAM,
                code H3_EXCESSIVE_LOAD). Raised again by every later call.
            Malformed: `finish` raised it before.
        """
        self._raise_if_dead()
        capsules: list[tuple[int, bytes]] = []
        position, end = 0, len(data)
        while position < end:
            if self._skip:
                taken = min(self._skip, end - position)
                self._skip -= taken
                position += taken
            elif self._type is not None:
                position = self._collect(data, position, self._type, capsules)
            else:
                position = self._start(data, position, capsules)
        return capsules

    def finish(self) -> None:
        """Note the end of the stream, which must fall between capsules (RFC 9297 §3.3).

        Raises:
            Malformed: the stream ended inside a capsule (reach STREAM, code H3_MESSAGE_ERROR). Raised again
                by every later call.
            LimitExceeded: `receive` raised it before.
        """
        self._raise_if_dead()
        if self._header or self._skip or self._type is not None:
            self._fail(Malformed("the stream ended inside a capsule"))

    def _start(self, data: bytes, position: int, capsules: list[tuple[int, bytes]]) -> int:
        """Read a capsule's header, and its value when that is all there. Returns the new position."""
        if not self._header:
            header = _parse_header(data, position)
            if header is None:
                self._header += data[position:]
                return len(data)
            capsule_type, length, position = header
        else:
            kept = len(self._header)
            self._header += data[position : position + _LONGEST_HEADER - kept]
            header = _parse_header(self._header, 0)
            if header is None:
                return len(data)
            capsule_type, length, header_size = header
            position += header_size - kept
            self._header.clear()
        return self._enter(data, position, capsule_type, length, capsules)

    def _enter(
        self, data: bytes, position: int, capsule_type: int, length: int, capsules: list[tuple[int, bytes]]
    ) -> int:
        """Decide what becomes of a value by its type and length. Returns the new position."""
        if capsule_type not in self._known:
            self._skip = length
        elif length > self._limit:
            if capsule_type != CapsuleType.DATAGRAM:
                self._fail(LimitExceeded("a capsule above the limit"))
            self.discarded += 1
            self._skip = length
        elif position + length <= len(data):
            capsules.append((capsule_type, data[position : position + length]))
            position += length
        else:
            self._type, self._missing = capsule_type, length
        return position

    def _collect(self, data: bytes, position: int, capsule_type: int, capsules: list[tuple[int, bytes]]) -> int:
        """Add to the value being collected. Returns the new position."""
        piece = data[position : position + self._missing]
        self._value += piece
        self._missing -= len(piece)
        if not self._missing:
            capsules.append((capsule_type, bytes(self._value)))
            self._value = bytearray()
            self._type = None
        return position + len(piece)

    def _fail(self, failure: MasqueError) -> None:
        """Drop what is buffered, die and raise."""
        self._header, self._value = bytearray(), bytearray()
        self._failure = failure
        raise failure

    def _raise_if_dead(self) -> None:
        """Raise the error of an earlier call again."""
        if self._failure is not None:
            raise self._failure.with_traceback(None)


def _parse_header(data: bytes | bytearray, offset: int) -> tuple[int, int, int] | None:
    """Decode type, length and the offset of the value, or return None until more bytes arrive."""
    parsed_type = parse_varint(data, offset)
    if parsed_type is None:
        return None
    parsed_length = parse_varint(data, parsed_type[1])
    if parsed_length is None:
        return None
    return parsed_type[0], parsed_length[0], parsed_length[1]
