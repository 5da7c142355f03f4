"""The branches of the settings tree, one file for each concern; `relay.settings.tree` joins them."""

from __future__ import annotations

from relay.settings.branches.auth import AuthSettings
from relay.settings.branches.egress import EgressSettings
from relay.settings.branches.limits import LimitSettings
from relay.settings.branches.policy import PolicySettings
from relay.settings.branches.resolver import ResolverSettings
from relay.settings.branches.serving import ListenSettings, QuicSettings, TemplateSettings, TlsSettings
from relay.settings.branches.telemetry import TelemetrySettings
from relay.settings.branches.tokens import IssuerSettings, SpentSettings, TokenSettings

__all__ = [
    "AuthSettings",
    "EgressSettings",
    "IssuerSettings",
    "LimitSettings",
    "ListenSettings",
    "PolicySettings",
    "QuicSettings",
    "ResolverSettings",
    "SpentSettings",
    "TelemetrySettings",
    "TemplateSettings",
    "TlsSettings",
    "TokenSettings",
]
