"""What the relay learned of the way to destinations, and the order of attempts that follows from it (RFC 8305 §4).

A destination that left an attempt waiting is tried last for a while, so that a family that is broken on the way costs
its delay once and not each time. UDP tunnels learn nothing of their own, and take the same order.

Kept are prefixes of /24 and /48: the longest that networks commonly accept in routing, so addresses in one mostly
share their way. Shorter ones would join strangers; whole addresses would learn nothing for the next address of a
pool, and would say more of what was reached. Nothing is kept of who asked, and none of it is ever shown.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum

from relay.hooks import IPAddress

__all__ = ["ReachMemory", "Standing", "interleave"]

_SHIFT = {4: 32 - 24, 6: 128 - 48}
"Bits of an address that are not kept, by family."


class Standing(IntEnum):
    """How a destination did lately; the better, the earlier it is tried."""

    ANSWERED = 0
    "A connection was made."
    UNKNOWN = 1
    "Nothing is known."
    SILENT = 2
    "An attempt waited in vain, or longer than another address took."


def interleave(addresses: Sequence[IPAddress], first_family_count: int = 1) -> list[IPAddress]:
    """Order addresses for attempts: families in turn, the first address's family first (RFC 8305 §4).

    Args:
        addresses: in order of preference.
        first_family_count: how many of the first family come before the other's first.
    """
    first = [address for address in addresses if address.version == addresses[0].version]
    second = [address for address in addresses if address.version != addresses[0].version]
    lead = first_family_count - 1
    ordered, first = first[:lead], first[lead:]
    for index in range(max(len(first), len(second))):
        ordered += first[index : index + 1] + second[index : index + 1]
    return ordered


class ReachMemory:
    """The standing of destinations, for a short time and of a bounded number."""

    def __init__(self, keep: float, entries: int, clock: Callable[[], float], first_family_count: int = 1) -> None:
        """Begin with knowing nothing.

        Args:
            keep: seconds that something is known; 0 learns nothing.
            entries: destinations known at the same time, at most.
            clock: seconds that only go up.
            first_family_count: how many addresses of the first family come first.
        """
        self._keep = keep
        self._entries = entries
        self._clock = clock
        self._first_family_count = first_family_count
        self._known: OrderedDict[tuple[int, int], tuple[Standing, float]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many destinations are kept, those whose time is over included until something is learned."""
        return len(self._known)

    def learn(self, address: IPAddress, standing: Standing) -> None:
        """Keep how the way to an address did; what was known of its prefix goes."""
        if not self._keep:
            return
        now = self._clock()
        key = _prefix(address)
        self._known.pop(key, None)
        self._known[key] = (standing, now + self._keep)
        while len(self._known) > self._entries or next(iter(self._known.values()))[1] <= now:
            self._known.popitem(last=False)

    def standing(self, address: IPAddress) -> Standing:
        """Return how the way to an address did lately."""
        known = self._known.get(_prefix(address))
        return known[0] if known is not None and known[1] > self._clock() else Standing.UNKNOWN

    def order(self, addresses: Iterable[IPAddress]) -> list[IPAddress]:
        """Order addresses for attempts.

        Silent ones come last, in each family those that answered come first, and else the given order stays. The
        families take turns, beginning with that of the first address given that is not silent: that the other family
        has answered before is no reason to leave the preferred one.

        Args:
            addresses: in order of preference.
        """
        ranked = [(self.standing(address), address) for address in addresses]
        hopeful = [address for standing, address in ranked if standing is not Standing.SILENT]
        silent = [address for standing, address in ranked if standing is Standing.SILENT]
        lead = {hopeful[0].version: 0} if hopeful else {}
        answered = {address for standing, address in ranked if standing is Standing.ANSWERED}
        hopeful.sort(key=lambda address: (lead.get(address.version, 1), address not in answered))
        return interleave(hopeful, self._first_family_count) + interleave(silent)


def _prefix(address: IPAddress) -> tuple[int, int]:
    return address.version, int(address) >> _SHIFT[address.version]
