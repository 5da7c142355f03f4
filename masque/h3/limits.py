"""What one HTTP/3 connection may make us keep (RFC 9114 §10.5).

Every bound has a default that real clients never reach. The number of open request streams, and of gaps between
them, is bounded by the stream limit that QUIC grants; it is not repeated here.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["H3Limits"]


@dataclass(frozen=True, slots=True)
class H3Limits:
    """Bounds on the peer. Crossing one costs a stream where the RFC allows it, else the connection."""

    field_section: int = 16384
    "Bytes of a field section, name + value + 32 for each line (RFC 9114 §4.2.2). Bounds the encoded frame too."
    fields: int = 128
    "Field lines in one section."
    control_frame: int = 4096
    "Payload bytes of a SETTINGS frame, the only frame besides HEADERS that is collected and has no fixed size."
    settings: int = 64
    "Entries in the SETTINGS frame."
    ignored_frames: int = 256
    "Frames in a row that bring nothing: unknown, empty or repeated ones, and interim responses."
    uni_streams: int = 32
    "The peer's unidirectional streams that are open at one time."
