"""What the HTTP/3 machine asks of QUIC. The caller carries them out in the order they come.

Reset and stop may name a stream whose direction QUIC has ended by itself meanwhile; that is no error.
"""

from __future__ import annotations

from dataclasses import dataclass

from masque.errors import ErrorCode

__all__ = ["Action", "CloseConnection", "StreamReset", "StreamStop", "StreamWrite"]


@dataclass(frozen=True, slots=True)
class StreamWrite:
    """Send bytes on a stream; the first write opens a stream of ours."""

    stream_id: int
    "The QUIC stream."
    data: bytes
    "What to send; may be empty when `fin` is set."
    fin: bool = False
    "Whether our direction of the stream ends here."


@dataclass(frozen=True, slots=True)
class StreamReset:
    """Abort our direction of a stream with RESET_STREAM (RFC 9000 §19.4)."""

    stream_id: int
    "The QUIC stream."
    code: int
    "The application error code."


@dataclass(frozen=True, slots=True)
class StreamStop:
    """Ask the peer with STOP_SENDING to abort its direction of a stream (RFC 9000 §19.5)."""

    stream_id: int
    "The QUIC stream."
    code: int
    "The application error code."


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Close the QUIC connection with an application error. Always the last action."""

    code: ErrorCode
    "Why."
    detail: str
    "For our own logs and for the reason phrase; never quotes the peer."


Action = StreamWrite | StreamReset | StreamStop | CloseConnection
"Everything that `H3Connection.actions_to_send` returns."
