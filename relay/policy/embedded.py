"""IPv6 addresses that carry an IPv4 address inside: where a tunnel to one may really end.

IPv4-mapped and IPv4-compatible (RFC 4291 §2.5.5), IPv4-translated (RFC 2765 §2.1), the well-known and the local
prefix of NAT64 (RFC 6052 §2.2, RFC 8215), 6to4 (RFC 3056 §2), Teredo (RFC 4380 §4) and ISATAP (RFC 5214 §6.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from masque.target import IPAddress

__all__ = ["embedded_ipv4", "isatap_ipv4"]

_LOW = 0xFFFFFFFF
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"The upper half of an ISATAP interface identifier, with the universal bit of a private and of a global address."


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the IPv4 address is."""

    start: int
    "The bit at which it begins: as long as the prefix in front of it."
    shift: int
    "How far it is from the right."
    skips_octet: bool = False
    "Bits 64 to 71 are no part of it (RFC 6052 §2.2)."
    is_inverted: bool = False
    "Its bits are turned over (RFC 4380 §4)."

    def read(self, address: IPv6Address) -> IPv4Address:
        """Take the IPv4 address out."""
        number = int(address)
        if self.skips_octet:
            number = number >> 64 << 56 | number & (1 << 56) - 1
        number = number >> self.shift & _LOW
        return IPv4Address(number ^ _LOW if self.is_inverted else number)


_LAST = _Layout(96, 0)
_FORMS: tuple[tuple[IPv6Network, tuple[_Layout, ...], bool], ...] = (
    (IPv6Network("::ffff:0:0/96"), (_LAST,), False),
    (IPv6Network("::/96"), (_LAST,), False),
    (IPv6Network("::ffff:0:0:0/96"), (_LAST,), False),
    (IPv6Network("64:ff9b::/96"), (_LAST,), False),
    (
        IPv6Network("64:ff9b:1::/48"),
        (_Layout(48, 40, skips_octet=True), _Layout(56, 32, skips_octet=True), _Layout(64, 24), _LAST),
        True,
    ),
    (IPv6Network("2002::/16"), (_Layout(16, 80),), False),
    (IPv6Network("2001::/32"), (_Layout(32, 64), _Layout(96, 0, is_inverted=True)), False),
)
"""Each form's network, its layouts, and whether only one of the layouts is in use. Which one the local NAT64 prefix
has is the operator's choice (RFC 8215 §3); a Teredo address holds its server's and its client's address both."""


def embedded_ipv4(address: IPAddress, prefix: int = 0) -> tuple[IPv4Address, ...]:
    """Return the IPv4 addresses inside an IPv6 address.

    Args:
        address: of any family; an IPv4 address has none inside.
        prefix: only those that a network of this length leaves open. Where one of several layouts is in use, it
            is then the one that the length tells: a NAT64 prefix is as long as what comes before the IPv4 address.

    Returns:
        All that the address may mean, ISATAP's included; often none.
    """
    if isinstance(address, IPv4Address):
        return ()
    inside = isatap_ipv4(address)
    found = [] if inside is None or prefix > 96 else [inside]
    for network, layouts, is_choice in _FORMS:
        if address in network:
            open_ones = [layout for layout in layouts if layout.start >= prefix]
            if is_choice and prefix:
                open_ones = open_ones[:1]
            found += [layout.read(address) for layout in open_ones]
    return tuple(found)


def isatap_ipv4(address: IPAddress) -> IPv4Address | None:
    """Return the IPv4 address of an ISATAP interface identifier (RFC 5214 §6.1), or None when it is none."""
    if isinstance(address, IPv6Address) and int(address) >> 32 & _LOW in _ISATAP:
        return IPv4Address(int(address) & _LOW)
    return None
