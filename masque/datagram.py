"""HTTP Datagrams in QUIC DATAGRAM frames: the prefix before a payload (RFC 9297 §2.1, RFC 9298 §5).

A frame's data is a quarter stream id, then the HTTP Datagram's payload; connect-udp and connect-ip begin that
payload with a context id. This is on the path of every datagram: functions take and return offsets, so that
nothing is copied, and build no object but a tuple.
"""

from __future__ import annotations

from masque.errors import ErrorCode, LocalMisuse, Malformed, Reach
from masque.varint import encode_varint, parse_varint

__all__ = ["MAX_QUARTER_STREAM_ID", "MAX_UDP_PAYLOAD", "encode_prefix", "parse_context", "parse_datagram"]

MAX_QUARTER_STREAM_ID = (1 << 60) - 1
"The largest quarter stream id: stream ids end below 2**62 (RFC 9297 §2.1)."
MAX_UDP_PAYLOAD = 65527
"The longest UDP payload of context 0; a longer one costs the stream (RFC 9298 §5)."


def encode_prefix(stream_id: int, context_id: int = 0) -> bytes:
    """Encode what goes before a payload: quarter stream id and context id (RFC 9297 §2.1, RFC 9298 §5).

    It is the same for each datagram of a tunnel: make it once and keep it.

    Args:
        stream_id: the exchange's request stream, a client's bidirectional one.
        context_id: the context of the payload; 0 is a plain UDP payload or IP packet.

    Returns:
        2 to 16 bytes.

    Raises:
        LocalMisuse: an id is out of range, or the stream is not a request stream.
    """
    if stream_id & 0x3:
        raise LocalMisuse("HTTP Datagrams belong to client-initiated bidirectional streams")
    if stream_id >> 62:
        raise LocalMisuse("a stream id out of range")
    return encode_varint(stream_id >> 2) + encode_varint(context_id)


def parse_datagram(data: bytes | bytearray | memoryview) -> tuple[int, int]:
    """Decode the quarter stream id at the front of a QUIC DATAGRAM frame's data (RFC 9297 §2.1).

    Args:
        data: the data of one frame.

    Returns:
        The stream id, and the offset of the HTTP Datagram's payload.

    Raises:
        Malformed: too short for a quarter stream id, or the id is above 2**60-1 (reach CONNECTION, code
            H3_DATAGRAM_ERROR).
    """
    parsed = parse_varint(data)
    if parsed is None:
        raise _connection_error("a datagram too short for its quarter stream id")
    quarter, offset = parsed
    if quarter > MAX_QUARTER_STREAM_ID:
        raise _connection_error("a quarter stream id above 2**60-1")
    return quarter << 2, offset


def parse_context(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int, int]:
    """Decode the context id at the front of an HTTP Datagram's payload (RFC 9298 §4, §5).

    RFC 9298 names no penalty for a payload too short to hold one. It is like a datagram of an unknown
    context, which a receiver may drop, so it costs that datagram alone.

    Args:
        data: a payload, or the frame's data with the offset that `parse_datagram` returned.
        offset: where the context id begins.

    Returns:
        The context id, and the offset of what follows it.

    Raises:
        Malformed: too short for a context id (reach DATAGRAM, code H3_DATAGRAM_ERROR).
    """
    parsed = parse_varint(data, offset)
    if parsed is None:
        raise Malformed(
            "a datagram too short for its context id", reach=Reach.DATAGRAM, code=ErrorCode.H3_DATAGRAM_ERROR
        )
    return parsed


def _connection_error(detail: str) -> Malformed:
    """Make the error that RFC 9297 §2.1 demands for a bad quarter stream id."""
    return Malformed(detail, reach=Reach.CONNECTION, code=ErrorCode.H3_DATAGRAM_ERROR)
