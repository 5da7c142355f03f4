"""Delegations: which servers a zone has, by what its parent says, and how long that holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from masque.target import IPAddress
from relay.resolver.recursion.limits import RecursionLimits
from relay.resolver.sized import ADDRESS_SIZE, SizedMap, size_of_name

__all__ = ["Delegation", "DelegationCache", "read_delegation"]

_MAX_TTL = 86_400.0
"Seconds that a delegation is believed at most, so that a zone can move."
_MIN_TTL = 5.0
_CACHE_SIZE = 3 << 20
"Bytes that delegations may take, as estimated: a thousand or two, or a hundred of the largest."
_ADDRESS_TYPES = (dns.rdatatype.A, dns.rdatatype.AAAA)


@dataclass(frozen=True, slots=True, repr=False)
class Delegation:
    """A zone and its servers."""

    zone: dns.name.Name
    "The zone's apex."
    servers: Mapping[dns.name.Name, tuple[IPAddress, ...]]
    "Its servers' names, with the addresses that came along; often none."
    ttl: float = _MAX_TTL
    "How long this holds, in seconds."


class DelegationCache:
    """Delegations by zone. Bounded in number and in bytes."""

    def __init__(self, entries: int, size: int = _CACHE_SIZE) -> None:
        self._zones: SizedMap[dns.name.Name, Delegation] = SizedMap(entries, size, _size_of)

    def put(self, delegation: Delegation, now: float) -> None:
        """Keep a delegation."""
        self._zones.put(delegation.zone, delegation, min(max(delegation.ttl, _MIN_TTL), _MAX_TTL), now)

    def closest(self, name: dns.name.Name, now: float) -> Delegation | None:
        """Return the deepest known zone at or above a name."""
        while True:
            found = self._zones.get(name, now)
            if found is not None or name == dns.name.root:
                return found
            name = name.parent()


def read_delegation(
    servers: dns.rrset.RRset, response: dns.message.Message, asked: dns.name.Name, limits: RecursionLimits
) -> Delegation:
    """Read a referral, or the root's own list of servers.

    Addresses are taken for the servers' names only, and only for names in the zone that was asked: what a zone says
    of others is hearsay (RFC 2181 §5.4.1, RFC 5452 §6).

    Args:
        servers: the NS records.
        response: where they came from, with addresses in its additional section.
        asked: the zone whose server said so.
        limits: what is kept.
    """
    names = list(dict.fromkeys(record.target for record in servers))[: limits.servers]
    ttl = servers.ttl
    found: dict[dns.name.Name, tuple[IPAddress, ...]] = dict.fromkeys(names, ())
    for rrset in response.additional:
        if rrset.rdtype not in _ADDRESS_TYPES or rrset.rdclass != dns.rdataclass.IN:
            continue
        if rrset.name in found and rrset.name.is_subdomain(asked):
            addresses = tuple(ip_address(record.address) for record in list(rrset)[: limits.addresses])
            found[rrset.name] += addresses
            ttl = min(ttl, rrset.ttl)
    return Delegation(servers.name, found, float(ttl))


def _size_of(zone: dns.name.Name, delegation: Delegation) -> int:
    servers = delegation.servers.items()
    return size_of_name(zone) + sum(size_of_name(name) + ADDRESS_SIZE * (1 + len(found)) for name, found in servers)
