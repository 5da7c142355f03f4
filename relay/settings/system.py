"""The resolvers to ask: those that the settings name, or what they leave to the system."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import assert_never

from relay.settings.branches import ResolverSettings
from relay.settings.load import SettingsError
from relay.settings.tree import Settings
from relay.settings.upstreams import Upstream, parse_upstream

__all__ = ["describe_resolver", "resolver_routes", "resolver_upstreams", "system_upstreams"]

RESOLV_CONF = Path("/etc/resolv.conf")
"Where the system keeps the addresses of its resolvers."

_MAX_UPSTREAMS = 8


def resolver_upstreams(settings: Settings, system: Path = RESOLV_CONF) -> tuple[Upstream, ...]:
    """Return the resolvers to ask: those of the settings, else those of the system; none in the mode "iterate".

    Args:
        settings: the effective settings.
        system: the system's resolver file.

    Raises:
        SettingsError: neither names any.
    """
    if settings.resolver.mode == "iterate":
        return ()
    chosen = tuple(parse_upstream(text) for text in settings.resolver.upstreams) or system_upstreams(system)
    if not chosen:
        raise SettingsError(f"resolver.upstreams (default): must name a resolver, because {system} has none")
    return chosen


def resolver_routes(settings: Settings) -> dict[str, tuple[Upstream, ...]]:
    """Return the resolvers that are asked for names below a suffix, by suffix."""
    return {
        suffix: tuple(parse_upstream(text) for text in upstreams)
        for suffix, upstreams in settings.resolver.routes.items()
    }


def describe_resolver(settings: Settings, system: Path = RESOLV_CONF) -> tuple[str, ...]:
    """Say how names are resolved, one line for each group of resolvers, for `relay check`.

    Args:
        settings: the effective settings.
        system: the system's resolver file.
    """
    routes = resolver_routes(settings)
    lines = [_describe_names(settings, system), _describe_dnssec(settings.resolver, routes)]
    for suffix, upstreams in routes.items():
        lines.append(_describe(f"names below {suffix}", upstreams, "resolver.routes"))
    return tuple(lines)


def _describe_names(settings: Settings, system: Path) -> str:
    if settings.resolver.mode == "iterate":
        hints = settings.resolver.root_hints or "the shipped root hints"
        return f"names are asked of the authoritative servers themselves, from {hints} down (in clear text)"
    source = "resolver.upstreams" if settings.resolver.upstreams else str(system)
    try:
        return _describe("names", resolver_upstreams(settings, system), source)
    except SettingsError:
        return f"names are not resolved: resolver.upstreams is empty and {system} names no resolver"


def _describe_dnssec(settings: ResolverSettings, routes: dict[str, tuple[Upstream, ...]]) -> str:
    match settings.dnssec:
        case "validate":
            anchors = settings.trust_anchors or "the shipped keys of the root"
            line = f"DNSSEC is validated here, from {anchors} on; bogus answers are refused"
            return line + ("; names with a route only below trust anchors of their own" if routes else "")
        case "trust_ad":
            in_clear = [suffix for suffix, chosen in routes.items() if not all(_is_encrypted(one) for one in chosen)]
            line = "DNSSEC is validated by the upstreams, and their AD bit is believed"
            return line + (f"; not that of upstreams in clear text, below {', '.join(in_clear)}" if in_clear else "")
        case "off":
            return "DNSSEC is not validated, and no AD bit is believed (resolver.dnssec)"
        case _:
            assert_never(settings.dnssec)


def _is_encrypted(upstream: Upstream) -> bool:
    return upstream.transport.is_encrypted


def _describe(what: str, upstreams: tuple[Upstream, ...], source: str) -> str:
    kinds = [f"{one} ({'encrypted' if _is_encrypted(one) else 'in clear text'})" for one in upstreams]
    return f"{what} are asked of, from {source}: {', then '.join(kinds)}"


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
