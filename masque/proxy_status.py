"""The Proxy-Status field: what a proxy says about how it handled a request (RFC 9209, RFC 9532).

It is a List with one member for each proxy, the one nearest to the target first. What a relay may put into it
is a matter of its privacy rules, not of this module: next hop and details are there for those who want them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from urllib.parse import quote, unquote_to_bytes

import http_sf
from http_sf.types import BareItemType, ParamsType

from masque.errors import LocalMisuse, Malformed

__all__ = ["ProxyErrorType", "ProxyStatus", "encode_proxy_status", "parse_proxy_status"]

_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9:/!#$%&'*+\-.^_`|~]*")


class ProxyErrorType(Enum):
    """The error types of RFC 9209 §2.3; the value is the token on the wire."""

    DNS_TIMEOUT = "dns_timeout"
    DNS_ERROR = "dns_error"
    DESTINATION_NOT_FOUND = "destination_not_found"
    DESTINATION_UNAVAILABLE = "destination_unavailable"
    DESTINATION_IP_PROHIBITED = "destination_ip_prohibited"
    DESTINATION_IP_UNROUTABLE = "destination_ip_unroutable"
    CONNECTION_REFUSED = "connection_refused"
    CONNECTION_TERMINATED = "connection_terminated"
    CONNECTION_TIMEOUT = "connection_timeout"
    CONNECTION_READ_TIMEOUT = "connection_read_timeout"
    CONNECTION_WRITE_TIMEOUT = "connection_write_timeout"
    CONNECTION_LIMIT_REACHED = "connection_limit_reached"
    TLS_PROTOCOL_ERROR = "tls_protocol_error"
    TLS_CERTIFICATE_ERROR = "tls_certificate_error"
    TLS_ALERT_RECEIVED = "tls_alert_received"
    HTTP_REQUEST_ERROR = "http_request_error"
    HTTP_REQUEST_DENIED = "http_request_denied"
    HTTP_RESPONSE_INCOMPLETE = "http_response_incomplete"
    HTTP_RESPONSE_HEADER_SECTION_SIZE = "http_response_header_section_size"
    HTTP_RESPONSE_HEADER_SIZE = "http_response_header_size"
    HTTP_RESPONSE_BODY_SIZE = "http_response_body_size"
    HTTP_RESPONSE_TRAILER_SECTION_SIZE = "http_response_trailer_section_size"
    HTTP_RESPONSE_TRAILER_SIZE = "http_response_trailer_size"
    HTTP_RESPONSE_TRANSFER_CODING = "http_response_transfer_coding"
    HTTP_RESPONSE_CONTENT_CODING = "http_response_content_coding"
    HTTP_RESPONSE_TIMEOUT = "http_response_timeout"
    HTTP_UPGRADE_FAILED = "http_upgrade_failed"
    HTTP_PROTOCOL_ERROR = "http_protocol_error"
    PROXY_INTERNAL_RESPONSE = "proxy_internal_response"
    PROXY_INTERNAL_ERROR = "proxy_internal_error"
    PROXY_CONFIGURATION_ERROR = "proxy_configuration_error"
    PROXY_LOOP_DETECTED = "proxy_loop_detected"

    @property
    def recommended_status(self) -> int:
        """The HTTP status that RFC 9209 §2.3 recommends.

        Two types have none of their own. http_request_error is "the applicable 4xx", here 400.
        proxy_internal_response is "the most appropriate", here 500, so that it is never taken for an open tunnel.
        """
        return _STATUSES.get(self, 502)


_STATUSES = {
    ProxyErrorType.DNS_TIMEOUT: 504,
    ProxyErrorType.DESTINATION_NOT_FOUND: 500,
    ProxyErrorType.DESTINATION_UNAVAILABLE: 503,
    ProxyErrorType.CONNECTION_TIMEOUT: 504,
    ProxyErrorType.CONNECTION_READ_TIMEOUT: 504,
    ProxyErrorType.CONNECTION_WRITE_TIMEOUT: 504,
    ProxyErrorType.CONNECTION_LIMIT_REACHED: 503,
    ProxyErrorType.HTTP_REQUEST_ERROR: 400,
    ProxyErrorType.HTTP_REQUEST_DENIED: 403,
    ProxyErrorType.HTTP_RESPONSE_TIMEOUT: 504,
    ProxyErrorType.PROXY_INTERNAL_RESPONSE: 500,
    ProxyErrorType.PROXY_INTERNAL_ERROR: 500,
    ProxyErrorType.PROXY_CONFIGURATION_ERROR: 500,
}
"The recommended statuses other than 502 Bad Gateway."


_KNOWN = {error.value: error for error in ProxyErrorType}


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """One proxy's member of the list (RFC 9209 §2)."""

    identity: str
    "The service's name; not a host name, unless the operator wants that."
    error: ProxyErrorType | None = None
    "Why the proxy answered itself, or None (RFC 9209 §2.1.1)."
    next_hop: str | None = None
    "What the proxy connected to (RFC 9209 §2.1.2)."
    received_status: int | None = None
    "The status that the next hop answered (RFC 9209 §2.1.4)."
    details: str | None = None
    "Free text (RFC 9209 §2.1.5)."
    rcode: str | None = None
    "The DNS response code, with dns_error only (RFC 9209 §2.3.2)."
    info_code: int | None = None
    "The extended DNS error, with dns_error only (RFC 9209 §2.3.2, RFC 8914)."
    next_hop_aliases: tuple[str, ...] | None = None
    """The names that the next hop's is an alias of, in order; None when they are not told (RFC 9532 §2). A character
    is a byte of the name; a dot inside a label and a backslash have a backslash before them."""
    error_token: str | None = None
    "An error type that `ProxyErrorType` does not have; None whenever `error` is set."


def encode_proxy_status(status: ProxyStatus) -> bytes:
    """Encode one member, which is also a list of one (RFC 9209 §2).

    Args:
        status: what to say. The identity becomes a Token when it can, else a String; next hop is a String.

    Returns:
        A field value.

    Raises:
        LocalMisuse: a text that is not printable ASCII, an error token that is no Token, or a number out of range.
    """
    parameters: ParamsType = {}
    error = status.error.value if status.error is not None else status.error_token
    if error is not None:
        parameters["error"] = http_sf.Token(error)
    aliases = status.next_hop_aliases
    optional: dict[str, str | int | None] = {
        "next-hop": status.next_hop,
        "received-status": status.received_status,
        "details": status.details,
        "rcode": status.rcode,
        "info-code": status.info_code,
        "next-hop-aliases": None if aliases is None else ",".join(map(_encode_alias, aliases)),
    }
    parameters.update({key: value for key, value in optional.items() if value is not None})
    identity = http_sf.Token(status.identity) if _TOKEN.fullmatch(status.identity) else status.identity
    try:
        return http_sf.ser([(identity, parameters)]).encode("ascii")
    except ValueError:
        raise LocalMisuse("a Proxy-Status member that Structured Fields cannot carry") from None


def parse_proxy_status(value: bytes) -> list[ProxyStatus]:
    """Decode the field (RFC 9209 §2).

    Args:
        value: the field's value; values of several field lines joined with commas.

    Returns:
        One for each proxy, the nearest to the target first. Unknown parameters, and known ones of a wrong type,
        are left out.

    Raises:
        Malformed: not a list of Strings and Tokens (reach STREAM, code H3_MESSAGE_ERROR). The field is for
            diagnosis: who reads it may well go on without.
    """
    try:
        members = http_sf.parse(value, tltype="list")
    except http_sf.StructuredFieldError:
        raise Malformed("a Proxy-Status field that is not a list") from None
    statuses: list[ProxyStatus] = []
    for member in members if isinstance(members, list) else ():
        identity, parameters = member if isinstance(member, tuple) else (member, {})
        if not isinstance(identity, str | http_sf.Token):
            raise Malformed("a Proxy-Status member that is neither a String nor a Token")
        statuses.append(_read_member(str(identity), parameters))
    return statuses


def _read_member(identity: str, parameters: ParamsType) -> ProxyStatus:
    """Read the parameters of a member (RFC 9209 §2.1).

    An error is a Token, but some proxies quote it: a String that could be a Token is taken too.
    """
    error = _text(parameters.get("error"))
    if error is not None and not _TOKEN.fullmatch(error):
        error = None
    known = _KNOWN.get(error) if error is not None else None
    return ProxyStatus(
        identity,
        known,
        next_hop=_text(parameters.get("next-hop")),
        received_status=_number(parameters.get("received-status")),
        details=_text(parameters.get("details")),
        rcode=_text(parameters.get("rcode")),
        info_code=_number(parameters.get("info-code")),
        next_hop_aliases=_aliases(_text(parameters.get("next-hop-aliases"))),
        error_token=error if known is None else None,
    )


def _encode_alias(name: str) -> str:
    """Percent-encode what is not unreserved in a URI (RFC 9532 §2.1)."""
    try:
        return quote(name.encode("latin-1"), safe="")
    except UnicodeEncodeError:
        raise LocalMisuse("an alias that is no DNS name") from None


def _aliases(text: str | None) -> tuple[str, ...] | None:
    """Split the list of aliases; the empty string says that there are none."""
    if text is None:
        return None
    return tuple(unquote_to_bytes(name).decode("latin-1") for name in text.split(",")) if text else ()


def _text(value: BareItemType | None) -> str | None:
    """Return a String's or a Token's text, else None."""
    return str(value) if isinstance(value, str | http_sf.Token) else None


def _number(value: BareItemType | None) -> int | None:
    """Return an Integer, else None. A Boolean is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
