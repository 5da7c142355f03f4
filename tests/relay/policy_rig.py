"""What the tests of the policy share: rules as an operator writes them, questions, decisions."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from masque.head import RequestHead
from masque.target import Target
from relay.hooks import AuthScheme, ConnectionContext, ExchangeContext, Principal, TunnelKind
from relay.policy import Decision, OwnAddresses, Question, RuleSet, read_rules
from relay.settings import PolicyRule, PolicySettings

__all__ = ["allowed", "ask", "decide", "exchange", "rule", "ruleset"]

ORDINARY = "8.8.8.8"


def rule(verdict: str, **members: Any) -> PolicyRule:
    """One rule, from what TOML would hold."""
    return PolicyRule.model_validate({"verdict": verdict, **members})


def ruleset(*rules: PolicyRule, own: OwnAddresses | None = None, **settings: Any) -> RuleSet:
    """Rules ready to be asked; port 25 is open unless settings say otherwise."""
    return RuleSet(read_rules(PolicySettings.model_validate({"denied_ports": (), "rules": rules, **settings})), own)


def ask(
    name: str | None = None,
    port: int = 443,
    *,
    aliases: tuple[str, ...] = (),
    principal: str = "preshared-1",
    scheme: AuthScheme = AuthScheme.PRESHARED,
    kind: TunnelKind = TunnelKind.TCP,
) -> Question:
    """A question about a target."""
    return Question(kind, port, name, aliases, Principal(principal, scheme))


def decide(rules: RuleSet, address: str = ORDINARY, question: Question | None = None) -> Decision:
    """The decision about an address."""
    return rules.select(question or ask()).decide(ip_address(address))


def allowed(rules: RuleSet, address: str = ORDINARY, question: Question | None = None) -> bool:
    """Whether an address may be reached."""
    return decide(rules, address, question).is_allowed


def exchange(target: Target, kind: TunnelKind = TunnelKind.TCP) -> ExchangeContext:
    """An exchange of a preshared principal."""
    context = ExchangeContext(ConnectionContext(0.0), kind, RequestHead(b"CONNECT"), target)
    context.principal = Principal("preshared-1", AuthScheme.PRESHARED)
    return context
