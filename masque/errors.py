"""Errors of the protocol machines: what went wrong, how far it reaches, and the code the wire learns.

Codecs raise these; machines turn them into events. A handful of classes, with the detail in enums
(RFC 9114 §8, RFC 9204 §6, RFC 9297 §5.2). The `detail` text is for our own logs: it never quotes peer
input, because peer input may name a target.
"""

from __future__ import annotations

from enum import Enum, IntEnum

__all__ = ["ErrorCode", "LimitExceeded", "LocalMisuse", "Malformed", "MasqueError", "Reach", "RequestRejected"]


class Reach(Enum):
    """How much an error costs: the smallest unit that the RFC allows to be dropped."""

    DATAGRAM = "datagram"
    "Drop this datagram; nothing else changes."
    STREAM = "stream"
    "Abort this exchange's stream; the connection lives on."
    CONNECTION = "connection"
    "Close the connection."


class ErrorCode(IntEnum):
    """Application error codes of HTTP/3 (RFC 9114 §8.1), QPACK (RFC 9204 §6) and datagrams (RFC 9297 §5.2)."""

    H3_DATAGRAM_ERROR = 0x33
    H3_NO_ERROR = 0x100
    H3_GENERAL_PROTOCOL_ERROR = 0x101
    H3_INTERNAL_ERROR = 0x102
    H3_STREAM_CREATION_ERROR = 0x103
    H3_CLOSED_CRITICAL_STREAM = 0x104
    H3_FRAME_UNEXPECTED = 0x105
    H3_FRAME_ERROR = 0x106
    H3_EXCESSIVE_LOAD = 0x107
    H3_ID_ERROR = 0x108
    H3_SETTINGS_ERROR = 0x109
    H3_MISSING_SETTINGS = 0x10A
    H3_REQUEST_REJECTED = 0x10B
    H3_REQUEST_CANCELLED = 0x10C
    H3_REQUEST_INCOMPLETE = 0x10D
    H3_MESSAGE_ERROR = 0x10E
    H3_CONNECT_ERROR = 0x10F
    H3_VERSION_FALLBACK = 0x110
    QPACK_DECOMPRESSION_FAILED = 0x200
    QPACK_ENCODER_STREAM_ERROR = 0x201
    QPACK_DECODER_STREAM_ERROR = 0x202


class MasqueError(Exception):
    """An error with a reach and a wire code. Catch this to catch everything `masque` raises."""

    def __init__(self, detail: str, *, reach: Reach, code: ErrorCode) -> None:
        super().__init__(detail)
        self.detail = detail
        self.reach = reach
        self.code = code


class Malformed(MasqueError):
    """The peer sent bytes that the RFC does not allow."""

    def __init__(
        self, detail: str, *, reach: Reach = Reach.STREAM, code: ErrorCode = ErrorCode.H3_MESSAGE_ERROR
    ) -> None:
        super().__init__(detail, reach=reach, code=code)


class LimitExceeded(MasqueError):
    """The peer sent more than our bound allows, though each byte may be legal."""

    def __init__(
        self, detail: str, *, reach: Reach = Reach.STREAM, code: ErrorCode = ErrorCode.H3_EXCESSIVE_LOAD
    ) -> None:
        super().__init__(detail, reach=reach, code=code)


class RequestRejected(MasqueError):
    """A well-formed request that deserves an HTTP error status rather than a stream reset."""

    def __init__(self, detail: str, *, status: int) -> None:
        super().__init__(detail, reach=Reach.STREAM, code=ErrorCode.H3_NO_ERROR)
        self.status = status


class LocalMisuse(MasqueError):
    """Our own caller asked for something the protocol does not allow now. A bug on this side, not the peer's."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, reach=Reach.STREAM, code=ErrorCode.H3_INTERNAL_ERROR)
