"""Egress as a hook: the source address of the settings, by the target address's family."""

from __future__ import annotations

from masque.target import IPAddress
from relay.hooks import Continue, EgressBinding, ExchangeContext, Hooks, Replace, Verdict
from relay.settings import EgressSettings

__all__ = ["egress_hooks"]


def egress_hooks(settings: EgressSettings) -> Hooks:
    """Build the hook that chooses the source address. What an earlier hook has chosen stays."""

    async def choose_egress(ctx: ExchangeContext, address: IPAddress) -> Verdict[EgressBinding]:
        """Choose the configured source of the address's family."""
        if ctx.egress is not None:
            return Continue()
        return Replace(EgressBinding(settings.ipv4 if address.version == 4 else settings.ipv6))

    return Hooks(choose_egress=choose_egress)
