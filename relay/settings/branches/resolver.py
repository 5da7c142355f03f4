"""How names are resolved."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import model_validator

from relay.settings.branches.bounds import Branch, Duration, lasting, readable_by, within
from relay.settings.values import parse_upstream

__all__ = ["ResolverSettings"]


class ResolverSettings(Branch):
    """How the relay resolves targets' names."""

    upstreams: tuple[Annotated[str, readable_by(parse_upstream)], ...] = ()
    """Recursive resolvers in order of preference: address or address:port. Empty: those of the system."""
    timeout: Annotated[Duration, lasting(0.05, 60)] = timedelta(seconds=5)
    """How long a name may take in all, over all upstreams."""
    max_queries: Annotated[int, within(1, 65536)] = 512
    """Questions that may be under way at the same time."""
    cache_entries: Annotated[int, within(0, 10_000_000)] = 10_000
    """Answers kept; the least recently used goes first."""
    min_ttl: Annotated[Duration, lasting(0, 3600)] = timedelta(seconds=5)
    """Answers are kept at least this long."""
    max_ttl: Annotated[Duration, lasting(0, 604_800)] = timedelta(hours=1)
    """Answers are kept no longer than this."""

    @model_validator(mode="after")
    def _ttl_order(self) -> ResolverSettings:
        if self.min_ttl > self.max_ttl:
            raise ValueError("min_ttl, max_ttl: the first must not be longer than the second")
        return self
