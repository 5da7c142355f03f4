"""Where a tunnel goes: a host and a port, checked (RFC 9110 §9.3.6, RFC 9298 §3, RFC 3986 §3.2.2).

CONNECT names its target in `:authority`, CONNECT-UDP in its path; both end here. The check is strict where a
lax one would let the resolver or the socket see another address than policy saw: IPv4 is four decimal numbers
and nothing else, and a name that ends in a number is refused, since some resolvers take `127.1`, `0x7f.1` or
`2130706433` for an address. IPv4-mapped IPv6 is kept as given: policy judges it. Nothing is resolved here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from masque.errors import LocalMisuse, RequestRejected

__all__ = [
    "IPAddress",
    "Target",
    "build_target",
    "encode_authority",
    "parse_authority",
    "parse_host",
    "parse_port",
    "parse_target",
]

IPAddress = IPv4Address | IPv6Address
"An address of either family."

_LONGEST_NAME = 253
"Characters of a domain name without its final dot (RFC 1035 §2.3.4)."
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
"A label in lower case; underscores occur in names that resolve, though not in host names proper."
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"A last label that a resolver might take for part of an IPv4 address."
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Target:
    """A checked target. Make it with `parse_target`, `parse_authority` or `build_target`."""

    host: str
    "A name in lower case without a final dot, or the canonical text of an address, without brackets."
    port: int
    "1 to 65535."
    address: IPAddress | None = None
    "The address when the host is an IP literal; None when it is a name."


def parse_host(text: str) -> tuple[str, IPAddress | None]:
    """Check a host: an IPv4 or IPv6 literal without brackets, or a name (RFC 9298 §3, RFC 3986 §3.2.2).

    Args:
        text: the host, percent-decoded.

    Returns:
        The host as `Target` keeps it, and the address when it is a literal.

    Raises:
        RequestRejected: not a host that we can mean only one way (status 400): empty, too long, an empty or
            overlong label, a character that names do not have, a percent sign (zone id or escape), a name that
            ends in a number.
    """
    if ":" in text:
        return _parse_ipv6(text)
    try:
        address = IPv4Address(text)
    except ValueError:
        return _parse_name(text), None
    return str(address), address


def parse_port(text: str) -> int:
    """Check a port (RFC 9110 §9.3.6, RFC 9298 §3).

    Args:
        text: one to five decimal digits.

    Returns:
        1 to 65535.

    Raises:
        RequestRejected: anything else (status 400).
    """
    port = int(text) if _PORT.fullmatch(text) else 0
    if not 1 <= port <= 65535:
        raise RequestRejected("a port that is not 1 to 65535", status=400)
    return port


def parse_target(host: str, port: str) -> Target:
    """Check a host and a port given apart, as in a path (RFC 9298 §3).

    Args:
        host: percent-decoded; IPv6 without brackets.
        port: decimal digits.

    Returns:
        The target.

    Raises:
        RequestRejected: the host or the port is not valid (status 400).
    """
    name, address = parse_host(host)
    return Target(name, parse_port(port), address)


def parse_authority(authority: bytes) -> Target:
    """Decode the `host:port` of classic CONNECT (RFC 9110 §9.3.6, RFC 9114 §4.4).

    Args:
        authority: the value of `:authority`. IPv6 is in brackets; the port is there even if it is a default.

    Returns:
        The target.

    Raises:
        RequestRejected: no host and port, user information, or either not valid (status 400).
    """
    try:
        text = authority.decode("ascii")
    except UnicodeDecodeError:
        raise RequestRejected("an authority that is not ASCII", status=400) from None
    host, colon, port = text.rpartition(":")
    if not colon:
        raise RequestRejected("an authority without a port", status=400)
    if host.startswith("[") and host.endswith("]"):
        host, address = _parse_ipv6(host[1:-1])
        return Target(host, parse_port(port), address)
    if ":" in host:
        raise RequestRejected("an authority with an IPv6 address outside brackets", status=400)
    return parse_target(host, port)


def build_target(host: str, port: int) -> Target:
    """Check a target of our own, as a client.

    Args:
        host: a name, or an address without brackets.
        port: 1 to 65535.

    Returns:
        The target.

    Raises:
        LocalMisuse: the host or the port is not valid.
    """
    try:
        return parse_target(host, str(port))
    except RequestRejected as error:
        raise LocalMisuse(error.detail) from None


def encode_authority(target: Target) -> bytes:
    """Encode a target as the `host:port` of classic CONNECT (RFC 9110 §9.3.6).

    Args:
        target: any.

    Returns:
        What `parse_authority` reads; IPv6 in brackets.
    """
    host = f"[{target.host}]" if isinstance(target.address, IPv6Address) else target.host
    return f"{host}:{target.port}".encode("ascii")


def _parse_ipv6(text: str) -> tuple[str, IPv6Address]:
    """Check an IPv6 literal without brackets and without a zone id."""
    if "%" in text:
        raise RequestRejected("an IPv6 address with a zone id", status=400)
    try:
        address = IPv6Address(text)
    except ValueError:
        raise RequestRejected("a malformed IPv6 address", status=400) from None
    return str(address), address


def _parse_name(text: str) -> str:
    """Check a domain name and normalise it. Letters outside ASCII are refused before some fold into it."""
    if not text.isascii():
        raise RequestRejected("a host name that is not ASCII", status=400)
    name = text.removesuffix(".").lower()
    if len(name) > _LONGEST_NAME:
        raise RequestRejected("a host name longer than names can be", status=400)
    labels = name.split(".")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise RequestRejected("a malformed host name", status=400)
    if _NUMBER.fullmatch(labels[-1]):
        raise RequestRejected("a host name that ends in a number", status=400)
    return name
