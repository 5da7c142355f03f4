"""Questions that wait for room: nobody was asked, so nothing is known of the name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import dns.rdatatype
import pytest

from relay.errors import FailureKind
from relay.resolver import Resolver
from relay.telemetry import Metric
from tests.relay.dns_server import records, silent
from tests.relay.resolver.lab import A1, AAAA1, Lab, failure_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient")]


@contextmanager
def no_room(resolver: Resolver) -> Iterator[None]:
    """Hold the only question that may be under way."""
    limiter, holder = resolver._parts.lookup._limiter, object()
    limiter.acquire_on_behalf_of_nowait(holder)
    try:
        yield
    finally:
        limiter.release_on_behalf_of(holder)


async def test_a_name_that_nobody_asked_is_not_silent(lab: Lab) -> None:
    resolver = await lab.resolver(max_queries=1, timeout=0.5)
    lab.server.answer("www.test", records(A1))
    with no_room(resolver):
        assert (await failure_of(resolver, "www.test")).kind is FailureKind.DNS_TIMEOUT
    assert lab.server.asked.total() == 0
    assert len((await resolver.resolve("www.test")).addresses) == 1


async def test_a_name_that_had_hardly_any_time_is_not_silent(lab: Lab) -> None:
    resolver = await lab.resolver(max_queries=2, timeout=0.5)
    lab.server.answer("www.test", silent, silent)
    async with anyio.create_task_group() as group:

        async def ask() -> None:
            assert (await failure_of(resolver, "www.test")).kind is FailureKind.DNS_TIMEOUT

        with no_room(resolver), no_room(resolver):
            group.start_soon(ask)
            await anyio.sleep(0.3)  # of the question's time
    lab.server.answer("www.test", records(A1))
    assert len((await resolver.resolve("www.test")).addresses) == 1


async def test_a_silent_name_is_remembered(lab: Lab) -> None:
    resolver = await lab.resolver(timeout=0.1)
    lab.server.answer("www.test", silent, silent)
    with anyio.fail_after(5):
        while not lab.metrics.value(Metric.DNS_CACHE_HITS):
            assert (await failure_of(resolver, "www.test")).kind is FailureKind.DNS_TIMEOUT


async def test_a_family_that_nobody_asked_is_not_silent(lab: Lab) -> None:
    """One family is known, and the other has no room in the moment that it is waited for."""
    resolver = await lab.resolver(max_queries=1)
    lab.server.answer("www.test", records(A1), records(AAAA1))
    await resolver.query("www.test", dns.rdatatype.AAAA)
    with no_room(resolver):
        assert len((await resolver.resolve("www.test")).addresses) == 1
    assert not lab.server.asked["www.test", "A"]
    assert len((await resolver.resolve("www.test")).addresses) == 2
