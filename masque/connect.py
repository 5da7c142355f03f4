"""Classic CONNECT: a tunnel of bytes to a TCP target (RFC 9110 §9.3.6, RFC 9114 §4.4).

The request has `:method` and `:authority` only; after a 2xx, DATA frames carry the bytes. Content-Length and
Transfer-Encoding mean nothing in it, either way, and are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass

from masque.errors import RequestRejected
from masque.head import Fields, RequestHead, ResponseHead
from masque.target import Target, build_target, encode_authority, parse_authority

__all__ = ["ConnectRequest", "check_connect_response", "connect_head", "parse_connect"]


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """A request for a TCP tunnel."""

    target: Target
    "Where the tunnel goes."
    fields: Fields = ()
    "The request's field lines."


def parse_connect(head: RequestHead) -> ConnectRequest:
    """Read a classic CONNECT request (RFC 9110 §9.3.6, RFC 9114 §4.4).

    Args:
        head: a request head with `:method` CONNECT and no `:protocol`.

    Returns:
        The request.

    Raises:
        RequestRejected: another method (status 405), another kind of CONNECT, or no valid target (status 400).
    """
    if head.method != b"CONNECT":
        raise RequestRejected("a method other than CONNECT", status=405)
    if head.protocol is not None or head.scheme is not None or head.path is not None:
        raise RequestRejected("a classic CONNECT with a protocol, scheme or path", status=400)
    if head.authority is None:
        raise RequestRejected("a CONNECT without a target", status=400)
    return ConnectRequest(parse_authority(head.authority), head.fields)


def connect_head(host: str, port: int, fields: Fields = ()) -> RequestHead:
    """Make a classic CONNECT request, as a client (RFC 9114 §4.4).

    Args:
        host: the target's name, or its address without brackets.
        port: the target's port.
        fields: field lines to send, such as credentials.

    Returns:
        A request head. Send no content with it; bytes for the target may follow.

    Raises:
        LocalMisuse: the host or the port is not valid.
    """
    return RequestHead(b"CONNECT", authority=encode_authority(build_target(host, port)), fields=fields)


def check_connect_response(head: ResponseHead) -> None:
    """Check that a final response opened the tunnel, as a client (RFC 9110 §9.3.6).

    Args:
        head: the final response's head; not an interim one.

    Raises:
        RequestRejected: the status is not 2xx (status: the one received).
    """
    if not 200 <= head.status <= 299:
        raise RequestRejected("the relay refused the tunnel", status=head.status)
