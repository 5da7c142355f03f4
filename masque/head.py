"""The heads of a request and of a response, as every HTTP version here carries them (RFC 9114 §4.3).

A head is validated when it exists: `masque.h3.headers` makes it from a field section or raises. It never
holds pseudo-header fields among `fields`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Fields", "RequestHead", "ResponseHead"]

Fields = tuple[tuple[bytes, bytes], ...]
"Field lines in the order of the wire; names in lower case, no pseudo-header fields."


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request's head. Absent pseudo-header fields are None."""

    method: bytes
    "`:method`"
    authority: bytes | None = None
    "`:authority`, or None. For classic CONNECT the target, else the relay as the client names it."
    scheme: bytes | None = None
    "`:scheme`; None for classic CONNECT."
    path: bytes | None = None
    "`:path`; None for classic CONNECT."
    protocol: bytes | None = None
    "`:protocol` of an extended CONNECT (RFC 9220), else None."
    fields: Fields = ()
    "All other field lines."


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """A response's head. `status` is three digits as a number; 1xx is interim."""

    status: int
    "`:status`"
    fields: Fields = ()
    "All other field lines."
