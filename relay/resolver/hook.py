"""Resolving as a hook. A target that is an IP literal is its own answer: nobody is asked."""

from __future__ import annotations

from masque.target import Target
from relay.hooks import Continue, ExchangeContext, Hooks, Replace, Resolution, Verdict
from relay.resolver.service import Resolver

__all__ = ["resolver_hooks"]


def resolver_hooks(resolver: Resolver) -> Hooks:
    """Build the hook that resolves with this resolver. What an earlier hook has found stays."""

    async def resolve(ctx: ExchangeContext, target: Target) -> Verdict[Resolution]:
        """Find the target's addresses; failures reach the chain as the resolver raises them."""
        if ctx.resolution is not None:
            return Continue()
        if target.address is not None:
            return Replace(Resolution((target.address,)))
        return Replace(await resolver.resolve(target.host))

    return Hooks(resolve=resolve)
