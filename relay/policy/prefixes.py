"""Networks as a table: which of many an address is in, by one look-up for each prefix length there is."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import Generic, TypeVar

from masque.target import IPAddress

__all__ = ["PrefixTable"]

V = TypeVar("V")


class PrefixTable(Generic[V]):
    """Values by network. An address never matches a network of the other family."""

    def __init__(self) -> None:
        self._levels: dict[int, list[tuple[int, dict[int, list[V]]]]] = {4: [], 6: []}

    def add(self, network: IPv4Network | IPv6Network, value: V) -> None:
        """Put a value under a network. Several may be under one."""
        levels = self._levels[network.version]
        shift = network.max_prefixlen - network.prefixlen
        table = next((table for known, table in levels if known == shift), None)
        if table is None:
            table = {}
            insort(levels, (shift, table), key=lambda level: level[0])
        table.setdefault(int(network.network_address) >> shift, []).append(value)

    def find(self, address: IPAddress) -> Iterator[tuple[int, V]]:
        """Yield the prefix length and the value of each network that holds an address, the longest first."""
        number = int(address)
        for shift, table in self._levels[address.version]:
            for value in table.get(number >> shift, ()):
                yield address.max_prefixlen - shift, value

    def longest(self, address: IPAddress) -> tuple[int, V] | None:
        """Return the prefix length and the value of the longest network that holds an address, or None."""
        return next(self.find(address), None)
