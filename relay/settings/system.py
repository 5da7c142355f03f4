"""What the settings leave to the system: its resolvers' addresses."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from relay.settings.load import SettingsError
from relay.settings.tree import Settings
from relay.settings.values import Upstream, parse_upstream

__all__ = ["resolver_upstreams", "system_upstreams"]

RESOLV_CONF = Path("/etc/resolv.conf")
"Where the system keeps the addresses of its resolvers."

_MAX_UPSTREAMS = 8


def resolver_upstreams(settings: Settings, system: Path = RESOLV_CONF) -> tuple[Upstream, ...]:
    """Return the resolvers to ask: those of the settings, else those of the system.

    Args:
        settings: the effective settings.
        system: the system's resolver file.

    Raises:
        SettingsError: neither names any.
    """
    chosen = tuple(parse_upstream(text) for text in settings.resolver.upstreams) or system_upstreams(system)
    if not chosen:
        raise SettingsError(f"resolver.upstreams (default): must name a resolver, because {system} has none")
    return chosen


def system_upstreams(system: Path = RESOLV_CONF) -> tuple[Upstream, ...]:
    """Return the `nameserver` addresses of the system's resolver file; what cannot be read counts as none."""
    try:
        lines = system.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    found: list[Upstream] = []
    for line in lines:
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            found.append(Upstream(ip_address(words[1])))
        except ValueError:
            continue
    return tuple(found[:_MAX_UPSTREAMS])
