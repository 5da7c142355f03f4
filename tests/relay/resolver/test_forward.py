"""Several upstreams: who is asked, when, and how often."""

from __future__ import annotations

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

from relay.errors import FailureKind
from relay.resolver import Forwarder, Question, forward
from relay.settings import ResolverSettings
from tests.relay.dns_server import failing, records, running_server, silent
from tests.relay.resolver.lab import A1, AAAA1, Lab, failure_of, unused_upstream

pytestmark = pytest.mark.anyio


async def test_silence_ends_at_the_timeout_after_a_third_try(lab: Lab) -> None:
    lab.server.answer("www.test", silent, silent)
    started = anyio.current_time()
    found = await failure_of(await lab.resolver(timeout=0.6), "www.test")
    assert found.kind is FailureKind.DNS_TIMEOUT
    assert anyio.current_time() - started > 0.5
    assert lab.server.asked["www.test", "A"] == 3


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
async def test_the_next_upstream_is_asked_after_an_error(lab: Lab, rcode: dns.rcode.Rcode) -> None:
    lab.server.answer("www.test", records(A1), records(AAAA1))
    async with running_server() as broken:
        broken.answer("www.test", failing(rcode), failing(rcode))
        found = await (await lab.resolver(broken.upstream)).resolve("www.test")
        assert len(found.addresses) == 2
        assert broken.asked.total() == 2


async def test_the_next_upstream_is_asked_after_silence(lab: Lab) -> None:
    lab.server.answer("www.test", records(A1), records(AAAA1))
    found = await (await lab.resolver(unused_upstream(), timeout=0.8)).resolve("www.test")
    assert len(found.addresses) == 2


async def test_an_upstreams_error_says_more_than_anothers_silence(lab: Lab) -> None:
    async with running_server() as broken:
        broken.answer("www.test", failing(dns.rcode.SERVFAIL), failing(dns.rcode.SERVFAIL))
        lab.server.answer("www.test", silent, silent)
        assert (await failure_of(await lab.resolver(broken.upstream, timeout=0.6), "www.test")).rcode == "SERVFAIL"
        assert broken.asked["www.test", "A"] == 1


async def test_absence_is_not_asked_elsewhere(lab: Lab) -> None:
    async with running_server() as first:
        assert (await failure_of(await lab.resolver(first.upstream), "www.test")).rcode == "NXDOMAIN"
    assert lab.server.asked.total() == 0


async def test_questions_under_way_are_bounded(lab: Lab) -> None:
    lab.server.answer("www.test", silent, silent)
    resolver = await lab.resolver(max_queries=1, timeout=0.3)
    assert (await failure_of(resolver, "www.test")).kind is FailureKind.DNS_TIMEOUT
    assert set(lab.server.asked) == {("www.test", "AAAA")}


async def test_a_probe_that_breaks_is_a_failed_probe(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        """A transport with a fault of its own."""

        async def ask(self, question: Question, *, has_edns: bool) -> dns.message.Message:
            raise ZeroDivisionError

    monkeypatch.setattr(forward, "make_transport", lambda *_: Broken())
    async with anyio.create_task_group() as group:
        forwarder = Forwarder([lab.server.upstream], ResolverSettings(), group, lab.metrics)
        (peer,) = forwarder._peers
        group.start_soon(forwarder._probe, peer)
    assert peer.health.failures == 1
