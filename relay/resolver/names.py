"""Host names as targets have them: what may be asked, what is known without asking, and what nobody is asked."""

from __future__ import annotations

import re
from ipaddress import ip_address

import dns.exception
import dns.name

from relay.errors import Failure, FailureKind, RelayError, Side
from relay.resolver.answer import Reading, failed_reading

__all__ = ["canonical_name", "known_reading", "parse_name"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_NEVER_ASKED = frozenset({b"local", b"invalid", b"onion", b"alt"})
"Top-level names that the public DNS does not have: RFC 6762 §3, RFC 6761 §6.4, RFC 7686 §2, RFC 9476 §2."


def canonical_name(name: str) -> str:
    """Return the one spelling that equal names share: lower case, no final dot."""
    return name.lower().removesuffix(".")


def parse_name(name: str) -> dns.name.Name:
    """Turn text into a name.

    Raises:
        RelayError: DNS_ERROR with `NXDOMAIN`: what cannot be a host name does not exist.
    """
    if _NAME.fullmatch(name):
        try:
            return dns.name.from_text(name)
        except dns.exception.DNSException:
            pass
    raise RelayError(Failure(FailureKind.DNS_ERROR, Side.CLIENT, rcode="NXDOMAIN", context="not a host name"))


def known_reading(name: dns.name.Name, *, has_route: bool) -> Reading | None:
    """Return what is known of a name without asking, or None.

    Args:
        name: the name.
        has_route: whether the operator has named upstreams for it; then it is theirs, unless it is `localhost`.
    """
    top = name.labels[-2].lower()
    if top == b"localhost":
        return Reading((ip_address("::1"), ip_address("127.0.0.1")))
    if top in _NEVER_ASKED and not has_route:
        return failed_reading(FailureKind.DNS_ERROR, "NXDOMAIN")
    return None
