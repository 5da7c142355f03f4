"""Egress addresses as an operator writes them: an address or a network, and the ports of it that are ours.

Each parser says what is wrong in words that follow "must be".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

__all__ = ["PortSlice", "SourceEntry", "parse_port_slice", "parse_source"]

_PORTS = re.compile(r"([0-9]{1,5})-([0-9]{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class PortSlice:
    """A slice of an address's ports, both ends included."""

    low: int
    "The first port."
    high: int
    "The last port."

    def __str__(self) -> str:
        """Write it as the settings do."""
        return f"{self.low}-{self.high}"

    def __contains__(self, port: int) -> bool:
        """Say whether a port is in it."""
        return self.low <= port <= self.high

    def overlaps(self, other: PortSlice) -> bool:
        """Say whether the two have a port in common."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One entry of a pool: the addresses of a network, and which of their ports may be used."""

    network: IPv4Network | IPv6Network
    "One address, or all of a network."
    ports: PortSlice | None = None
    "The ports, or None for those of the pool or the system."


def parse_port_slice(text: str) -> PortSlice:
    """Read `40000-49999`.

    Raises:
        ValueError: it is no range of at least two ports within 1..65535. The kernel takes no smaller one.
    """
    found = _PORTS.fullmatch(text.strip())
    if found is None or not 1 <= int(found[1]) < int(found[2]) <= 65535:
        raise ValueError('must be a range of ports within 1..65535, like "40000-49999"')
    return PortSlice(int(found[1]), int(found[2]))


def parse_source(text: str) -> SourceEntry:
    """Read `192.0.2.10`, `192.0.2.16/28`, `2001:db8:33::/64`, each with or without ` 40000-49999` behind it.

    Raises:
        ValueError: it is neither address nor network, host bits are set, no target could answer it, or the ports
            are no range.
    """
    words = text.split()
    if not 1 <= len(words) <= 2:
        raise ValueError('must be an address or a network, and a range of ports if wanted: "192.0.2.10 40000-49999"')
    try:
        network = ip_network(words[0])
    except ValueError:
        raise ValueError("must be an address, or a network with all host bits zero, like 192.0.2.16/28") from None
    if network.is_multicast or network.network_address.is_unspecified or network.is_link_local:
        raise ValueError("must be unicast addresses of more than one link")
    return SourceEntry(network, parse_port_slice(words[1]) if len(words) == 2 else None)
