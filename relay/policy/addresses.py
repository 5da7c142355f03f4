"""Which addresses are globally reachable: IANA's special-purpose registries, written out.

The tables follow the IANA IPv4 and IPv6 Special-Purpose Address Registries, the multicast registries, and the
forms that carry an IPv4 address inside an IPv6 one. They are written out, instead of asking the standard
library, because its answer changes between Python versions and lets several forms of embedded IPv4 pass.
An embedded address that is harmless in itself rescues nothing: the whole form is refused. So is all of
`2001::/23`, although a few of its rows are reachable: they are anycast services for a client's own network.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from masque.target import IPAddress
from relay.policy.prefixes import PrefixTable

__all__ = ["SPECIAL_NETWORKS", "SpecialNetwork", "is_globally_reachable", "special_network"]


@dataclass(frozen=True, slots=True)
class SpecialNetwork:
    """One row of a registry: a network that no target may be in by default."""

    network: IPv4Network | IPv6Network
    "The network."
    purpose: str
    "What it is for."
    reference: str
    "Where that is said."


SPECIAL_NETWORKS: tuple[SpecialNetwork, ...] = tuple(
    SpecialNetwork(ip_network(network), purpose, reference)
    for network, purpose, reference in (
        ("0.0.0.0/8", "this network", "RFC 791 §3.2"),
        ("10.0.0.0/8", "private use", "RFC 1918"),
        ("100.64.0.0/10", "shared address space of carriers", "RFC 6598"),
        ("127.0.0.0/8", "loopback", "RFC 1122 §3.2.1.3"),
        ("169.254.0.0/16", "link-local", "RFC 3927"),
        ("172.16.0.0/12", "private use", "RFC 1918"),
        ("192.0.0.0/24", "IETF protocol assignments", "RFC 6890 §2.1"),
        ("192.0.2.0/24", "documentation (TEST-NET-1)", "RFC 5737"),
        ("192.88.99.0/24", "deprecated 6to4 relay anycast", "RFC 7526"),
        ("192.168.0.0/16", "private use", "RFC 1918"),
        ("198.18.0.0/15", "benchmarking", "RFC 2544"),
        ("198.51.100.0/24", "documentation (TEST-NET-2)", "RFC 5737"),
        ("203.0.113.0/24", "documentation (TEST-NET-3)", "RFC 5737"),
        ("224.0.0.0/4", "multicast", "RFC 5771"),
        ("240.0.0.0/4", "reserved", "RFC 1112 §4"),
        ("255.255.255.255/32", "limited broadcast", "RFC 919 §7"),
        ("::/128", "unspecified", "RFC 4291 §2.5.2"),
        ("::1/128", "loopback", "RFC 4291 §2.5.3"),
        ("::/96", "IPv4-compatible, deprecated", "RFC 4291 §2.5.5.1"),
        ("::ffff:0:0/96", "IPv4-mapped", "RFC 4291 §2.5.5.2"),
        ("::ffff:0:0:0/96", "IPv4-translated, deprecated", "RFC 2765 §2.1"),
        ("64:ff9b::/96", "IPv4-IPv6 translation", "RFC 6052"),
        ("64:ff9b:1::/48", "IPv4-IPv6 translation, local use", "RFC 8215"),
        ("100::/64", "discard-only", "RFC 6666"),
        ("100:0:0:1::/64", "dummy prefix", "RFC 9780"),
        ("2001::/23", "IETF protocol assignments", "RFC 2928"),
        ("2001::/32", "Teredo", "RFC 4380"),
        ("2001:2::/48", "benchmarking", "RFC 5180"),
        ("2001:10::/28", "deprecated ORCHID", "RFC 4843"),
        ("2001:20::/28", "ORCHIDv2", "RFC 7343"),
        ("2001:30::/28", "drone remote identification", "RFC 9374"),
        ("2001:db8::/32", "documentation", "RFC 3849"),
        ("2002::/16", "6to4", "RFC 3056"),
        ("3fff::/20", "documentation", "RFC 9637"),
        ("5f00::/16", "segment routing identifiers", "RFC 9602"),
        ("fc00::/7", "unique local", "RFC 4193"),
        ("fe80::/10", "link-local", "RFC 4291 §2.5.6"),
        ("fec0::/10", "deprecated site-local", "RFC 3879"),
        ("ff00::/8", "multicast", "RFC 4291 §2.7"),
    )
)
"Every network that is special. A network inside another one has its own row when it has its own meaning."

_GLOBAL_UNICAST = IPv6Network("2000::/3")
"All that IANA hands out for global unicast (RFC 4291 §2.4, RFC 3587 §3)."

_UNALLOCATED = SpecialNetwork(IPv6Network("::/0"), "not allocated for global unicast", "RFC 4291 §2.4")

_TABLE: PrefixTable[SpecialNetwork] = PrefixTable()
for _row in SPECIAL_NETWORKS:
    _TABLE.add(_row.network, _row)


def special_network(address: IPAddress) -> SpecialNetwork | None:
    """Return the narrowest row of the registries that an address falls under, or None for an ordinary one.

    An IPv6 address outside of `2000::/3` is never ordinary: nothing there is allocated for global unicast.
    """
    found = _TABLE.longest(address)
    if found is not None:
        return found[1]
    if address.version == 6 and address not in _GLOBAL_UNICAST:
        return _UNALLOCATED
    return None


def is_globally_reachable(address: IPAddress) -> bool:
    """Say whether a target may have this address when no rule speaks of it (RFC 9298 §7)."""
    return special_network(address) is None
