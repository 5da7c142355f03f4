"""Egress addresses one by one: which are in service, and how many tunnels leave from each.

A source is one address, or one IPv6 network of which every session gets an address of its own. It leaves service when
it cannot be bound, until it can be bound again, and while the operator has it in quarantine. Tunnels that are open
stay as they are.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from ipaddress import IPv4Network, IPv6Address, IPv6Network, collapse_addresses

from masque.target import IPAddress
from relay.settings import PortSlice, SourceEntry
from relay.source import bind_source

__all__ = ["KEY_SIZE", "Source", "SourceState", "SourceTable", "can_bind"]

KEY_SIZE = 16
"Bytes of a session's key."
_DRAWS = 64
"Addresses that are drawn from a network before it counts as wholly in quarantine."
_SWEEP = 64
"Lost sources that one sweep tries to bind: a few microseconds each."


class SourceState(StrEnum):
    """Whether a source is used."""

    IN_SERVICE = "in service"
    "New tunnels leave from it."
    LOST = "lost"
    "It could not be bound."
    QUARANTINED = "quarantined"
    "The operator took it out."


@dataclass(slots=True, eq=False)
class Source:
    """One address, or one IPv6 network."""

    network: IPv4Network | IPv6Network
    "A network of one address, or an IPv6 network to draw from."
    ports: PortSlice | None
    "The ports that are ours; None for what the system allows."
    seed: bytes = field(init=False, repr=False)
    "What rendezvous hashing knows it by."
    is_lost: bool = False
    "True while it cannot be bound."
    is_quarantined: bool = False
    "True while the operator does not want it used."
    avoided: tuple[IPv4Network | IPv6Network, ...] = ()
    "Parts of the network that the operator does not want used."
    tunnels: int = 0
    "Tunnels that leave from it now."
    opened: int = 0
    "Tunnels that ever left from it."

    def __post_init__(self) -> None:
        """Derive the seed, as short as it can be."""
        self.seed = blake2b(f"{self.network} {self.ports}".encode(), digest_size=8).digest()

    @property
    def is_up(self) -> bool:
        """True when new tunnels may leave from it."""
        return not (self.is_lost or self.is_quarantined)

    @property
    def state(self) -> SourceState:
        """Whether it is used."""
        if self.is_quarantined:
            return SourceState.QUARANTINED
        return SourceState.LOST if self.is_lost else SourceState.IN_SERVICE

    @property
    def is_drawn_from(self) -> bool:
        """True for a network of which each session gets an address."""
        return self.network.num_addresses > 1

    def address_for(self, key: bytes) -> IPAddress | None:
        """Return the source address for a session, or None when what may be used of the network was not hit.

        Args:
            key: the session's. It always gets the same address, and two keys' addresses tell nothing of each other.
        """
        first = self.network.network_address
        if not self.is_drawn_from:
            return first
        mask = int(self.network.hostmask)
        for attempt in range(_DRAWS):
            digest = blake2b(first.packed, key=key, salt=attempt.to_bytes(2, "big"), digest_size=16)
            host = int.from_bytes(digest.digest(), "big") & mask
            address = IPv6Address(int(first) | (host or 1))  # all zeros is the subnet's routers (RFC 4291 §2.6.1)
            if not any(address in network for network in self.avoided):
                return address
        return None

    def avoid(self, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        """Put into quarantine what is in one of these networks."""
        mine = [network for network in networks if network.overlaps(self.network)]
        self.is_quarantined = any(network.prefixlen <= self.network.prefixlen for network in mine)
        self.avoided = tuple(mine)


class SourceTable:
    """All sources, each once, over all reloads: what is known of one is kept while it stays configured."""

    def __init__(self, retry: float) -> None:
        """Start empty.

        Args:
            retry: seconds between attempts to bind lost sources again.
        """
        self._retry = retry
        self._sources: dict[tuple[IPv4Network | IPv6Network, PortSlice | None], Source] = {}
        self._lost: list[Source] = []
        self._next_sweep = 0.0

    def take(self, entry: SourceEntry) -> Source:
        """Return the source of an entry: the one that is known, or a new one."""
        key = (entry.network, entry.ports)
        if key not in self._sources:
            self._sources[key] = Source(*key)
        return self._sources[key]

    def keep(self, wanted: Iterable[Source], quarantine: Iterable[IPv4Network | IPv6Network]) -> None:
        """Forget all but these, and put into quarantine what overlaps one of the networks."""
        kept = set(wanted)
        listed = tuple(quarantine)
        networks: tuple[IPv4Network | IPv6Network, ...] = (
            *collapse_addresses(network for network in listed if isinstance(network, IPv4Network)),
            *collapse_addresses(network for network in listed if isinstance(network, IPv6Network)),
        )
        self._sources = {key: source for key, source in self._sources.items() if source in kept}
        self._lost = [source for source in self._lost if source in kept]
        for source in kept:
            source.avoid(networks)

    def lose(self, source: Source, now: float) -> bool:
        """Take a source out of service because it could not be bound. Returns True when it was in service."""
        if source.is_lost:
            return False
        source.is_lost = True
        if not self._lost:
            self._next_sweep = now + self._retry
        self._lost.append(source)
        return True

    def sweep(self, now: float) -> int:
        """Try lost sources again, a bounded number and not too often. Returns how many are back."""
        if not self._lost or now < self._next_sweep:
            return 0
        self._next_sweep = now + self._retry
        tried, rest = self._lost[:_SWEEP], self._lost[_SWEEP:]
        still = []
        for source in tried:
            if can_bind(source) is None:
                source.is_lost = False
            else:
                still.append(source)
        self._lost = rest + still
        return len(tried) - len(still)


def can_bind(source: Source, kind: socket.SocketKind = socket.SOCK_DGRAM) -> OSError | None:
    """Bind a socket to a source, and close it again.

    Returns:
        None when that worked, or what the system said.
    """
    family = socket.AF_INET6 if source.network.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, kind) as trial:
            address = source.address_for(secrets.token_bytes(KEY_SIZE))
            if address is not None:
                bind_source(trial, address, source.ports, is_free=source.is_drawn_from)
    except OSError as error:
        return error
    return None
