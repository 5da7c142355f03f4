"""Policy: which targets may be reached."""

from __future__ import annotations

from relay.policy.addresses import SPECIAL_NETWORKS, SpecialNetwork, is_globally_reachable, special_network
from relay.policy.embedded import embedded_ipv4, isatap_ipv4
from relay.policy.hook import PolicyGate
from relay.policy.own import OwnAddresses, is_routed_locally, probe_local_routes
from relay.policy.prefixes import PrefixTable
from relay.policy.rules import Question, Rule, Ruling, read_rules, suffixes
from relay.policy.ruleset import Decision, RuleSet, Selection

__all__ = [
    "SPECIAL_NETWORKS",
    "Decision",
    "OwnAddresses",
    "PolicyGate",
    "PrefixTable",
    "Question",
    "Rule",
    "RuleSet",
    "Ruling",
    "Selection",
    "SpecialNetwork",
    "embedded_ipv4",
    "is_globally_reachable",
    "is_routed_locally",
    "isatap_ipv4",
    "probe_local_routes",
    "read_rules",
    "special_network",
    "suffixes",
]
