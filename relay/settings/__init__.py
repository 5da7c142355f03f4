"""Settings: one frozen tree, one reader of its sources, and a probe of what the machine can do."""

from __future__ import annotations

from relay.settings.branches import (
    AuthSettings,
    DialSettings,
    EgressFile,
    EgressSettings,
    IssuerSettings,
    LimitSettings,
    ListenSettings,
    PolicyRule,
    PolicySettings,
    PoolSettings,
    QuicSettings,
    QuotaOverride,
    QuotaSettings,
    ResolverSettings,
    SpentSettings,
    TelemetrySettings,
    TemplateSettings,
    TlsSettings,
    TokenSettings,
)
from relay.settings.dump import describe_settings, dump_settings, redacted
from relay.settings.egress_file import read_egress_file
from relay.settings.load import SettingsError, load_settings, require_certificate
from relay.settings.policy_file import read_policy_file
from relay.settings.probe import Capabilities, probe_capabilities
from relay.settings.sources import PortSlice, SourceEntry, parse_port_slice, parse_source
from relay.settings.system import describe_resolver, resolver_routes, resolver_upstreams, system_upstreams
from relay.settings.tree import Settings
from relay.settings.upstreams import Upstream, UpstreamTransport, parse_upstream
from relay.settings.values import (
    BasicEntry,
    ScryptCost,
    encode_basic_entry,
    encode_preshared_entry,
    parse_basic_entry,
    parse_client_entry,
    parse_domain,
    parse_duration,
    parse_port_range,
    parse_preshared_entry,
)

__all__ = [
    "AuthSettings",
    "BasicEntry",
    "Capabilities",
    "DialSettings",
    "EgressFile",
    "EgressSettings",
    "IssuerSettings",
    "LimitSettings",
    "ListenSettings",
    "PolicyRule",
    "PolicySettings",
    "PoolSettings",
    "PortSlice",
    "QuicSettings",
    "QuotaOverride",
    "QuotaSettings",
    "ResolverSettings",
    "ScryptCost",
    "Settings",
    "SettingsError",
    "SourceEntry",
    "SpentSettings",
    "TelemetrySettings",
    "TemplateSettings",
    "TlsSettings",
    "TokenSettings",
    "Upstream",
    "UpstreamTransport",
    "describe_resolver",
    "describe_settings",
    "dump_settings",
    "encode_basic_entry",
    "encode_preshared_entry",
    "load_settings",
    "parse_basic_entry",
    "parse_client_entry",
    "parse_domain",
    "parse_duration",
    "parse_port_range",
    "parse_port_slice",
    "parse_preshared_entry",
    "parse_source",
    "parse_upstream",
    "probe_capabilities",
    "read_egress_file",
    "read_policy_file",
    "redacted",
    "require_certificate",
    "resolver_routes",
    "resolver_upstreams",
    "system_upstreams",
]
