"""Which addresses a server may have: of a family that this machine has a route for, and of the network at large.

Whoever owns a name chooses its servers' addresses, and could otherwise have datagrams sent to the machines around us.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address, IPv6Network, ip_address

import dns.rdatatype

from masque.target import IPAddress

__all__ = ["Reach", "is_global"]

_CARRIERS = tuple(
    IPv6Network(text)
    for text in (
        "::/96",  # IPv4-compatible (RFC 4291 §2.5.5.1)
        "::ffff:0:0/96",  # IPv4-mapped (RFC 4291 §2.5.5.2)
        "::ffff:0:0:0/96",  # IPv4-translated (RFC 2765 §2.1)
        "64:ff9b::/96",  # NAT64 (RFC 6052 §2.1)
        "64:ff9b:1::/48",  # NAT64 of a network's own (RFC 8215)
        "2001::/32",  # Teredo (RFC 4380 §4)
        "2002::/16",  # 6to4 (RFC 3056 §2)
    )
)
"Networks whose addresses hold an IPv4 address, which may be anybody's."
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"What stands before the IPv4 address in the lower half of an ISATAP address (RFC 5214 §6.1)."
_PROBES: tuple[IPAddress, ...] = (ip_address("192.0.2.1"), ip_address("2001:db8::1"))
_TYPES = {4: dns.rdatatype.A, 6: dns.rdatatype.AAAA}
_KEPT = 30.0
"Seconds that the routes are believed to stay as they are."


class Reach:
    """Says which addresses may be asked, and which are worth looking up."""

    def __init__(self, roots: Iterable[IPAddress], clock: Callable[[], float] = time.monotonic) -> None:
        """Look at the root servers.

        Args:
            roots: their addresses. When one of them is not globally reachable, as in a network of one's own, no
                server needs to be.
            clock: tells when to look at this machine's routes again.
        """
        self._roots = tuple(roots)
        self._is_private = any(not is_global(address) for address in self._roots)
        self._clock = clock
        self._looked_at = -_KEPT
        self._versions: frozenset[int] = frozenset()

    def may_ask(self, address: IPAddress) -> bool:
        """Say whether a server at this address is asked."""
        if address.version not in self._routed():
            return False
        if self._is_private:
            return not address.is_multicast and not address.is_unspecified
        return is_global(address)

    @property
    def types(self) -> tuple[dns.rdatatype.RdataType, ...]:
        """The types of the addresses that are worth looking up."""
        return tuple(_TYPES[version] for version in sorted(self._routed()))

    def _routed(self) -> frozenset[int]:
        now = self._clock()
        if now - self._looked_at >= _KEPT:
            self._looked_at = now
            probes = (*_PROBES, *self._roots)
            self._versions = frozenset(
                version
                for version in _TYPES
                if any(_has_route(probe) for probe in probes if probe.version == version)
            )
        return self._versions or frozenset(_TYPES)  # without any route nothing is known, so nothing is left out


def is_global(address: IPAddress) -> bool:
    """Say whether an address is globally reachable; one that holds another inside counts as not."""
    return address.is_global and not address.is_multicast and not _holds_ipv4(address)


def _holds_ipv4(address: IPAddress) -> bool:
    if not isinstance(address, IPv6Address):
        return False
    return any(address in network for network in _CARRIERS) or int(address) >> 32 & 0xFFFFFFFF in _ISATAP


def _has_route(address: IPAddress) -> bool:
    """Say whether there is a route to an address. Nothing is sent."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((str(address), 9))
    except OSError:
        return False
    return True
