"""Resolving as a hook. A target that is an IP literal is its own answer: nobody is asked."""

from __future__ import annotations

import anyio

from masque.target import Target
from relay.hooks import Continue, EgressSubnet, ExchangeContext, Hooks, Replace, Resolution, Verdict
from relay.resolver.service import Resolver

__all__ = ["resolver_hooks"]


_AT_ONCE = 32
"Names of one connection under way; further ones wait, so that a client with silent names leaves room for others."


class _Share:
    """One connection's part of the resolver."""

    def __init__(self) -> None:
        self.limiter = anyio.CapacityLimiter(_AT_ONCE)


def resolver_hooks(resolver: Resolver) -> Hooks:
    """Build the hook that resolves with this resolver. What an earlier hook has found stays."""

    async def resolve(ctx: ExchangeContext, target: Target) -> Verdict[Resolution]:
        """Find the target's addresses; failures reach the chain as the resolver raises them."""
        if ctx.resolution is not None:
            return Continue()
        if target.address is not None:
            return Replace(Resolution((target.address,)))
        at = ctx.get(EgressSubnet)
        share = ctx.connection.get(_Share)
        if share is None:
            share = _Share()
            ctx.connection.put(share)
        async with share.limiter:
            return Replace(await resolver.resolve(target.host, subnet=None if at is None else at.network))

    return Hooks(resolve=resolve)
