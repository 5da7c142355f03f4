"""Which targets may be reached."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, model_validator

from relay.settings.branches.bounds import Branch, Network, PortNumber
from relay.settings.values import parse_domain, parse_port_range

__all__ = ["PolicyRule", "PolicySettings"]


def _ports(value: object) -> object:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise ValueError('must be a port or a range of ports, like 443 or "8000-8999"')
    low, high = parse_port_range(text)
    return str(low) if low == high else f"{low}-{high}"


DomainName: TypeAlias = Annotated[str, AfterValidator(parse_domain)]
PortRange: TypeAlias = Annotated[str, BeforeValidator(_ports)]


class PolicyRule(Branch):
    """One rule. It speaks of an exchange when all that it names fits; what it leaves out fits always."""

    verdict: Literal["allow", "deny"]
    """What becomes of the exchange."""
    names: tuple[DomainName, ...] = ()
    """Target names; each stands for all names below it too."""
    networks: tuple[Network, ...] = ()
    """Where the target's address is. A rule that allows opens these even if they are not globally reachable; one
    that allows and names none is about globally reachable addresses only."""
    ports: tuple[PortRange, ...] = ()
    """Target ports and ranges of ports."""
    principals: tuple[str, ...] = ()
    """Who asks, by the name that authentication gave."""
    schemes: tuple[str, ...] = ()
    """Who asks, by the way of authentication."""
    kinds: tuple[str, ...] = ()
    """What is asked for: tcp or udp."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_empty(cls, value: object) -> object:
        """An empty list would fit always, which nobody means who wrote it."""
        if isinstance(value, Mapping):
            for name, member in value.items():
                if member in ([], ()):
                    raise ValueError(f"{name}: must not be empty; leave it out to mean all")
        return value


class PolicySettings(Branch):
    """Which targets may be reached. Without rules: all that is globally reachable, and nothing else."""

    allow: tuple[Network, ...] = ()
    """Networks that may be reached although they are not globally reachable. Comes after all rules."""
    deny: tuple[Network, ...] = ()
    """Networks that may not be reached. Comes before all rules and before `allow`."""
    denied_ports: tuple[PortNumber, ...] = (25,)
    """Target ports that are refused. Comes before all else."""
    rules: tuple[PolicyRule, ...] = ()
    """Rules in order, the first that fits decides. Each is a table with `verdict` ("allow" or "deny") and any of
    `names`, `networks`, `ports`, `principals`, `schemes`, `kinds`."""
    file: Path | None = None
    """A TOML file with more rules, as tables `[[rules]]`; they come after `policy.rules`."""
    allow_own: bool = False
    """Let rules decide about this machine's own addresses too. Without it they are refused before all rules: a tunnel
    there would loop, or reach what a firewall keeps from others."""
