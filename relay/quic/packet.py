"""The few QUIC packets that exist outside a connection (RFC 8999, RFC 9000 §10.3 and §17, RFC 9001 §5.8).

Enough to find a packet's connection, to answer an unknown version, to make a client prove its address with a Retry,
and to tell a client that its connection is no more. No state, no clock, no socket.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from masque.varint import parse_varint
from relay.quic.engine import Address

__all__ = [
    "MIN_INITIAL_SIZE",
    "VERSION_1",
    "LongHeader",
    "RetryTokens",
    "encode_retry",
    "encode_stateless_reset",
    "encode_version_negotiation",
    "parse_long_header",
    "reset_token",
]

VERSION_1: Final = 0x00000001
"The QUIC version we speak (RFC 9000)."
MIN_INITIAL_SIZE: Final = 1200
"A client's first datagram is at least this long (RFC 9000 §14.1)."

_INITIAL: Final = 0x00
_RETRY: Final = 0x03
_SHORTEST_RESET: Final = 21
_LONGEST_RESET: Final = 43
"Looks like a short packet, and cannot be told from one without the token."
_RETRY_KEY: Final = bytes.fromhex("be0c690b9f66575a1d766b54e368c84e")
_RETRY_NONCE: Final = bytes.fromhex("461599d35d632bf2239825bb")


@dataclass(frozen=True, slots=True)
class LongHeader:
    """What a long header shows without keys (RFC 8999 §5.1), and an Initial's token."""

    version: int
    destination_id: bytes
    source_id: bytes
    is_initial: bool
    "An Initial packet of version 1."
    token: bytes
    "The token of an Initial packet, else empty."


def parse_long_header(data: bytes) -> LongHeader | None:
    """Read the header of a packet whose first bit is set; None when it is no packet that we could answer.

    Connection ids over 20 bytes are read for other versions only, which must still get Version Negotiation
    (RFC 9000 §17.2.1).
    """
    if len(data) < 7 or not data[0] & 0x80:
        return None
    version = int.from_bytes(data[1:5], "big")
    destination_end = 6 + data[5]
    if destination_end >= len(data):
        return None
    source_end = destination_end + 1 + data[destination_end]
    if source_end > len(data):
        return None
    destination_id = data[6:destination_end]
    source_id = data[destination_end + 1 : source_end]
    if version != VERSION_1:
        return LongHeader(version, destination_id, source_id, False, b"")
    if len(destination_id) > 20 or len(source_id) > 20 or not data[0] & 0x40:
        return None
    if (data[0] & 0x30) >> 4 != _INITIAL:
        return LongHeader(version, destination_id, source_id, False, b"")
    length = parse_varint(data, source_end)
    if length is None or length[1] + length[0] > len(data):
        return None
    return LongHeader(version, destination_id, source_id, True, data[length[1] : length[1] + length[0]])


def encode_version_negotiation(header: LongHeader) -> bytes:
    """The answer to a version we do not speak (RFC 9000 §17.2.1), with one reserved version to grease."""
    grease = 0x0A0A0A0A | (os.urandom(1)[0] & 0xF0) << 24
    return b"".join(
        (
            bytes((0x80 | os.urandom(1)[0] & 0x7F,)),
            b"\x00\x00\x00\x00",
            bytes((len(header.source_id),)),
            header.source_id,
            bytes((len(header.destination_id),)),
            header.destination_id,
            VERSION_1.to_bytes(4, "big"),
            grease.to_bytes(4, "big"),
        )
    )


def encode_retry(header: LongHeader, source_id: bytes, token: bytes) -> bytes:
    """A Retry packet for the client's Initial, with its integrity tag (RFC 9000 §17.2.5, RFC 9001 §5.8)."""
    packet = b"".join(
        (
            bytes((0xC0 | _RETRY << 4 | os.urandom(1)[0] & 0x0F,)),
            VERSION_1.to_bytes(4, "big"),
            bytes((len(header.source_id),)),
            header.source_id,
            bytes((len(source_id),)),
            source_id,
            token,
        )
    )
    pseudo = bytes((len(header.destination_id),)) + header.destination_id + packet
    return packet + AESGCM(_RETRY_KEY).encrypt(_RETRY_NONCE, b"", pseudo)


def reset_token(key: bytes, connection_id: bytes) -> bytes:
    """The stateless reset token of one of our connection ids: 16 bytes that only the key's holder can make
    (RFC 9000 §10.3.2)."""
    return hmac.digest(key, connection_id, "sha256")[:16]


def encode_stateless_reset(received: int, token: bytes) -> bytes | None:
    """A stateless reset in answer to a packet of `received` bytes, always shorter than it (RFC 9000 §10.3).

    Returns:
        The packet, or None when the one received is too short to be answered.
    """
    size = min(received - 1, _LONGEST_RESET)
    if size < _SHORTEST_RESET:
        return None
    noise = os.urandom(size - len(token))
    return bytes((0x40 | noise[0] & 0x3F,)) + noise[1:] + token


class RetryTokens:
    """Address-validation tokens for Retry (RFC 9000 §8.1.2): sealed, bound to the address, short-lived.

    The key lives as long as this object, so a token of another process is refused; the client then starts anew.
    """

    def __init__(self, lifetime: float) -> None:
        """Tokens are accepted for `lifetime` seconds."""
        self._aead = AESGCM(AESGCM.generate_key(128))
        self._lifetime = lifetime

    def make(self, address: Address, destination_id: bytes, source_id: bytes, now: float) -> bytes:
        """A token for a client at `address` that first wrote to `destination_id` and will write to `source_id`."""
        nonce = os.urandom(12)
        expiry = struct.pack("!d", now + self._lifetime)
        return nonce + self._aead.encrypt(nonce, expiry + destination_id, _bound(address, source_id))

    def check(self, token: bytes, address: Address, source_id: bytes, now: float) -> bytes | None:
        """The client's first destination id, or None for a token that is not ours, not for it, or too old."""
        try:
            plain = self._aead.decrypt(token[:12], token[12:], _bound(address, source_id))
        except (InvalidTag, ValueError):
            return None
        (expiry,) = struct.unpack_from("!d", plain)
        return plain[8:] if now <= expiry else None


def _bound(address: Address, source_id: bytes) -> bytes:
    return ipaddress.ip_address(address[0].partition("%")[0]).packed + address[1].to_bytes(2, "big") + source_id
