"""The operator's rules, ready to be asked: from the settings and the rules file, in the order that decides.

The order is: `policy.denied_ports`, `policy.deny`, `policy.rules`, the rules of `policy.file`, `policy.allow`. The
first rule that fits decides; when none does, what is globally reachable may be reached, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import TypeVar

from masque.target import IPAddress
from relay.hooks import AuthScheme, Principal, TunnelKind
from relay.policy.prefixes import PrefixTable
from relay.settings import PolicyRule, PolicySettings, SettingsError, parse_port_range, read_policy_file

__all__ = ["Question", "Rule", "Ruling", "read_rules", "suffixes"]

W = TypeVar("W", bound=StrEnum)


class Ruling(StrEnum):
    """What a rule says."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for, but for the address."""

    kind: TunnelKind
    "TCP or UDP."
    port: int = field(repr=False)
    "The target's port."
    name: str | None = field(default=None, repr=False)
    "The target's name as targets have it; None for an IP literal."
    aliases: tuple[str, ...] = field(default=(), repr=False)
    "The names that it is an alias of, once they are known."
    principal: Principal | None = None
    "Who asks."


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. An empty member fits always."""

    ruling: Ruling
    "What it says."
    origin: str
    "Where it was written, for an operator."
    names: frozenset[str] = frozenset()
    "Names that are fitted with all below them."
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    "Networks of addresses."
    ports: tuple[tuple[int, int], ...] = ()
    "Ranges of ports, both ends included."
    principals: frozenset[str] = frozenset()
    "Names of principals."
    schemes: frozenset[AuthScheme] = frozenset()
    "Ways in which a principal proved itself."
    kinds: frozenset[TunnelKind] = frozenset()
    "Kinds of tunnel."
    _table: PrefixTable[None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the networks' table."""
        table: PrefixTable[None] = PrefixTable()
        for network in self.networks:
            table.add(network, None)
        object.__setattr__(self, "_table", table)

    def fits(self, question: Question) -> bool:
        """Say whether the rule may speak of this, whatever the address is.

        What denies a name denies its aliases too. What allows a name does not: who owns the alias did not say so.
        """
        if self.kinds and question.kind not in self.kinds:
            return False
        if self.ports and not any(low <= question.port <= high for low, high in self.ports):
            return False
        who = question.principal
        if self.principals and (who is None or who.name not in self.principals):
            return False
        if self.schemes and (who is None or who.scheme not in self.schemes):
            return False
        return not self.names or any(name in self.names for name in self._names_of(question))

    def _names_of(self, question: Question) -> Iterable[str]:
        aliases = question.aliases if self.ruling is Ruling.DENY else ()
        for name in (question.name, *aliases):
            yield from suffixes(name or "")

    def reach(self, address: IPAddress) -> int | None:
        """Return the length of the longest network that holds an address, or None."""
        found = self._table.longest(address)
        return None if found is None else found[0]


def suffixes(name: str) -> list[str]:
    """Return a name and all that it is below, the longest first; nothing for no name."""
    labels = name.split(".") if name else []
    return [".".join(labels[index:]) for index in range(len(labels))]


def read_rules(settings: PolicySettings) -> tuple[Rule, ...]:
    """Bring the rules of the settings and of the rules file into their order. Reads the file.

    Args:
        settings: the policy's branch.

    Raises:
        SettingsError: the file cannot be used, or a rule names a scheme or a kind that there is not.
    """
    rules = []
    if settings.denied_ports:
        ports = tuple((port, port) for port in settings.denied_ports)
        rules.append(Rule(Ruling.DENY, "policy.denied_ports", ports=ports))
    if settings.deny:
        rules.append(Rule(Ruling.DENY, "policy.deny", networks=settings.deny))
    rules += _numbered(settings.rules, "policy.rules")
    if settings.file is not None:
        rules += _numbered(read_policy_file(settings.file), f"policy.file: {settings.file}: rules")
    if settings.allow:
        rules.append(Rule(Ruling.ALLOW, "policy.allow", networks=settings.allow))
    return tuple(rules)


def _numbered(rules: Sequence[PolicyRule], where: str) -> list[Rule]:
    return [_rule(rule, f"{where}[{number}]") for number, rule in enumerate(rules)]


def _rule(rule: PolicyRule, origin: str) -> Rule:
    return Rule(
        Ruling(rule.verdict),
        origin,
        frozenset(rule.names),
        rule.networks,
        tuple(map(parse_port_range, rule.ports)),
        frozenset(rule.principals),
        _members(AuthScheme, rule.schemes, f"{origin}.schemes"),
        _members(TunnelKind, rule.kinds, f"{origin}.kinds"),
    )


def _members(words: type[W], given: Iterable[str], where: str) -> frozenset[W]:
    try:
        return frozenset(map(words, given))
    except ValueError:
        known = ", ".join(word.value for word in words)
        raise SettingsError(f"{where}: must be of {known}") from None
