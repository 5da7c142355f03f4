"""Settings: one frozen tree, one reader of its sources, and a probe of what the machine can do."""

from __future__ import annotations

from relay.settings.branches import (
    AuthSettings,
    EgressSettings,
    IssuerSettings,
    LimitSettings,
    ListenSettings,
    PolicySettings,
    QuicSettings,
    ResolverSettings,
    SpentSettings,
    TelemetrySettings,
    TemplateSettings,
    TlsSettings,
    TokenSettings,
)
from relay.settings.dump import describe_settings, dump_settings, redacted
from relay.settings.load import SettingsError, load_settings, require_certificate
from relay.settings.probe import Capabilities, probe_capabilities
from relay.settings.system import resolver_upstreams, system_upstreams
from relay.settings.tree import Settings
from relay.settings.values import (
    BasicEntry,
    ScryptCost,
    Upstream,
    encode_basic_entry,
    encode_preshared_entry,
    parse_basic_entry,
    parse_duration,
    parse_preshared_entry,
    parse_upstream,
)

__all__ = [
    "AuthSettings",
    "BasicEntry",
    "Capabilities",
    "EgressSettings",
    "IssuerSettings",
    "LimitSettings",
    "ListenSettings",
    "PolicySettings",
    "QuicSettings",
    "ResolverSettings",
    "ScryptCost",
    "Settings",
    "SettingsError",
    "SpentSettings",
    "TelemetrySettings",
    "TemplateSettings",
    "TlsSettings",
    "TokenSettings",
    "Upstream",
    "describe_settings",
    "dump_settings",
    "encode_basic_entry",
    "encode_preshared_entry",
    "load_settings",
    "parse_basic_entry",
    "parse_duration",
    "parse_preshared_entry",
    "parse_upstream",
    "probe_capabilities",
    "redacted",
    "require_certificate",
    "resolver_upstreams",
    "system_upstreams",
]
