"""relay.resolver against a real DNS server on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
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
from hypothesis import given
from hypothesis import strategies as st

from masque.head import RequestHead
from masque.target import Target
from relay.errors import Failure, FailureKind, RelayError, Side
from relay.hooks import ConnectionContext, Continue, ExchangeContext, HookChain, Reject, Resolution, TunnelKind
from relay.resolver import (
    MAX_ADDRESSES,
    MAX_ALIASES,
    NEGATIVE_TTL,
    SECOND_FAMILY_GRACE,
    AnswerCache,
    Flights,
    Question,
    Resolver,
    read_answer,
    resolver_hooks,
)
from relay.settings import ResolverSettings, Upstream
from relay.telemetry import CounterMetrics, Metric
from tests.relay.dns_server import DnsServer, empty, failing, records, running_server, silent

pytestmark = pytest.mark.anyio

A1 = "www.test. 60 IN A 192.0.2.1"
AAAA1 = "www.test. 60 IN AAAA 2001:db8::1"
SOA = "test. 100 IN SOA ns.test. admin.test. 1 2 3 4 30"


@dataclass
class Clock:
    """A clock that goes only when told."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Lab:
    """A server, a resolver that asks it, and what it counted."""

    server: DnsServer
    clock: Clock = field(default_factory=Clock)
    metrics: CounterMetrics = field(default_factory=CounterMetrics)

    def resolver(self, *others: Upstream, **settings: object) -> Resolver:
        chosen = ResolverSettings.model_validate({"timeout": 2, "min_ttl": 0, **settings})
        return Resolver(chosen, [*others, self.server.upstream], metrics=self.metrics, clock=self.clock)


@pytest.fixture
async def lab(anyio_backend: str) -> AsyncIterator[Lab]:
    async with running_server() as server:
        yield Lab(server)


async def failure_of(resolver: Resolver, name: str) -> Failure:
    with pytest.raises(RelayError) as caught:
        await resolver.resolve(name)
    return caught.value.failure


def unused_upstream() -> Upstream:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        return Upstream(ip_address("127.0.0.1"), unused.getsockname()[1])


async def test_both_families_ipv6_first(lab: Lab) -> None:
    lab.server.answer("www.test", records(A1), records(AAAA1))
    found = await lab.resolver().resolve("WWW.test.")
    assert found == Resolution((ip_address("2001:db8::1"), ip_address("192.0.2.1")))
    assert lab.server.asked == {("www.test", "A"): 1, ("www.test", "AAAA"): 1}


@pytest.mark.parametrize(
    ("rcode", "name"),
    [(dns.rcode.NXDOMAIN, "NXDOMAIN"), (dns.rcode.SERVFAIL, "SERVFAIL"), (dns.rcode.REFUSED, "REFUSED")],
)
async def test_response_codes_become_failures(lab: Lab, rcode: dns.rcode.Rcode, name: str) -> None:
    lab.server.answer("www.test", failing(rcode), failing(rcode))
    assert await failure_of(lab.resolver(), "www.test") == Failure(FailureKind.DNS_ERROR, Side.TARGET, rcode=name)
    assert lab.metrics.value(Metric.DNS_FAILURES) == 1


async def test_no_data(lab: Lab) -> None:
    lab.server.answer("www.test", empty(SOA), empty(SOA))
    assert (await failure_of(lab.resolver(), "www.test")).rcode == "NODATA"


async def test_extended_errors_are_passed_on(lab: Lab) -> None:
    def blocked(query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.NXDOMAIN)
        response.use_edns(options=[dns.edns.EDEOption(dns.edns.EDECode.BLOCKED, "words of a stranger")])
        return response

    lab.server.answer("www.test", blocked, blocked)
    found = await failure_of(lab.resolver(), "www.test")
    assert found == Failure(FailureKind.DNS_ERROR, Side.TARGET, rcode="NXDOMAIN", info_code=15)


@pytest.mark.parametrize("other", [failing(dns.rcode.SERVFAIL), empty(), silent])
async def test_one_family_is_enough(lab: Lab, other: object) -> None:
    lab.server.answer("www.test", records(A1), other)  # type: ignore[arg-type]
    started = anyio.current_time()
    assert (await lab.resolver().resolve("www.test")).addresses == (ip_address("192.0.2.1"),)
    assert anyio.current_time() - started < SECOND_FAMILY_GRACE + 0.5


async def test_a_silent_family_is_not_waited_for_again(lab: Lab) -> None:
    lab.server.answer("www.test", records(A1), silent)
    resolver = lab.resolver()
    await resolver.resolve("www.test")
    await resolver.resolve("www.test")
    assert lab.server.asked["www.test", "AAAA"] == 1
    lab.clock.now += 6
    await resolver.resolve("www.test")
    assert lab.server.asked["www.test", "AAAA"] == 2


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
    found = await failure_of(lab.resolver(timeout=0.2), "www.test")
    assert (found.kind, found.rcode) == (kind, rcode)


async def test_a_cut_answer_is_asked_again_by_tcp(lab: Lab) -> None:
    lab.server.truncates = True
    many = [f"www.test. 60 IN A 192.0.2.{n}" for n in range(200)]
    lab.server.answer("www.test", records(*many))
    found = await lab.resolver().resolve("www.test")
    assert [str(address) for address in found.addresses] == [f"192.0.2.{n}" for n in range(MAX_ADDRESSES)]
    assert lab.server.asked_by_tcp["www.test", "A"] == 1


async def test_an_answer_of_thousands_is_refused(lab: Lab) -> None:
    """Whoever owns a name decides how long its answer is; reading it may not stop the loop."""
    lab.server.truncates = True
    many = [f"www.test. 60 IN A 192.0.{n >> 8}.{n & 255}" for n in range(2000)]
    lab.server.answer("www.test", records(*many), empty())
    found = await failure_of(lab.resolver(), "www.test")
    assert (found.kind, found.rcode) == (FailureKind.DNS_ERROR, None)


async def test_silence_ends_at_the_timeout_after_a_second_try(lab: Lab) -> None:
    lab.server.answer("www.test", silent, silent)
    started = anyio.current_time()
    found = await failure_of(lab.resolver(timeout=0.3), "www.test")
    assert found.kind is FailureKind.DNS_TIMEOUT
    assert 0.2 < anyio.current_time() - started < 0.8
    assert lab.server.asked["www.test", "A"] == 2


@pytest.mark.parametrize("wrong", ["id", "question", "garbage"])
async def test_a_forged_answer_is_not_believed(lab: Lab, wrong: str) -> None:
    def forge(query: dns.message.Message) -> dns.message.Message:
        if wrong == "question":
            query.question = [dns.rrset.RRset(dns.name.from_text("other.test"), dns.rdataclass.IN, dns.rdatatype.A)]
        response = records(A1)(query)
        assert response is not None
        if wrong == "id":
            response.id ^= 1
        if wrong == "garbage":
            response.flags &= 0x7FFF
        return response

    lab.server.answer("www.test", forge, forge)
    assert (await failure_of(lab.resolver(timeout=0.3), "www.test")).kind is FailureKind.DNS_TIMEOUT


def chain(length: int) -> list[str]:
    links = [f"n{i}.test. 60 IN CNAME n{i + 1}.test." for i in range(length)]
    return [*links, f"n{length}.test. 30 IN A 192.0.2.7"]


@pytest.mark.parametrize("length", [1, MAX_ALIASES])
async def test_aliases_are_followed_and_listed(lab: Lab, length: int) -> None:
    lab.server.answer("n0.test", records(*reversed(chain(length))))
    found = await lab.resolver().resolve("n0.test")
    assert found.addresses == (ip_address("192.0.2.7"),)
    assert found.aliases == tuple(f"n{i + 1}.test" for i in range(length))


@pytest.mark.parametrize("lines", [chain(MAX_ALIASES + 1), ["n0.test. 60 IN CNAME n0.test."]])
async def test_too_many_aliases(lab: Lab, lines: list[str]) -> None:
    lab.server.answer("n0.test", records(*lines), records(*lines))
    found = await failure_of(lab.resolver(), "n0.test")
    assert (found.kind, found.rcode) == (FailureKind.DNS_ERROR, None)


async def test_addresses_of_other_names_are_not_taken(lab: Lab) -> None:
    lab.server.answer("www.test", records("evil.test. 60 IN A 192.0.2.66"))
    assert (await failure_of(lab.resolver(), "www.test")).rcode == "NODATA"


async def test_ttl_is_honoured(lab: Lab) -> None:
    lab.server.answer("www.test", records(A1), empty(SOA))
    resolver = lab.resolver()
    await resolver.resolve("www.test")
    lab.clock.now += 29
    await resolver.resolve("www.test")
    assert lab.server.asked == {("www.test", "A"): 1, ("www.test", "AAAA"): 1}
    assert lab.metrics.value(Metric.DNS_CACHE_HITS) == 2
    lab.clock.now += 2
    await resolver.resolve("www.test")
    assert lab.server.asked == {("www.test", "A"): 1, ("www.test", "AAAA"): 2}
    lab.clock.now += 30
    await resolver.resolve("www.test")
    assert lab.server.asked["www.test", "A"] == 2


@pytest.mark.parametrize(
    ("ttl", "kept", "gone"), [(0, 19, 21), (60, 59, 61), (9999, 99, 101)], ids=["floor", "own", "ceiling"]
)
async def test_ttl_within_the_operators_bounds(lab: Lab, ttl: int, kept: int, gone: int) -> None:
    lab.server.answer("www.test", records(f"www.test. {ttl} IN A 192.0.2.1"), records(AAAA1))
    resolver = lab.resolver(min_ttl=20, max_ttl=100)
    for elapsed, asked in ((0, 1), (kept, 1), (gone, 2)):
        lab.clock.now = 1000.0 + elapsed
        await resolver.resolve("www.test")
        assert lab.server.asked["www.test", "A"] == asked


@pytest.mark.parametrize("minimum", [10, 100_000])
async def test_absence_is_believed_for_a_bounded_time(lab: Lab, minimum: int) -> None:
    soa = f"test. 100000 IN SOA ns.test. admin.test. 1 2 3 4 {minimum}"
    absent = records(soa, rcode=dns.rcode.NXDOMAIN)
    lab.server.answer("www.test", absent, absent)
    resolver = lab.resolver()
    span = min(minimum, NEGATIVE_TTL)
    for elapsed, asked in ((0.0, 1), (span - 1, 1), (span + 1, 2)):
        lab.clock.now = 1000.0 + elapsed
        assert (await failure_of(resolver, "www.test")).rcode == "NXDOMAIN"
        assert lab.server.asked["www.test", "A"] == asked


async def test_equal_questions_are_joined(lab: Lab) -> None:
    lab.server.answer("www.test", records(A1), records(AAAA1))
    lab.server.gate = asyncio.Event()
    resolver = lab.resolver()
    found: list[Resolution] = []

    async def ask() -> None:
        found.append(await resolver.resolve("www.test"))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(ask)
        while lab.server.asked.total() < 2:
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        lab.server.gate.set()
    assert len(found) == 20
    assert lab.server.asked.total() == 2


async def test_a_cancelled_asker_does_not_cancel_the_others(lab: Lab) -> None:
    lab.server.answer("www.test", records(A1), records(AAAA1))
    lab.server.gate = asyncio.Event()
    resolver = lab.resolver()
    found: list[Resolution] = []
    first = anyio.CancelScope()

    async def ask_first() -> None:
        with first:
            await resolver.resolve("www.test")
            pytest.fail("the first asker was cancelled")

    async def ask() -> None:
        found.append(await resolver.resolve("www.test"))

    async with anyio.create_task_group() as group:
        group.start_soon(ask_first)
        while lab.server.asked.total() < 2:
            await anyio.lowlevel.checkpoint()
        for _ in range(3):
            group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        first.cancel()
        while lab.server.asked.total() < 4:
            await anyio.lowlevel.checkpoint()
        lab.server.gate.set()
    assert len(found) == 3
    assert lab.server.asked.total() == 4


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
async def test_the_next_upstream_is_asked_after_an_error(lab: Lab, rcode: dns.rcode.Rcode) -> None:
    lab.server.answer("www.test", records(A1), records(AAAA1))
    async with running_server() as broken:
        broken.answer("www.test", failing(rcode), failing(rcode))
        found = await lab.resolver(broken.upstream).resolve("www.test")
        assert len(found.addresses) == 2
        assert broken.asked.total() == 2


async def test_the_next_upstream_is_asked_after_silence(lab: Lab) -> None:
    lab.server.answer("www.test", records(A1), records(AAAA1))
    found = await lab.resolver(unused_upstream(), timeout=0.8).resolve("www.test")
    assert len(found.addresses) == 2


async def test_an_upstreams_error_says_more_than_anothers_silence(lab: Lab) -> None:
    async with running_server() as broken:
        broken.answer("www.test", failing(dns.rcode.SERVFAIL), failing(dns.rcode.SERVFAIL))
        lab.server.answer("www.test", silent, silent)
        assert (await failure_of(lab.resolver(broken.upstream, timeout=0.3), "www.test")).rcode == "SERVFAIL"
        assert broken.asked["www.test", "A"] == 1


async def test_absence_is_not_asked_elsewhere(lab: Lab) -> None:
    async with running_server() as first:
        assert (await failure_of(lab.resolver(first.upstream), "www.test")).rcode == "NXDOMAIN"
    assert lab.server.asked.total() == 0


async def test_questions_under_way_are_bounded(lab: Lab) -> None:
    lab.server.answer("www.test", silent, silent)
    resolver = lab.resolver(max_queries=1, timeout=0.3)
    assert (await failure_of(resolver, "www.test")).kind is FailureKind.DNS_TIMEOUT
    assert set(lab.server.asked) == {("www.test", "AAAA")}


@pytest.mark.parametrize("name", ["printer.local", "x.onion", "a.invalid", "x.alt", "LOCAL"])
async def test_names_that_are_never_asked(lab: Lab, name: str) -> None:
    assert (await failure_of(lab.resolver(), name)).rcode == "NXDOMAIN"
    assert lab.server.asked.total() == 0


@pytest.mark.parametrize("name", ["localhost", "x.localhost."])
async def test_localhost_is_loopback(lab: Lab, name: str) -> None:
    assert (await lab.resolver().resolve(name)).addresses == (ip_address("::1"), ip_address("127.0.0.1"))
    assert lab.server.asked.total() == 0


@pytest.mark.parametrize(
    "name", ["", ".", "a..b", "ä.test", "a b.test", "\\097.test", "x" * 64 + ".test", "x." * 130]
)
async def test_what_is_no_host_name_does_not_exist(lab: Lab, name: str) -> None:
    assert (await failure_of(lab.resolver(), name)).rcode == "NXDOMAIN"
    assert lab.server.asked.total() == 0


def exchange(target: Target) -> ExchangeContext:
    return ExchangeContext(ConnectionContext(0.0), TunnelKind.TCP, RequestHead(b"CONNECT"), target)


async def test_the_hook_in_its_chain(lab: Lab) -> None:
    lab.server.answer("www.test", records(A1))
    chain = HookChain([resolver_hooks(lab.resolver())])
    assert await chain.resolve(exchange(Target("www.test", 443))) == Resolution((ip_address("192.0.2.1"),))
    refused = await chain.resolve(exchange(Target("nowhere.test", 443)))
    assert refused == Reject(Failure(FailureKind.DNS_ERROR, Side.TARGET, rcode="NXDOMAIN"))


async def test_the_hook_asks_nobody_about_literals_and_keeps_what_is_known(lab: Lab) -> None:
    hooks = resolver_hooks(lab.resolver())
    address = ip_address("192.0.2.80")
    ctx = exchange(Target("192.0.2.80", 443, address))
    assert await HookChain([hooks]).resolve(ctx) == Resolution((address,))
    assert hooks.resolve is not None
    assert await hooks.resolve(ctx, ctx.target) == Continue()
    assert lab.server.asked.total() == 0


def test_a_resolver_needs_an_upstream() -> None:
    with pytest.raises(ValueError, match="at least one upstream"):
        Resolver(ResolverSettings(), [])


def test_the_cache_forgets_what_was_not_used_longest() -> None:
    cache: AnswerCache[str, int] = AnswerCache(2)
    cache.put("a", 1, 10, 0.0)
    cache.put("b", 2, 10, 0.0)
    assert cache.get("a", 1.0) == 1
    cache.put("c", 3, 10, 1.0)
    assert (cache.get("a", 1.0), cache.get("b", 1.0), cache.get("c", 1.0)) == (1, None, 3)
    assert cache.get("a", 10.0) is None
    assert len(cache) == 1


def test_a_cache_of_no_entries_and_values_of_no_time() -> None:
    none: AnswerCache[str, int] = AnswerCache(0)
    none.put("a", 1, 10, 0.0)
    assert len(none) == 0
    some: AnswerCache[str, int] = AnswerCache(1)
    some.put("a", 1, 0, 0.0)
    assert len(some) == 0


async def test_work_that_raises_is_raised_to_each_and_leaves_nothing() -> None:
    flights: Flights[str, int] = Flights()
    errors: list[str] = []

    async def work() -> int:
        await anyio.lowlevel.checkpoint()
        raise RuntimeError("broken")

    async def ask() -> None:
        try:
            await flights.join("key", work)
        except RuntimeError as error:
            errors.append(str(error))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask)
    assert errors == ["broken"] * 3
    assert len(flights) == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a.test.", "b.test.", "c.test."]),
            st.sampled_from(["A 192.0.2.1", "CNAME a.test.", "CNAME b.test.", "CNAME c.test.", "AAAA 2001:db8::1"]),
        ),
        max_size=6,
    ),
    st.sampled_from(list(dns.rcode.Rcode)),
)
def test_any_response_is_read(lines: list[tuple[str, str]], rcode: dns.rcode.Rcode) -> None:
    question = Question(dns.name.from_text("a.test"), dns.rdatatype.A)
    query = dns.message.make_query(question.name, question.rdtype, use_edns=0)
    reply = records(*(f"{name} 60 IN {value}" for name, value in lines), rcode=rcode)
    answer = read_answer(dns.message.from_wire(reply(query).to_wire()), question)  # type: ignore[union-attr]
    assert bool(answer.addresses) != (answer.failure is not None)
    assert len(answer.aliases) <= MAX_ALIASES
    assert "192.0.2.1" not in repr(answer)
