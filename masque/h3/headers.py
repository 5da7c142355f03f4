"""From field lines to heads and back: what makes an HTTP/3 message well-formed (RFC 9114 §4.1.2 to §4.4).

Extended CONNECT follows RFC 9220 §3 and RFC 8441 §4. Every rule broken by a peer is `Malformed` with the reach
STREAM: the stream is reset with H3_MESSAGE_ERROR and the connection lives on. Details never quote a field.
"""

from __future__ import annotations

import re

from masque.errors import LimitExceeded, LocalMisuse, Malformed
from masque.h3.limits import H3Limits
from masque.h3.qpack import FieldLines
from masque.head import Fields, RequestHead, ResponseHead

__all__ = [
    "check_section_size",
    "encode_request",
    "encode_response",
    "parse_content_length",
    "parse_request",
    "parse_response",
    "parse_trailers",
]

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
"A token (RFC 9110 §5.6.2) without upper case (RFC 9114 §4.2)."
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
"No control characters but a tab inside, no whitespace at either end (RFC 9110 §5.5)."
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"`:method` and `:protocol`."
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*")
"`:scheme` (RFC 3986 §3.1)."
_VISIBLE = re.compile(rb"[\x21-\x7e]+")
"`:authority` and `:path`: not empty, visible ASCII only."
_STATUS = re.compile(rb"[1-5][0-9][0-9]")
"`:status` (RFC 9110 §15)."
_LENGTH = re.compile(rb"[0-9]{1,18}")
"A content-length that could ever be reached."

_REQUEST_PSEUDO = {
    b":method": _TOKEN,
    b":scheme": _SCHEME,
    b":authority": _VISIBLE,
    b":path": _VISIBLE,
    b":protocol": _TOKEN,
}
_RESPONSE_PSEUDO = {b":status": _STATUS}
_CONNECTION_SPECIFIC = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
"Fields that only HTTP/1.1 may carry (RFC 9114 §4.2)."
_LINE_OVERHEAD = 32
"What each field line counts beyond its bytes (RFC 9114 §4.2.2)."


def check_section_size(lines: FieldLines, limits: H3Limits) -> None:
    """Hold a decoded section to our bounds (RFC 9114 §4.2.2).

    Args:
        lines: the field lines.
        limits: gives the bytes and the lines.

    Raises:
        LimitExceeded: the section is too large (STREAM).
    """
    size = sum(len(name) + len(value) + _LINE_OVERHEAD for name, value in lines)
    if size > limits.field_section or len(lines) > limits.fields:
        raise LimitExceeded("a field section above the limit")


def parse_request(lines: FieldLines) -> RequestHead:
    """Make a request's head from its field lines (RFC 9114 §4.3.1, §4.4; RFC 9220 §3).

    Args:
        lines: the header section.

    Returns:
        The head.

    Raises:
        Malformed: the section breaks a rule (STREAM, H3_MESSAGE_ERROR).
    """
    pseudo, fields = _split(lines, _REQUEST_PSEUDO)
    method = pseudo.get(b":method")
    if method is None:
        raise Malformed("a request without :method")
    head = RequestHead(
        method=method,
        authority=pseudo.get(b":authority"),
        scheme=pseudo.get(b":scheme"),
        path=pseudo.get(b":path"),
        protocol=pseudo.get(b":protocol"),
        fields=fields,
    )
    if method != b"CONNECT":
        _check_plain(head)
    elif head.protocol is None:
        _check_connect(head)
    else:
        _check_extended(head)
    return head


def parse_response(lines: FieldLines) -> ResponseHead:
    """Make a response's head from its field lines (RFC 9114 §4.3.2, §4.5).

    Args:
        lines: the header section.

    Returns:
        The head.

    Raises:
        Malformed: the section breaks a rule (STREAM, H3_MESSAGE_ERROR).
    """
    pseudo, fields = _split(lines, _RESPONSE_PSEUDO)
    if b":status" not in pseudo:
        raise Malformed("a response without :status")
    status = int(pseudo[b":status"])
    if status == 101:
        raise Malformed("a status that HTTP/3 does not have")
    return ResponseHead(status=status, fields=fields)


def parse_trailers(lines: FieldLines) -> Fields:
    """Check a trailer section (RFC 9114 §4.3: no pseudo-header fields).

    Args:
        lines: the trailer section.

    Returns:
        The fields.

    Raises:
        Malformed: the section breaks a rule (STREAM, H3_MESSAGE_ERROR).
    """
    return _split(lines, {})[1]


def parse_content_length(fields: Fields) -> int | None:
    """Read the announced length of the content (RFC 9110 §8.6, RFC 9114 §4.1.2).

    Args:
        fields: a head's fields.

    Returns:
        The length, or None when there is none. Lines that repeat the same value count as one.

    Raises:
        Malformed: a line is not a length, or two differ (STREAM, H3_MESSAGE_ERROR).
    """
    values = {value for name, value in fields if name == b"content-length"}
    if not values:
        return None
    value = values.pop()
    if values or not _LENGTH.fullmatch(value):
        raise Malformed("a content-length that is not one number")
    return int(value)


def encode_request(head: RequestHead) -> FieldLines:
    """Write a request's head as field lines, held to the rules that we hold a peer to.

    Args:
        head: the head.

    Returns:
        The field lines, pseudo-header fields first.

    Raises:
        LocalMisuse: a peer would find the head malformed.
    """
    pseudo = (
        (b":method", head.method),
        (b":protocol", head.protocol),
        (b":scheme", head.scheme),
        (b":authority", head.authority),
        (b":path", head.path),
    )
    lines = [(name, value) for name, value in pseudo if value is not None]
    lines += head.fields
    try:
        parse_request(lines)
    except Malformed as error:
        raise LocalMisuse(error.detail) from error
    return lines


def encode_response(head: ResponseHead) -> FieldLines:
    """Write a response's head as field lines, held to the rules that we hold a peer to.

    Args:
        head: the head.

    Returns:
        The field lines, `:status` first.

    Raises:
        LocalMisuse: a peer would find the head malformed.
    """
    lines = [(b":status", b"%d" % head.status), *head.fields]
    try:
        parse_response(lines)
    except Malformed as error:
        raise LocalMisuse(error.detail) from error
    return lines


def _split(lines: FieldLines, allowed: dict[bytes, re.Pattern[bytes]]) -> tuple[dict[bytes, bytes], Fields]:
    """Part pseudo-header fields from the others and check each line by itself (RFC 9114 §4.2, §4.3)."""
    pseudo: dict[bytes, bytes] = {}
    fields: list[tuple[bytes, bytes]] = []
    for name, value in lines:
        if name[:1] == b":":
            pattern = allowed.get(name)
            if pattern is None or fields or name in pseudo:
                raise Malformed("a pseudo-header field unknown, repeated or out of place")
            if not pattern.fullmatch(value):
                raise Malformed("a pseudo-header field with a value that is not allowed")
            pseudo[name] = value
            continue
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise Malformed("a field with a character that is not allowed")
        if name in _CONNECTION_SPECIFIC or (name == b"te" and value.lower() != b"trailers"):
            raise Malformed("a connection-specific field")
        fields.append((name, value))
    return pseudo, tuple(fields)


def _check_plain(head: RequestHead) -> None:
    """Check a request that is no CONNECT (RFC 9114 §4.3.1; RFC 8441 §4: `:protocol` is for CONNECT only)."""
    if head.protocol is not None:
        raise Malformed("a :protocol without CONNECT")
    if head.scheme is None or head.path is None:
        raise Malformed("a request without :scheme or :path")
    _check_authority(head, head.scheme)


def _check_connect(head: RequestHead) -> None:
    """Check a classic CONNECT: `:authority` alone (RFC 9114 §4.4)."""
    if head.authority is None or head.scheme is not None or head.path is not None:
        raise Malformed("a CONNECT with other than :method and :authority")


def _check_extended(head: RequestHead) -> None:
    """Check an extended CONNECT: all of a plain request's pseudo-header fields (RFC 8441 §4, RFC 9298 §3.4)."""
    if head.scheme is None or head.path is None or head.authority is None:
        raise Malformed("an extended CONNECT without :scheme, :path or :authority")
    _check_authority(head, head.scheme)


def _check_authority(head: RequestHead, scheme: bytes) -> None:
    """Check the authority of http and https: there, one, without user information (RFC 9114 §4.3.1)."""
    if scheme.lower() not in (b"http", b"https"):
        return
    hosts = [value for name, value in head.fields if name == b"host"]
    authority = head.authority if head.authority is not None else b"".join(hosts[:1])
    if not authority or b"@" in authority or any(host.lower() != authority.lower() for host in hosts):
        raise Malformed("an authority that is missing, double or carries user information")
