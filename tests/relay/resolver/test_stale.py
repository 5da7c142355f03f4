"""Old answers when there are no new ones (RFC 8767), and new ones before they are needed."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import anyio
import anyio.lowlevel
import dns.edns
import dns.message
import dns.rcode
import pytest

from relay.errors import FailureKind
from relay.resolver import Resolver
from relay.telemetry import Metric
from tests.relay.dns_server import Reply, empty, failing, records, silent
from tests.relay.resolver.lab import A1, SOA, Lab, failure_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient")]

KNOWN = ip_address("192.0.2.1")
NEW = "www.test. 60 IN A 192.0.2.2"


def bogus(query: dns.message.Message) -> dns.message.Message:
    made = dns.message.make_response(query)
    made.set_rcode(dns.rcode.SERVFAIL)
    made.use_edns(options=[dns.edns.EDEOption(dns.edns.EDECode.DNSSEC_BOGUS)])
    return made


async def known(lab: Lab, max_stale: float = 1000) -> Resolver:
    """Return a resolver whose answer for www.test ended a second ago."""
    lab.server.answer("www.test", records(A1), empty(SOA))
    resolver = await lab.resolver(stale_after=0.1, max_stale=max_stale)
    await resolver.resolve("www.test")
    lab.clock.now += 61
    return resolver


@pytest.mark.parametrize("reply", [silent, failing(dns.rcode.SERVFAIL), failing(dns.rcode.REFUSED)])
async def test_an_old_answer_stands_in(lab: Lab, reply: Reply) -> None:
    resolver = await known(lab)
    lab.server.answer("www.test", reply, empty(SOA))
    assert (await resolver.resolve("www.test")).addresses == (KNOWN,)
    assert lab.metrics.value(Metric.DNS_STALE_ANSWERS) == 1


@pytest.mark.parametrize("reply", [empty(SOA), records(SOA, rcode=dns.rcode.NXDOMAIN)])
async def test_absence_replaces_an_old_answer(lab: Lab, reply: Reply) -> None:
    resolver = await known(lab)
    lab.server.answer("www.test", reply, reply)
    assert (await failure_of(resolver, "www.test")).rcode in {"NODATA", "NXDOMAIN"}
    assert lab.metrics.value(Metric.DNS_STALE_ANSWERS) == 0


async def test_what_a_validator_refuses_replaces_an_old_answer(lab: Lab) -> None:
    resolver = await known(lab)
    lab.server.answer("www.test", bogus, bogus)
    found = await failure_of(resolver, "www.test")
    assert (found.rcode, found.info_code) == ("SERVFAIL", 6)


async def test_a_late_answer_is_kept_for_the_next(lab: Lab) -> None:
    resolver = await known(lab)
    lab.server.answer("www.test", records(NEW), empty(SOA))
    gate = lab.server.gate = asyncio.Event()
    assert (await resolver.resolve("www.test")).addresses == (KNOWN,)
    gate.set()
    with anyio.fail_after(2):
        while (await resolver.resolve("www.test")).addresses == (KNOWN,):
            await anyio.lowlevel.checkpoint()
    assert lab.metrics.value(Metric.DNS_STALE_ANSWERS) > 0


async def test_a_failure_is_not_repeated_for_half_a_minute(lab: Lab) -> None:
    resolver = await known(lab)
    lab.server.answer("www.test", failing(dns.rcode.SERVFAIL), empty(SOA))
    for elapsed, asked in ((0.0, 2), (29.0, 2), (2.0, 3)):
        lab.clock.now += elapsed
        assert (await resolver.resolve("www.test")).addresses == (KNOWN,)
        assert lab.server.asked["www.test", "A"] == asked


async def test_no_old_answer_beyond_its_bound(lab: Lab) -> None:
    for max_stale, addresses in ((100, 1), (0, 0)):
        resolver = await known(lab, max_stale=max_stale)
        lab.server.answer("www.test", failing(dns.rcode.SERVFAIL), empty(SOA))
        if addresses:
            assert len((await resolver.resolve("www.test")).addresses) == addresses
            lab.clock.now += 100
        assert (await failure_of(resolver, "www.test")).rcode == "SERVFAIL"


async def test_silence_without_an_old_answer_is_a_timeout(lab: Lab) -> None:
    lab.server.answer("www.test", silent, silent)
    assert (await failure_of(await lab.resolver(timeout=0.1), "www.test")).kind is FailureKind.DNS_TIMEOUT


@pytest.mark.parametrize(("uses", "is_on", "asked"), [(4, True, 2), (2, True, 1), (4, False, 1)])
async def test_a_hot_answer_is_refreshed_before_it_ends(lab: Lab, uses: int, is_on: bool, asked: int) -> None:
    lab.server.answer("www.test", records(A1), records("www.test. 600 IN AAAA 2001:db8::1"))
    resolver = await lab.resolver(refresh=is_on)
    for _ in range(uses):
        await resolver.resolve("www.test")
    lab.clock.now += 55
    lab.server.answer("www.test", records(NEW), empty(SOA))
    found = await resolver.resolve("www.test")
    assert KNOWN in found.addresses
    await anyio.wait_all_tasks_blocked()
    with anyio.move_on_after(0.3):
        while lab.server.asked["www.test", "A"] < 2:
            await anyio.lowlevel.checkpoint()
    await anyio.wait_all_tasks_blocked()
    assert lab.server.asked["www.test", "A"] == asked
    assert lab.server.asked["www.test", "AAAA"] == 1
    await resolver.resolve("www.test")
    assert lab.server.asked["www.test", "A"] == asked


async def test_short_answers_are_not_refreshed(lab: Lab) -> None:
    lab.server.answer("www.test", records("www.test. 5 IN A 192.0.2.1"), records("www.test. 5 IN AAAA ::1"))
    resolver = await lab.resolver()
    for _ in range(9):
        await resolver.resolve("www.test")
    lab.clock.now += 4.9
    await resolver.resolve("www.test")
    await anyio.wait_all_tasks_blocked()
    assert lab.server.asked.total() == 2


async def test_a_refresh_that_fails_leaves_the_answer(lab: Lab) -> None:
    lab.server.answer("www.test", records(A1), empty(SOA))
    resolver = await lab.resolver()
    for _ in range(4):
        await resolver.resolve("www.test")
    lab.clock.now += 55
    lab.server.answer("www.test", failing(dns.rcode.SERVFAIL), empty(SOA))
    await resolver.resolve("www.test")
    with anyio.fail_after(2):
        while lab.server.asked["www.test", "A"] < 2:
            await anyio.lowlevel.checkpoint()
    await anyio.wait_all_tasks_blocked()
    hits = lab.metrics.value(Metric.DNS_CACHE_HITS)
    assert (await resolver.resolve("www.test")).addresses == (KNOWN,)
    assert lab.metrics.value(Metric.DNS_CACHE_HITS) > hits
