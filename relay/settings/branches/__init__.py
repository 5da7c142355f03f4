"""The branches of the settings tree, one file for each concern; `relay.settings.tree` joins them."""

from __future__ import annotations

from relay.settings.branches.auth import AuthSettings
from relay.settings.branches.dial import DialSettings
from relay.settings.branches.egress import EgressFile, EgressSettings, PoolSettings
from relay.settings.branches.limits import LimitSettings
from relay.settings.branches.policy import PolicyRule, PolicySettings
from relay.settings.branches.quotas import QuotaOverride, QuotaSettings
from relay.settings.branches.resolver import ResolverSettings
from relay.settings.branches.serving import ListenSettings, QuicSettings, TemplateSettings, TlsSettings
from relay.settings.branches.telemetry import TelemetrySettings
from relay.settings.branches.tokens import IssuerSettings, SpentSettings, TokenSettings

__all__ = [
    "AuthSettings",
    "DialSettings",
    "EgressFile",
    "EgressSettings",
    "IssuerSettings",
    "LimitSettings",
    "ListenSettings",
    "PolicyRule",
    "PolicySettings",
    "PoolSettings",
    "QuicSettings",
    "QuotaOverride",
    "QuotaSettings",
    "ResolverSettings",
    "SpentSettings",
    "TelemetrySettings",
    "TemplateSettings",
    "TlsSettings",
    "TokenSettings",
]
