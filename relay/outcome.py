"""The one place that says how an exchange's end looks from outside.

`Outcome` is how an exchange ended. The functions here are total over `FailureKind` and map it to an HTTP
status (RFC 9110 §15), an HTTP/3 code (RFC 9114 §8.1), a `Proxy-Status` member (RFC 9209) and a metric
label. Nothing but enums' names, a DNS code, the aliases of the name that the client asked for and the configured
identity ever reaches the wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from masque.errors import ErrorCode
from masque.head import Fields
from masque.proxy_status import ProxyErrorType, ProxyStatus, encode_proxy_status
from relay.errors import Failure, FailureKind, Remark, Side

__all__ = [
    "Ending",
    "Outcome",
    "accepted_fields",
    "h3_code",
    "http_status",
    "metric_label",
    "proxy_error",
    "proxy_status",
    "response_fields",
]

RETRY_AFTER = 5
"Seconds in `Retry-After` where nothing better is known. The same for all, so that it tells nothing of the load."


_ALIAS_ROOM = 2048
"Characters of aliases that a response carries at most; an owner of names chooses how long they are."


class Ending(StrEnum):
    """Labels of the outcomes that are no failure."""

    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an exchange ended."""

    failure: Failure | None = None
    "What ended it, or None when both sides closed in the ordinary way."

    @classmethod
    def closed(cls) -> Outcome:
        """Return the outcome of a tunnel that both sides closed."""
        return cls(None)

    @classmethod
    def failed(cls, kind: FailureKind, side: Side) -> Outcome:
        """Return the outcome of a failure that has nothing to add to its kind and side."""
        return cls(Failure(kind, side))


def http_status(failure: Failure) -> int:
    """Return the status that refuses an exchange (RFC 9209 §2.3, RFC 9110 §15).

    Args:
        failure: why it is refused; its own `status` goes before its kind's.
    """
    return _status_of(failure.kind) if failure.status is None else failure.status


def _status_of(kind: FailureKind) -> int:
    match kind:
        case FailureKind.HTTP_REQUEST_ERROR:
            return 400
        case FailureKind.HTTP_REQUEST_DENIED:
            return 403
        case FailureKind.AUTHENTICATION_REQUIRED:
            return 407
        case FailureKind.RATE_LIMITED:
            return 429
        case (
            FailureKind.DESTINATION_NOT_FOUND
            | FailureKind.PROXY_INTERNAL_ERROR
            | FailureKind.PROXY_CONFIGURATION_ERROR
            | FailureKind.CLIENT_ABORTED
        ):
            return 500
        case (
            FailureKind.DNS_ERROR
            | FailureKind.DESTINATION_IP_PROHIBITED
            | FailureKind.DESTINATION_IP_UNROUTABLE
            | FailureKind.CONNECTION_REFUSED
            | FailureKind.CONNECTION_TERMINATED
        ):
            return 502
        case (
            FailureKind.DESTINATION_UNAVAILABLE
            | FailureKind.CONNECTION_LIMIT_REACHED
            | FailureKind.RELAY_DRAINING
            | FailureKind.AUTHENTICATION_UNAVAILABLE
        ):
            return 503
        case FailureKind.LOCATION_UNAVAILABLE:
            return 503
        case (
            FailureKind.DNS_TIMEOUT
            | FailureKind.CONNECTION_TIMEOUT
            | FailureKind.CONNECTION_READ_TIMEOUT
            | FailureKind.CONNECTION_WRITE_TIMEOUT
            | FailureKind.TUNNEL_IDLE
        ):
            return 504
        case _:
            assert_never(kind)


def h3_code(failure: Failure) -> ErrorCode:
    """Return the code that resets the stream of a tunnel already answered (RFC 9114 §4.4, §8.1).

    A target that resets or cannot be reached any more is H3_CONNECT_ERROR, as RFC 9114 §4.4 wants it for a
    TCP reset. Time-outs of ours and a drain are no error of anyone.
    """
    kind = failure.kind
    match kind:
        case FailureKind.TUNNEL_IDLE | FailureKind.RELAY_DRAINING:
            return ErrorCode.H3_NO_ERROR
        case FailureKind.CLIENT_ABORTED:
            return ErrorCode.H3_REQUEST_CANCELLED
        case FailureKind.HTTP_REQUEST_ERROR:
            return ErrorCode.H3_MESSAGE_ERROR
        case FailureKind.HTTP_REQUEST_DENIED | FailureKind.AUTHENTICATION_REQUIRED:
            return ErrorCode.H3_REQUEST_CANCELLED
        case FailureKind.RATE_LIMITED | FailureKind.AUTHENTICATION_UNAVAILABLE:
            return ErrorCode.H3_EXCESSIVE_LOAD
        case FailureKind.PROXY_INTERNAL_ERROR | FailureKind.PROXY_CONFIGURATION_ERROR:
            return ErrorCode.H3_INTERNAL_ERROR
        case (
            FailureKind.DNS_TIMEOUT
            | FailureKind.DNS_ERROR
            | FailureKind.DESTINATION_NOT_FOUND
            | FailureKind.DESTINATION_UNAVAILABLE
            | FailureKind.DESTINATION_IP_PROHIBITED
            | FailureKind.DESTINATION_IP_UNROUTABLE
            | FailureKind.CONNECTION_REFUSED
            | FailureKind.CONNECTION_TERMINATED
            | FailureKind.CONNECTION_TIMEOUT
            | FailureKind.CONNECTION_READ_TIMEOUT
            | FailureKind.CONNECTION_WRITE_TIMEOUT
            | FailureKind.CONNECTION_LIMIT_REACHED
            | FailureKind.LOCATION_UNAVAILABLE
        ):
            return ErrorCode.H3_CONNECT_ERROR
        case _:
            assert_never(kind)


def proxy_error(kind: FailureKind) -> ProxyErrorType | None:
    """Return the RFC 9209 §2.3 error type of a kind, or None where the RFC has no word for it."""
    match kind:
        case FailureKind.AUTHENTICATION_REQUIRED:
            return ProxyErrorType.HTTP_REQUEST_DENIED
        case FailureKind.RATE_LIMITED:
            return ProxyErrorType.HTTP_REQUEST_ERROR
        case FailureKind.AUTHENTICATION_UNAVAILABLE:
            return ProxyErrorType.PROXY_INTERNAL_ERROR
        case FailureKind.LOCATION_UNAVAILABLE:
            return ProxyErrorType.PROXY_CONFIGURATION_ERROR
        case FailureKind.CLIENT_ABORTED | FailureKind.RELAY_DRAINING | FailureKind.TUNNEL_IDLE:
            return None
        case (
            FailureKind.DNS_TIMEOUT
            | FailureKind.DNS_ERROR
            | FailureKind.DESTINATION_NOT_FOUND
            | FailureKind.DESTINATION_UNAVAILABLE
            | FailureKind.DESTINATION_IP_PROHIBITED
            | FailureKind.DESTINATION_IP_UNROUTABLE
            | FailureKind.CONNECTION_REFUSED
            | FailureKind.CONNECTION_TERMINATED
            | FailureKind.CONNECTION_TIMEOUT
            | FailureKind.CONNECTION_READ_TIMEOUT
            | FailureKind.CONNECTION_WRITE_TIMEOUT
            | FailureKind.CONNECTION_LIMIT_REACHED
            | FailureKind.HTTP_REQUEST_ERROR
            | FailureKind.HTTP_REQUEST_DENIED
            | FailureKind.PROXY_INTERNAL_ERROR
            | FailureKind.PROXY_CONFIGURATION_ERROR
        ):
            return ProxyErrorType[kind.name]
        case _:
            assert_never(kind)


def proxy_status(failure: Failure, identity: str, aliases: tuple[str, ...] = ()) -> bytes | None:
    """Return the `Proxy-Status` value of a failure: one member, its error type, DNS codes (RFC 9209 §2).

    Args:
        failure: what went wrong.
        identity: the member's name, from `settings.identity`.
        aliases: of the target's name, where it was resolved.

    Returns:
        The field value, or None for a failure that RFC 9209 has no error type for.
    """
    error = proxy_error(failure.kind)
    if error is None:
        return None
    is_dns = failure.kind is FailureKind.DNS_ERROR
    return encode_proxy_status(
        ProxyStatus(
            identity=identity,
            error=error,
            rcode=failure.rcode if is_dns else None,
            info_code=failure.info_code if is_dns else None,
            details=None if failure.remark is None else failure.remark.value,
            next_hop_aliases=_tellable(aliases) or None,
        )
    )


def accepted_fields(identity: str, aliases: tuple[str, ...], remark: Remark | None = None) -> Fields:
    """Return what a 200 has besides its protocol's own fields: Proxy-Status where there is something to say.

    Aliases (RFC 9532 §2) go to the client that asked for the name, and nowhere else.

    Args:
        identity: the relay's name in `Proxy-Status`.
        aliases: the names that the target's name is an alias of.
        remark: what the client should know of how it is served.
    """
    told = _tellable(aliases)
    if not told and remark is None:
        return ()
    details = None if remark is None else remark.value
    return (
        (b"proxy-status", encode_proxy_status(ProxyStatus(identity, details=details, next_hop_aliases=told or None))),
    )


def _tellable(aliases: tuple[str, ...]) -> tuple[str, ...]:
    """Return the first aliases that are names and leave room; the list may be incomplete (RFC 9532 §3)."""
    told: list[str] = []
    room = _ALIAS_ROOM
    for name in aliases:
        room -= len(name)
        if room < 0 or not name or not all(ord(character) < 256 for character in name):
            break
        told.append(name)
    return tuple(told)


def metric_label(outcome: Outcome) -> StrEnum:
    """Return the label that metrics and logs know an outcome by. It is a string, and one of two enums."""
    return Ending.CLOSED if outcome.failure is None else outcome.failure.kind


def response_fields(failure: Failure, identity: str, aliases: tuple[str, ...] = ()) -> Fields:
    """Return the fields of the response that refuses an exchange.

    `Proxy-Status` where there is an error type, `Proxy-Authenticate` once for each challenge of a 407
    (RFC 9110 §11.7.1), `Allow` for a 405 (§15.5.6), `Retry-After` for a 429, for a relay that drains, and for one
    that cannot check credentials (§10.2.3).

    Args:
        failure: why the exchange is refused.
        identity: the relay's name in `Proxy-Status`.
        aliases: of the target's name, where it was resolved (RFC 9532 §2).
    """
    fields: list[tuple[bytes, bytes]] = []
    member = proxy_status(failure, identity, aliases)
    if member is not None:
        fields.append((b"proxy-status", member))
    status = http_status(failure)
    if status == 405:
        fields.append((b"allow", b"CONNECT"))
    if status == 407:
        fields.extend((b"proxy-authenticate", challenge) for challenge in failure.challenges)
    if status == 429 or failure.kind in (FailureKind.RELAY_DRAINING, FailureKind.AUTHENTICATION_UNAVAILABLE):
        seconds = RETRY_AFTER if failure.retry_after is None else failure.retry_after
        fields.append((b"retry-after", b"%d" % seconds))
    return tuple(fields)
