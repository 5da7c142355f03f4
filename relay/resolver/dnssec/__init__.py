"""DNSSEC validation: from trust anchors to a verdict on each response (RFC 4033 to 4035, 5155, 6840)."""

from __future__ import annotations

from relay.resolver.dnssec.anchors import TrustAnchors, parse_trust_anchors, read_trust_anchors
from relay.resolver.dnssec.asker import ValidatingAsker, wall_clock
from relay.resolver.dnssec.validator import Validator
from relay.resolver.dnssec.verdict import InfoCode, Security, Verdict
from relay.resolver.dnssec.work import ValidationLimits, Work

__all__ = [
    "InfoCode",
    "Security",
    "TrustAnchors",
    "ValidatingAsker",
    "ValidationLimits",
    "Validator",
    "Verdict",
    "Work",
    "parse_trust_anchors",
    "read_trust_anchors",
    "wall_clock",
]
