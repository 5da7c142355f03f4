"""From which addresses targets are reached."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from relay.settings.branches.bounds import Branch

__all__ = ["EgressSettings"]


class EgressSettings(Branch):
    """The addresses that targets see."""

    ipv4: IPv4Address | None = None
    """The source address towards IPv4 targets; without it the system chooses."""
    ipv6: IPv6Address | None = None
    """The source address towards IPv6 targets; without it the system chooses."""
