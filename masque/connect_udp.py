"""CONNECT-UDP: a tunnel of UDP payloads to one target (RFC 9298).

An extended CONNECT whose path, by a URI Template, names the target. The stream carries capsules
(`masque.capsule`); payloads go in HTTP Datagrams (`masque.datagram`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from masque.errors import LocalMisuse, Malformed, RequestRejected
from masque.fields import CAPSULE_PROTOCOL_TRUE, get_fields, has_content_fields
from masque.head import Fields, RequestHead, ResponseHead
from masque.target import Target, build_target, parse_target
from masque.template import Template

__all__ = [
    "CONNECT_UDP",
    "ConnectUdpRequest",
    "check_connect_udp_response",
    "connect_udp_head",
    "connect_udp_response_fields",
    "parse_connect_udp",
]

CONNECT_UDP = b"connect-udp"
"The value of `:protocol` (RFC 9298 §8.1)."

_STATUSES_WITHOUT_CAPSULES = frozenset({204, 205, 206})
"Successful, but forbidden with the Capsule Protocol (RFC 9297 §3.2)."


@dataclass(frozen=True, slots=True)
class ConnectUdpRequest:
    """A request for a UDP tunnel."""

    target: Target
    "Where the tunnel goes."
    fields: Fields = ()
    "The request's field lines. Capsule-Protocol may be missing: clients should send it, and some do not."


def parse_connect_udp(head: RequestHead, templates: Sequence[Template]) -> ConnectUdpRequest:
    """Read a CONNECT-UDP request (RFC 9298 §3.1, §3.4).

    The authority is not compared with anything: clients name the relay in many ways.

    Args:
        head: a request head with `:method` CONNECT and `:protocol` connect-udp.
        templates: the templates served, with variables target_host and target_port; the first that fits is taken.

    Returns:
        The request.

    Raises:
        RequestRejected: another method (status 405), another protocol (status 501), no template fits (status 404);
            no scheme, path or authority, a field that the Capsule Protocol forbids (RFC 9297 §3.2), or no valid
            target (status 400).
    """
    if head.method != b"CONNECT":
        raise RequestRejected("a method other than CONNECT", status=405)
    if head.protocol is None or head.protocol.lower() != CONNECT_UDP:
        raise RequestRejected("a protocol other than connect-udp", status=501)
    if not head.scheme or not head.path or not head.authority:
        raise RequestRejected("a connect-udp request without scheme, path or authority", status=400)
    if has_content_fields(head.fields):
        raise RequestRejected("a connect-udp request with fields of content", status=400)
    for template in templates:
        values = template.match(head.path)
        if values is not None:
            return ConnectUdpRequest(parse_target(values["target_host"], values["target_port"]), head.fields)
    raise RequestRejected("a path that no template fits", status=404)


def connect_udp_head(template: Template, authority: bytes, host: str, port: int, fields: Fields = ()) -> RequestHead:
    """Make a CONNECT-UDP request, as a client (RFC 9298 §3.4).

    Args:
        template: the relay's template; its only variables are target_host and target_port.
        authority: the relay's, for `:authority`.
        host: the target's name, or its address without brackets.
        port: the target's port.
        fields: field lines to send, such as credentials. Capsule-Protocol is added.

    Returns:
        A request head. Send no content with it; capsules may follow.

    Raises:
        LocalMisuse: the host or the port is not valid, the template has other variables, the authority is empty,
            or the fields hold Capsule-Protocol or what it forbids.
    """
    if not authority or has_content_fields(fields) or get_fields(fields, CAPSULE_PROTOCOL_TRUE[0]):
        raise LocalMisuse("a connect-udp request that the peer could not accept")
    target = build_target(host, port)
    path = template.expand(target_host=target.host, target_port=str(target.port))
    return RequestHead(
        b"CONNECT",
        authority=authority,
        scheme=b"https",
        path=path.encode("ascii"),
        protocol=CONNECT_UDP,
        fields=(CAPSULE_PROTOCOL_TRUE, *fields),
    )


def check_connect_udp_response(head: ResponseHead) -> None:
    """Check that a final response opened the tunnel, as a client (RFC 9298 §3.5, RFC 9297 §3.2).

    Args:
        head: the final response's head; not an interim one.

    Raises:
        RequestRejected: the status is not 2xx (status: the one received).
        Malformed: a 2xx that the Capsule Protocol forbids: status 204, 205 or 206, or a field of content (reach
            STREAM, code H3_MESSAGE_ERROR).
    """
    if not 200 <= head.status <= 299:
        raise RequestRejected("the relay refused the tunnel", status=head.status)
    if head.status in _STATUSES_WITHOUT_CAPSULES or has_content_fields(head.fields):
        raise Malformed("a successful connect-udp response that excludes capsules")


def connect_udp_response_fields() -> Fields:
    """List the field lines of a successful CONNECT-UDP response (RFC 9298 §3.5, RFC 9297 §3.4).

    Returns:
        Capsule-Protocol alone. It must not be sent with a status other than 2xx.
    """
    return (CAPSULE_PROTOCOL_TRUE,)
