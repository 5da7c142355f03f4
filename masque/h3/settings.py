"""The SETTINGS frame of HTTP/3 (RFC 9114 §7.2.4, RFC 9204 §5, RFC 9220 §3, RFC 9297 §2.1.1).

Unknown settings are ignored; settings of HTTP/2 and repeated ones are errors of the connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from masque.errors import ErrorCode, LimitExceeded, Malformed, Reach
from masque.h3.limits import H3Limits
from masque.varint import encode_varint, parse_varint

__all__ = ["SettingId", "Settings", "encode_settings", "parse_settings"]

GREASE_SETTING = 0x1F * 0x2A6F + 0x21
"A setting without meaning, sent to keep peers used to unknown ones (RFC 9114 §7.2.4.1)."
HTTP2_SETTINGS = frozenset({0x02, 0x03, 0x04, 0x05})
"Settings of HTTP/2 that have no counterpart; a peer may not send them (RFC 9114 §7.2.4.1)."


class SettingId(IntEnum):
    """Settings that have a meaning here."""

    QPACK_MAX_TABLE_CAPACITY = 0x01
    MAX_FIELD_SECTION_SIZE = 0x06
    QPACK_BLOCKED_STREAMS = 0x07
    ENABLE_CONNECT_PROTOCOL = 0x08
    H3_DATAGRAM = 0x33


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one side, with the defaults that hold for what it left out."""

    max_field_section_size: int | None = None
    "The largest field section it takes, or None for no bound. Advice: we do not hold our own heads to it."
    enable_connect_protocol: bool = False
    "Whether it answers extended CONNECT (RFC 9220 §3)."
    h3_datagram: bool = False
    "Whether it takes HTTP Datagrams in QUIC DATAGRAM frames (RFC 9297 §2.1.1)."
    qpack_max_table_capacity: int = 0
    "Bytes of dynamic table its decoder offers; we never use any."
    qpack_blocked_streams: int = 0
    "Streams it lets block; ours never do."


def encode_settings(settings: Settings) -> bytes:
    """Encode the payload of our SETTINGS frame, with one setting of no meaning at its end.

    Args:
        settings: what to announce; false and absent values are left out, QPACK's zeros are said.

    Returns:
        The payload.

    Raises:
        LocalMisuse: a value is out of range.
    """
    entries = [
        (SettingId.QPACK_MAX_TABLE_CAPACITY, settings.qpack_max_table_capacity),
        (SettingId.QPACK_BLOCKED_STREAMS, settings.qpack_blocked_streams),
    ]
    if settings.max_field_section_size is not None:
        entries.append((SettingId.MAX_FIELD_SECTION_SIZE, settings.max_field_section_size))
    if settings.enable_connect_protocol:
        entries.append((SettingId.ENABLE_CONNECT_PROTOCOL, 1))
    if settings.h3_datagram:
        entries.append((SettingId.H3_DATAGRAM, 1))
    payload = b"".join(encode_varint(identifier) + encode_varint(value) for identifier, value in entries)
    return payload + encode_varint(GREASE_SETTING) + encode_varint(0)


def parse_settings(payload: bytes, limits: H3Limits) -> Settings:
    """Decode the payload of the peer's SETTINGS frame.

    Args:
        payload: the whole payload.
        limits: gives the most entries.

    Returns:
        The peer's settings.

    Raises:
        Malformed: the payload is cut short, or an entry is repeated, forbidden or out of its range (CONNECTION).
        LimitExceeded: there are too many entries (CONNECTION).
    """
    values: dict[int, int] = {}
    offset = 0
    while offset < len(payload):
        first = parse_varint(payload, offset)
        second = parse_varint(payload, first[1]) if first else None
        if first is None or second is None:
            raise Malformed("SETTINGS cut short", reach=Reach.CONNECTION, code=ErrorCode.H3_FRAME_ERROR)
        identifier, (value, offset) = first[0], second
        if identifier in values or identifier in HTTP2_SETTINGS:
            raise _refused("a setting repeated or of HTTP/2")
        if len(values) >= limits.settings:
            raise LimitExceeded("too many settings", reach=Reach.CONNECTION)
        values[identifier] = value
    return Settings(
        max_field_section_size=values.get(SettingId.MAX_FIELD_SECTION_SIZE),
        enable_connect_protocol=_parse_switch(values, SettingId.ENABLE_CONNECT_PROTOCOL),
        h3_datagram=_parse_switch(values, SettingId.H3_DATAGRAM),
        qpack_max_table_capacity=values.get(SettingId.QPACK_MAX_TABLE_CAPACITY, 0),
        qpack_blocked_streams=values.get(SettingId.QPACK_BLOCKED_STREAMS, 0),
    )


def _parse_switch(values: dict[int, int], identifier: SettingId) -> bool:
    """Read a setting that may only be 0 or 1 (RFC 8441 §3, RFC 9297 §2.1.1)."""
    value = values.get(identifier, 0)
    if value > 1:
        raise _refused("a setting that may only be 0 or 1")
    return value == 1


def _refused(detail: str) -> Malformed:
    """Make the error for a setting that is not allowed (RFC 9114 §7.2.4)."""
    return Malformed(detail, reach=Reach.CONNECTION, code=ErrorCode.H3_SETTINGS_ERROR)
