"""Policy: which targets may be reached."""

from __future__ import annotations

from relay.policy.addresses import SPECIAL_NETWORKS, SpecialNetwork, is_globally_reachable, special_network
from relay.policy.hook import policy_hooks
from relay.policy.rules import AddressPolicy

__all__ = [
    "SPECIAL_NETWORKS",
    "AddressPolicy",
    "SpecialNetwork",
    "is_globally_reachable",
    "policy_hooks",
    "special_network",
]
