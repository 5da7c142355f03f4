"""What went wrong with an exchange: one kind, one side, and nothing that names a client or a target.

The kinds carry the error type names of RFC 9209 §2.3, and a few of our own. `relay.outcome` alone turns a
kind into a status, a wire code or a metric label. No text form of anything here holds an address, a name
or a credential: `repr` and `str` show enums and numbers only.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Failure", "FailureKind", "RelayError", "Remark", "Side", "failure_from_os_error"]


class Side(StrEnum):
    """Whose doing a failure is."""

    CLIENT = "client"
    "The client, or the path to it."
    TARGET = "target"
    "The target, its names, or the path to it."
    RELAY = "relay"
    "The relay itself: its settings, its limits, its faults."


class FailureKind(StrEnum):
    """The kinds of failure: the error types of RFC 9209 §2.3 that the relay uses, then our own."""

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
    HTTP_REQUEST_ERROR = "http_request_error"
    HTTP_REQUEST_DENIED = "http_request_denied"
    PROXY_INTERNAL_ERROR = "proxy_internal_error"
    PROXY_CONFIGURATION_ERROR = "proxy_configuration_error"

    AUTHENTICATION_REQUIRED = "authentication_required"
    "No acceptable credentials came with the request (RFC 9110 §15.5.8)."
    AUTHENTICATION_UNAVAILABLE = "authentication_unavailable"
    "The credentials cannot be checked or recorded just now; they may be good (RFC 9110 §15.6.4)."
    RATE_LIMITED = "rate_limited"
    "The client asks for more than its share just now (RFC 6585 §4)."
    CLIENT_ABORTED = "client_aborted"
    "The client reset the stream or closed the connection."
    RELAY_DRAINING = "relay_draining"
    "The relay is about to stop and takes nothing new."
    TUNNEL_IDLE = "tunnel_idle"
    "Nothing passed through the tunnel for its idle time."
    LOCATION_UNAVAILABLE = "location_unavailable"
    "The relay has no egress address where the client asks to be."


class Remark(StrEnum):
    """What a client is told beside an error type, in `details` of Proxy-Status (RFC 9209 §2.1.5)."""

    LOCATION_INVALID = "location_invalid"
    "The location hint cannot be read."
    LOCATION_UNAVAILABLE = "location_unavailable"
    "No egress address is in the country asked for."
    LOCATION_COARSER = "location_coarser"
    "The egress address is in the country asked for, and not in the place."
    LOCATION_ELSEWHERE = "location_elsewhere"
    "The egress address is in another country than the one asked for."
    EGRESS_UNAVAILABLE = "egress_unavailable"
    "No egress address of the place can be used just now."


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an exchange was refused or a tunnel ended, in terms of enums."""

    kind: FailureKind
    "What went wrong."
    side: Side
    "Whose doing it is."
    status: int | None = None
    "An HTTP status more exact than the kind's own, such as 400 or 405 of a rejected request."
    rcode: str | None = None
    "The DNS response code's name, or `NODATA` (RFC 9209 §2.3.2)."
    info_code: int | None = None
    "The extended DNS error code (RFC 8914), as RFC 9209 §2.3.2 passes it on."
    challenges: tuple[bytes, ...] = ()
    "`Proxy-Authenticate` values of a 407 (RFC 9110 §11.7.1)."
    remark: Remark | None = None
    "What else the client is told."
    retry_after: int | None = None
    "Seconds after which a RATE_LIMITED client may come again (RFC 9110 §10.2.3); None leaves it to `relay.outcome`."
    cause: BaseException | None = field(default=None, repr=False, compare=False)
    "The exception behind it. For debuggers; its text may name a target, so it is never shown."
    context: str = field(default="", repr=False, compare=False)
    "Fixed words of our own code on where it happened. Never a value that a peer sent."


class RelayError(Exception):
    """A failure on its way up to the one place that answers for it. Its text is the kind's name only."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.kind.value)
        self.failure = failure


_UNROUTABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EAFNOSUPPORT})
_TERMINATED = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ENOTCONN, errno.ESHUTDOWN})
_EXHAUSTED = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.EAGAIN}
)


def failure_from_os_error(exc: OSError) -> Failure:
    """Name the failure behind an error of a socket towards a target (RFC 9209 §2.3).

    EADDRNOTAVAIL and EADDRINUSE on a connecting socket mean that no source port is left, EAGAIN that a
    routing or port table is full: limits of the relay, like a lack of file descriptors.

    Args:
        exc: the operating system's error; its text is dropped, since it may hold an address.

    Returns:
        A failure of side TARGET for what the network said, of side RELAY for our own limits and faults.
    """
    number = exc.errno
    if number == errno.ECONNREFUSED:
        return Failure(FailureKind.CONNECTION_REFUSED, Side.TARGET, cause=exc)
    if number == errno.ETIMEDOUT or isinstance(exc, TimeoutError):
        return Failure(FailureKind.CONNECTION_TIMEOUT, Side.TARGET, cause=exc)
    if number in _UNROUTABLE:
        return Failure(FailureKind.DESTINATION_IP_UNROUTABLE, Side.TARGET, cause=exc)
    if number in _TERMINATED:
        return Failure(FailureKind.CONNECTION_TERMINATED, Side.TARGET, cause=exc)
    if number in {errno.EACCES, errno.EPERM}:
        return Failure(FailureKind.DESTINATION_IP_PROHIBITED, Side.RELAY, cause=exc)
    if number in _EXHAUSTED:
        return Failure(FailureKind.CONNECTION_LIMIT_REACHED, Side.RELAY, cause=exc)
    return Failure(FailureKind.PROXY_INTERNAL_ERROR, Side.RELAY, cause=exc)
