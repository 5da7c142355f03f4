"""Resolving as a hook. A target that is an IP literal is its own answer: nobody is asked."""

from __future__ import annotations

import anyio

from masque.target import Target
from relay.hooks import Continue, EgressSubnet, ExchangeContext, Hooks, Replace, Resolution, Verdict
from relay.resolver.service import Resolver

__all__ = ["resolver_hooks"]


class _Share:
    """One connection's part of the resolver: a client with silent names leaves room for others."""

    def __init__(self, names: int) -> None:
        self.limiter = anyio.CapacityLimiter(names)


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
            share = _Share(resolver.share)
            ctx.connection.put(share)
        subnet = None if at is None else at.network
        return Replace(await resolver.resolve(target.host, subnet=subnet, share=share.limiter))

    return Hooks(resolve=resolve)
