"""Which targets may be reached."""

from __future__ import annotations

from relay.settings.branches.bounds import Branch, Network, PortNumber

__all__ = ["PolicySettings"]


class PolicySettings(Branch):
    """Which targets may be reached. Without rules: all that is globally reachable, and nothing else."""

    allow: tuple[Network, ...] = ()
    """Networks that may be reached although they are not globally reachable."""
    deny: tuple[Network, ...] = ()
    """Networks that may not be reached. Goes before `allow`."""
    denied_ports: tuple[PortNumber, ...] = (25,)
    """Target ports that are refused."""
