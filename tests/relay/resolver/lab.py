"""A DNS server, a resolver that asks it, a clock that goes only when told, and what was counted."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest

from relay.errors import Failure, RelayError
from relay.resolver import Resolver
from relay.settings import ResolverSettings, Upstream
from relay.telemetry import CounterMetrics
from tests.relay.dns_server import DnsServer, running_server

__all__ = ["A1", "AAAA1", "SOA", "Clock", "Lab", "failure_of", "running_lab", "unused_upstream"]

A1 = "www.test. 60 IN A 192.0.2.1"
AAAA1 = "www.test. 60 IN AAAA 2001:db8::1"
SOA = "test. 100 IN SOA ns.test. admin.test. 1 2 3 4 30"


@dataclass
class Clock:
    """A clock that goes only when told."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@dataclass
class Lab:
    """A server, resolvers that ask it, and what they counted."""

    server: DnsServer
    stack: AsyncExitStack
    clock: Clock = field(default_factory=Clock)
    metrics: CounterMetrics = field(default_factory=CounterMetrics)

    async def resolver(
        self, *others: Upstream, routes: dict[str, list[Upstream]] | None = None, **settings: object
    ) -> Resolver:
        """Enter a resolver that asks `others`, then the server. It is left with the lab."""
        chosen = ResolverSettings.model_validate({"timeout": 5, "min_ttl": 0, **settings})
        upstreams = [*others, self.server.upstream]
        made = Resolver(chosen, upstreams, routes, metrics=self.metrics, clock=self.clock)
        return await self.stack.enter_async_context(made)


@asynccontextmanager
async def running_lab() -> AsyncIterator[Lab]:
    """Run a lab."""
    async with running_server() as server, AsyncExitStack() as stack:
        yield Lab(server, stack)


async def failure_of(resolver: Resolver, name: str) -> Failure:
    """Return why a name cannot be resolved."""
    with pytest.raises(RelayError) as caught:
        await resolver.resolve(name)
    return caught.value.failure


def unused_upstream() -> Upstream:
    """Return an upstream that nobody is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        return Upstream(ip_address("127.0.0.1"), unused.getsockname()[1])
