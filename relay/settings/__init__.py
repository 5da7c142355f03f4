"""Settings: one frozen tree, one reader of its sources, and a probe of what the machine can do."""

from __future__ import annotations

from relay.settings.branches import (
    AuthSettings,
    EgressSettings,
    LimitSettings,
    ListenSettings,
    PolicySettings,
    QuicSettings,
    ResolverSettings,
    TelemetrySettings,
    TemplateSettings,
    TlsSettings,
)
from relay.settings.dump import describe_settings, dump_settings, redacted
from relay.settings.load import SettingsError, load_settings, require_certificate
from relay.settings.probe import Capabilities, probe_capabilities
from relay.settings.system import describe_resolver, resolver_routes, resolver_upstreams, system_upstreams
from relay.settings.tree import Settings
from relay.settings.upstreams import Upstream, UpstreamTransport, parse_suffix, parse_upstream
from relay.settings.values import (
    BasicEntry,
    ScryptCost,
    encode_basic_entry,
    encode_preshared_entry,
    parse_basic_entry,
    parse_duration,
    parse_preshared_entry,
)

__all__ = [
    "AuthSettings",
    "BasicEntry",
    "Capabilities",
    "EgressSettings",
    "LimitSettings",
    "ListenSettings",
    "PolicySettings",
    "QuicSettings",
    "ResolverSettings",
    "ScryptCost",
    "Settings",
    "SettingsError",
    "TelemetrySettings",
    "TemplateSettings",
    "TlsSettings",
    "Upstream",
    "UpstreamTransport",
    "describe_resolver",
    "describe_settings",
    "dump_settings",
    "encode_basic_entry",
    "encode_preshared_entry",
    "load_settings",
    "parse_basic_entry",
    "parse_duration",
    "parse_preshared_entry",
    "parse_suffix",
    "parse_upstream",
    "probe_capabilities",
    "redacted",
    "require_certificate",
    "resolver_routes",
    "resolver_upstreams",
    "system_upstreams",
]
