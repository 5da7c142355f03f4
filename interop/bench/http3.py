"""The little HTTP/3 that a load generator needs (RFC 9114, RFC 9297): CONNECT out, status and DATA in.

It is written apart from `masque.h3` on purpose: the measuring side shares no machine with the measured one,
and costs the same for every server. It trusts its peer; it is no example of a client.
"""

from __future__ import annotations

import pylsqpack

from interop.bench.batches import Address
from masque.varint import encode_varint, parse_varint

__all__ = ["ResponseStream", "encode_connect_tcp", "encode_connect_udp", "encode_data_header", "encode_preface"]

_DATA = 0x00
_HEADERS = 0x01
_SETTINGS = 0x04
_CONTROL_STREAM = 0x00
_H3_DATAGRAM = 0x33
_KEPT = 64

Fields = list[tuple[bytes, bytes]]


def encode_preface() -> bytes:
    """Encode the control stream's first bytes: its type, and SETTINGS with H3_DATAGRAM (RFC 9297 §2.1.1).

    Returns:
        What to send on the client's first unidirectional stream.
    """
    settings = encode_varint(_H3_DATAGRAM) + encode_varint(1)
    return encode_varint(_CONTROL_STREAM) + encode_varint(_SETTINGS) + encode_varint(len(settings)) + settings


def encode_connect_tcp(port: int) -> bytes:
    """Encode a classic CONNECT to a port on loopback (RFC 9114 §4.4).

    Args:
        port: the target's TCP port.

    Returns:
        A HEADERS frame.
    """
    return _encode_head([(b":method", b"CONNECT"), (b":authority", b"127.0.0.1:%d" % port)])


def encode_connect_udp(port: int, server: Address) -> bytes:
    """Encode a CONNECT-UDP request to a port on loopback (RFC 9298 §3.4).

    Args:
        port: the target's UDP port.
        server: the proxy's address; its template is the default one at this authority.

    Returns:
        A HEADERS frame.
    """
    return _encode_head(
        [
            (b":method", b"CONNECT"),
            (b":protocol", b"connect-udp"),
            (b":scheme", b"https"),
            (b":authority", b"%s:%d" % (server[0].encode(), server[1])),
            (b":path", b"/.well-known/masque/udp/127.0.0.1/%d/" % port),
            (b"capsule-protocol", b"?1"),
        ]
    )


def encode_data_header(size: int) -> bytes:
    """Encode what goes before a DATA frame's payload (RFC 9114 §7.2.1).

    Args:
        size: bytes of payload.

    Returns:
        The frame's type and length.
    """
    return encode_varint(_DATA) + encode_varint(size)


def _encode_head(fields: Fields) -> bytes:
    """Encode a HEADERS frame without the dynamic table."""
    section = pylsqpack.Encoder().encode(0, fields)[1]
    return encode_varint(_HEADERS) + encode_varint(len(section)) + section


class ResponseStream:
    """The receiving half of one request stream: its status, and how much DATA has come."""

    def __init__(self) -> None:
        self.status: int | None = None
        "The final status, or None until it is there."
        self.received = 0
        "Bytes of DATA so far."
        self.content = b""
        "The first bytes of DATA."
        self.is_ended = False
        "The server has ended the stream, or reset it."
        self._pending = b""
        self._left = 0

    def receive(self, data: bytes, is_end: bool) -> None:
        """Take the next bytes of the stream.

        Args:
            data: any cut of the stream.
            is_end: the stream ends behind them.
        """
        self.is_ended = self.is_ended or is_end
        offset = 0
        if self._pending:
            data, self._pending = self._pending + data, b""
        size = len(data)
        while offset < size:
            if self._left:
                taken = min(self._left, size - offset)
                if self.received < _KEPT:
                    self.content += data[offset : offset + min(taken, _KEPT)]
                self.received += taken
                self._left -= taken
                offset += taken
                continue
            following = self._receive_frame(data, offset)
            if following is None:
                self._pending = data[offset:]
                return
            offset = following

    def _receive_frame(self, data: bytes, offset: int) -> int | None:
        """Read a frame's head, or a whole frame that is not DATA; None until it is complete."""
        kind = parse_varint(data, offset)
        length = parse_varint(data, kind[1]) if kind is not None else None
        if kind is None or length is None:
            return None
        start = length[1]
        if kind[0] == _DATA:
            self._left = length[0]
            return start
        end = start + length[0]
        if end > len(data):
            return None
        if kind[0] == _HEADERS and self.status is None:
            fields = dict(pylsqpack.Decoder(0, 0).feed_header(0, data[start:end])[1])
            status = int(fields[b":status"])
            self.status = status if status >= 200 else None
        return end
