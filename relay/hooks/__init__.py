"""Hooks: how an application or a built-in room takes part in an exchange's life."""

from __future__ import annotations

from relay.hooks.chain import HookChain
from relay.hooks.context import (
    AuthScheme,
    ConnectionContext,
    EgressBinding,
    EgressSubnet,
    ExchangeContext,
    IPAddress,
    Principal,
    Resolution,
    RunningTunnel,
    TunnelKind,
)
from relay.hooks.phases import (
    Application,
    Authenticate,
    Authorize,
    Challenges,
    CheckAddresses,
    ChooseEgress,
    Hooks,
    Phase,
    Resolve,
    TunnelClosed,
    TunnelOpened,
)
from relay.hooks.verdicts import Continue, Reject, Replace, Verdict

__all__ = [
    "Application",
    "AuthScheme",
    "Authenticate",
    "Authorize",
    "Challenges",
    "CheckAddresses",
    "ChooseEgress",
    "ConnectionContext",
    "Continue",
    "EgressBinding",
    "EgressSubnet",
    "ExchangeContext",
    "HookChain",
    "Hooks",
    "IPAddress",
    "Phase",
    "Principal",
    "Reject",
    "Replace",
    "Resolution",
    "Resolve",
    "RunningTunnel",
    "TunnelClosed",
    "TunnelKind",
    "TunnelOpened",
    "Verdict",
]
