"""The CONNECT-UDP tunnel's machine: HTTP Datagrams and capsules of one stream, either side (RFC 9298 §4, §5).

A payload travels as `quarter stream id, context id 0, payload` in a QUIC DATAGRAM frame, or as
`context id 0, payload` in a DATAGRAM capsule on the stream. Both are accepted always; which one is sent depends on
whether the peer announced H3_DATAGRAM. Other contexts are nobody's here: their datagrams are dropped (RFC 9298 §4).

The frame form of context 0 is so common that callers match `prefix` themselves and come here only for the rest.
"""

from __future__ import annotations

from masque.capsule import CapsuleParser, CapsuleType, encode_capsule
from masque.datagram import MAX_UDP_PAYLOAD, encode_prefix, parse_context
from masque.errors import Malformed

__all__ = ["UdpTunnel"]

_CONTEXT_0 = b"\x00"


class UdpTunnel:
    """One CONNECT-UDP tunnel."""

    def __init__(self, stream_id: int, capsule_limit: int = 65536) -> None:
        """Make the machine of the tunnel on a request stream.

        Args:
            stream_id: the exchange's QUIC stream.
            capsule_limit: largest DATAGRAM capsule value kept, in bytes; larger ones are dropped.
        """
        self.prefix = encode_prefix(stream_id)
        "What stands before a payload of context 0 in a QUIC DATAGRAM frame."
        self.dropped = 0
        "Datagrams of unknown contexts, or too short to have one."
        self._capsules = CapsuleParser(capsule_limit)

    @property
    def discarded(self) -> int:
        """DATAGRAM capsules above the limit, skipped unread."""
        return self._capsules.discarded

    def receive_data(self, data: bytes, fin: bool = False) -> list[bytes]:
        """Receive bytes of the stream; return the UDP payloads that came in capsules (RFC 9297 §3.5).

        Args:
            data: the next content of the stream.
            fin: whether the peer ended the stream after it.

        Raises:
            Malformed: the stream ended inside a capsule, or a payload is longer than UDP allows (reach STREAM).
            LimitExceeded: a known capsule above the limit (reach STREAM).
        """
        payloads = []
        for _, value in self._capsules.receive(data):
            payload = self.receive_datagram(value)
            if payload is not None:
                payloads.append(payload)
        if fin:
            self._capsules.finish()
        return payloads

    def receive_datagram(self, datagram: bytes) -> bytes | None:
        """Receive an HTTP Datagram's payload, context id first; return its UDP payload, or None to drop it.

        Raises:
            Malformed: a payload of context 0 longer than UDP allows; the stream must go (RFC 9298 §5).
        """
        try:
            context_id, offset = parse_context(datagram)
        except Malformed:
            self.dropped += 1
            return None
        if context_id != 0:
            self.dropped += 1
            return None
        if len(datagram) - offset > MAX_UDP_PAYLOAD:
            raise Malformed("a UDP payload longer than UDP allows")
        return datagram[offset:]

    @staticmethod
    def encode_capsule(payload: bytes) -> bytes:
        """A UDP payload as a DATAGRAM capsule, for a peer without H3_DATAGRAM (RFC 9297 §3.5)."""
        return encode_capsule(CapsuleType.DATAGRAM, _CONTEXT_0 + payload)
