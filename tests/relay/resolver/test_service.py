"""Resolver: both families, failures, and what is asked of it."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address

import anyio
import anyio.lowlevel
import dns.edns
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest

from relay.errors import Failure, FailureKind, Side
from relay.hooks import Resolution
from relay.resolver import (
    SECOND_FAMILY_GRACE,
    Resolver,
)
from relay.settings import ResolverSettings
from relay.telemetry import Metric
from tests.relay.dns_server import empty, failing, records, silent
from tests.relay.resolver.lab import A1, AAAA1, SOA, Lab, failure_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient")]


async def test_both_families_ipv6_first(lab: Lab) -> None:
    lab.server.answer("www.test", records(A1), records(AAAA1))
    found = await (await lab.resolver()).resolve("WWW.test.")
    assert found == Resolution((ip_address("2001:db8::1"), ip_address("192.0.2.1")))
    assert lab.server.asked == {("www.test", "A"): 1, ("www.test", "AAAA"): 1}


async def test_aliases_of_both_families_are_told(lab: Lab) -> None:
    """A name's owner may lead each family another way; a rule may refuse either alias."""
    lab.server.answer(
        "www.test",
        records("www.test. 60 IN CNAME four.test.", "four.test. 60 IN A 192.0.2.1"),
        records("www.test. 60 IN CNAME six.test.", "six.test. 60 IN AAAA 2001:db8::1"),
    )
    assert set((await (await lab.resolver()).resolve("www.test")).aliases) == {"four.test", "six.test"}


@pytest.mark.parametrize(
    ("rcode", "name"),
    [(dns.rcode.NXDOMAIN, "NXDOMAIN"), (dns.rcode.SERVFAIL, "SERVFAIL"), (dns.rcode.REFUSED, "REFUSED")],
)
async def test_response_codes_become_failures(lab: Lab, rcode: dns.rcode.Rcode, name: str) -> None:
    lab.server.answer("www.test", failing(rcode), failing(rcode))
    assert await failure_of(await lab.resolver(), "www.test") == Failure(
        FailureKind.DNS_ERROR, Side.TARGET, rcode=name
    )
    assert lab.metrics.value(Metric.DNS_FAILURES) == 1


async def test_no_data(lab: Lab) -> None:
    lab.server.answer("www.test", empty(SOA), empty(SOA))
    assert (await failure_of(await lab.resolver(), "www.test")).rcode == "NODATA"


async def test_extended_errors_are_passed_on(lab: Lab) -> None:
    def blocked(query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.NXDOMAIN)
        response.use_edns(options=[dns.edns.EDEOption(dns.edns.EDECode.BLOCKED, "words of a stranger")])
        return response

    lab.server.answer("www.test", blocked, blocked)
    found = await failure_of(await lab.resolver(), "www.test")
    assert found == Failure(FailureKind.DNS_ERROR, Side.TARGET, rcode="NXDOMAIN", info_code=15)


@pytest.mark.parametrize("other", [failing(dns.rcode.SERVFAIL), empty(), silent])
async def test_one_family_is_enough(lab: Lab, other: object) -> None:
    lab.server.answer("www.test", records(A1), other)  # type: ignore[arg-type]
    started = anyio.current_time()
    assert (await (await lab.resolver()).resolve("www.test")).addresses == (ip_address("192.0.2.1"),)
    assert anyio.current_time() - started < SECOND_FAMILY_GRACE + 0.5


async def test_a_silent_family_is_not_waited_for_again(lab: Lab) -> None:
    lab.server.answer("www.test", records(A1), silent)
    resolver = await lab.resolver()
    await resolver.resolve("www.test")
    hits = lab.metrics.value(Metric.DNS_CACHE_HITS)
    await resolver.resolve("www.test")
    assert lab.metrics.value(Metric.DNS_CACHE_HITS) == hits + 2
    asked = lab.server.asked["www.test", "AAAA"]
    lab.clock.now += 6
    await resolver.resolve("www.test")
    assert lab.server.asked["www.test", "AAAA"] > asked


@pytest.mark.parametrize(
    ("a", "aaaa", "kind", "rcode"),
    [
        (empty(), failing(dns.rcode.SERVFAIL), FailureKind.DNS_ERROR, "SERVFAIL"),
        (silent, empty(), FailureKind.DNS_TIMEOUT, None),
        (silent, failing(dns.rcode.NXDOMAIN), FailureKind.DNS_ERROR, "NXDOMAIN"),
    ],
)
async def test_the_failure_that_says_most_wins(
    lab: Lab, a: object, aaaa: object, kind: FailureKind, rcode: str | None
) -> None:
    lab.server.answer("www.test", a, aaaa)  # type: ignore[arg-type]
    found = await failure_of(await lab.resolver(timeout=0.2), "www.test")
    assert (found.kind, found.rcode) == (kind, rcode)


def test_a_resolver_needs_an_upstream() -> None:
    with pytest.raises(ValueError, match="at least one upstream"):
        Resolver(ResolverSettings(), [])


async def test_what_is_raised_inside_passes_as_it_is(lab: Lab) -> None:
    async def use() -> None:
        async with Resolver(ResolverSettings(), [lab.server.upstream]):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await use()


async def test_leaving_ends_what_is_under_way(lab: Lab) -> None:
    lab.server.answer("www.test", silent, silent)
    resolver = Resolver(ResolverSettings(timeout=timedelta(seconds=60)), [lab.server.upstream])

    async def ask() -> None:
        assert (await failure_of(resolver, "www.test")).kind is FailureKind.DNS_TIMEOUT

    async with anyio.create_task_group() as group, resolver:
        group.start_soon(ask)
        while len(lab.server.queries) < 2:
            await anyio.lowlevel.checkpoint()
