"""The operator's rules on targets: deny goes before allow, allow before the default.

The default is that what is globally reachable may be reached. Rules compare addresses of one family only: an
`allow` for 127.0.0.0/8 does not open ::ffff:127.0.0.1, which the kernel would send to the same place. A `deny`
does reach into the IPv4-mapped form, so that it cannot be walked around.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network

from masque.target import IPAddress
from relay.policy.addresses import is_globally_reachable

__all__ = ["AddressPolicy"]


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """What may be reached (RFC 9298 §7)."""

    allow: tuple[IPv4Network | IPv6Network, ...] = ()
    "Networks that may be reached although they are special."
    deny: tuple[IPv4Network | IPv6Network, ...] = ()
    "Networks that may not be reached, whatever else is said."
    denied_ports: frozenset[int] = frozenset({25})
    "Ports that may not be reached at any address."

    def permits_port(self, port: int) -> bool:
        """Say whether a port may be reached at all."""
        return 1 <= port <= 65535 and port not in self.denied_ports

    def permits_address(self, address: IPAddress) -> bool:
        """Say whether an address may be reached."""
        if _is_in(address, self.deny):
            return False
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        if mapped is not None and _is_in(mapped, self.deny):
            return False
        return _is_in(address, self.allow) or is_globally_reachable(address)

    def check(self, address: IPAddress, port: int) -> bool:
        """Say whether a target at this address and port may be reached."""
        return self.permits_port(port) and self.permits_address(address)


def _is_in(address: IPAddress, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks)
