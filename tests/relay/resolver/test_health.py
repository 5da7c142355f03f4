"""How an upstream's latency and failures decide who is asked."""

from __future__ import annotations

import asyncio
import itertools

import anyio
import anyio.lowlevel
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import FailureKind
from relay.resolver import Health, health
from relay.settings import Upstream
from relay.telemetry import Metric
from tests.relay.dns_server import DnsServer, records, running_server, silent
from tests.relay.resolver.lab import A1, AAAA1, Lab, failure_of, unused_upstream

pytestmark = pytest.mark.anyio


def test_patience_follows_latency() -> None:
    health = Health()
    assert (health.latency, health.patience) == (None, 0.4)
    for _ in range(50):
        health.succeeded(0.25)
    assert health.latency == pytest.approx(0.25)
    assert health.patience == pytest.approx(0.5, abs=0.01)
    for _ in range(50):
        health.succeeded(0.001)
    assert health.patience == 0.3
    health.succeeded(60.0)
    assert health.patience == 2.0


def test_failures_in_a_row_lead_to_a_rest_that_doubles() -> None:
    health = Health()
    assert [health.failed(10.0) for _ in range(4)] == [False, False, False, True]
    assert not health.is_well
    rests = []
    for _ in range(9):
        ends = next(tenth / 10 for tenth in itertools.count(100) if health.wants_probe(tenth / 10))
        rests.append(round(ends - 10, 1))
        assert not health.failed(10.0)
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert health.succeeded(0.1)
    assert not health.succeeded(0.1)
    assert health.is_well


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e6)), max_size=60))
def test_patience_and_rest_have_bounds(outcomes: list[float | None]) -> None:
    health = Health()
    for now, seconds in enumerate(outcomes):
        if seconds is None:
            health.failed(float(now))
        else:
            health.succeeded(seconds)
        assert 0.3 <= health.patience <= 2.0
        assert health.is_well or health.wants_probe(now + 60.0)


async def test_a_silent_upstream_costs_its_patience_and_then_nothing(lab: Lab) -> None:
    async with running_server() as mute:
        resolver = await lab.resolver(mute.upstream)
        spent = []
        for number in range(4):
            lab.server.answer(f"n{number}.test", records(f"n{number}.test. 60 IN A 192.0.2.1"))
            mute.answer(f"n{number}.test", silent, silent)
            started = anyio.current_time()
            await resolver.resolve(f"n{number}.test")
            spent.append(anyio.current_time() - started)
        assert min(spent[:2]) > 0.3
        assert [mute.asked[f"n{number}.test", "A"] for number in range(4)] == [1, 1, 0, 0]


async def revive(lab: Lab, upstream: Upstream) -> DnsServer:
    """Start a server where there was none."""
    made = DnsServer()
    made.answer("back.test", records("back.test. 60 IN A 192.0.2.9"))
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: made, local_addr=("127.0.0.1", upstream.port))
    lab.stack.callback(made.close)
    return made


async def test_a_resting_upstream_is_probed_and_comes_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_FIRST_REST", 0.05)
    upstream = unused_upstream()
    resolver = await lab.resolver(upstream)
    for number in range(4):
        await failure_of(resolver, f"n{number}.test")
    revived = await revive(lab, upstream)
    await anyio.sleep(0.05)
    await failure_of(resolver, "other.test")  # has it probed
    with anyio.fail_after(2):
        while revived.asked[".", "NS"] == 0:
            await anyio.lowlevel.checkpoint()
    await anyio.wait_all_tasks_blocked()
    assert revived.asked["other.test", "A"] == 0
    assert str((await resolver.resolve("back.test")).addresses[0]) == "192.0.2.9"


async def test_when_all_rest_they_are_asked_all_the_same(lab: Lab) -> None:
    lab.server.upstream = unused_upstream()
    resolver = await lab.resolver()
    for number in range(4):
        assert (await failure_of(resolver, f"n{number}.test")).kind is FailureKind.DNS_ERROR
    await revive(lab, lab.server.upstream)
    assert str((await resolver.resolve("back.test")).addresses[0]) == "192.0.2.9"


async def test_a_slow_upstream_may_still_win(lab: Lab) -> None:
    """The first answers after its patience, and before the second, which is slower."""
    async with running_server() as slow:
        for server in (slow, lab.server):
            server.answer("www.test", records(A1), records(AAAA1))
            server.gate = asyncio.Event()
        resolver = await lab.resolver(slow.upstream)
        async with anyio.create_task_group() as group:
            group.start_soon(resolver.resolve, "www.test")
            while lab.server.asked.total() < 2:
                await anyio.lowlevel.checkpoint()
            assert slow.gate is not None
            slow.gate.set()
        assert slow.asked.total() == 2
        assert lab.metrics.value(Metric.DNS_QUERIES) == 4


async def test_an_upstream_that_is_not_there_costs_no_time(lab: Lab) -> None:
    lab.server.answer("www.test", records(A1), records(AAAA1))
    started = anyio.current_time()
    await (await lab.resolver(unused_upstream())).resolve("www.test")
    assert anyio.current_time() - started < 0.3


async def test_nobody_there_at_all(lab: Lab) -> None:
    resolver = await lab.resolver(unused_upstream())
    lab.server.upstream = unused_upstream()
    found = await failure_of(await lab.resolver(unused_upstream()), "www.test")
    assert (found.kind, found.rcode) == (FailureKind.DNS_ERROR, None)
    del resolver


@pytest.mark.parametrize("rcode", [dns.rcode.FORMERR, dns.rcode.NOTIMP])
async def test_an_upstream_older_than_edns(lab: Lab, rcode: dns.rcode.Rcode) -> None:
    def old(query: dns.message.Message) -> dns.message.Message:
        made = records(A1, rcode=dns.rcode.NOERROR)(query)
        assert made is not None
        if query.edns >= 0:
            made = dns.message.Message(query.id)
            made.flags |= dns.flags.QR
            made.set_rcode(rcode)
        return made

    lab.server.answer("www.test", old, old)
    resolver = await lab.resolver()
    assert (await resolver.resolve("www.test")).addresses
    lab.server.queries.clear()
    lab.server.answer("other.test", old, old)
    await failure_of(resolver, "other.test")
    assert [query.edns for query in lab.server.queries] == [-1, -1]
