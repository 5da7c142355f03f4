"""How long answers are kept, and how many."""

from __future__ import annotations

import gc
import tracemalloc
from ipaddress import ip_address

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

from relay.errors import Failure, FailureKind, Side
from relay.resolver import (
    NEGATIVE_TTL,
    AnswerCache,
    Reading,
    failed_reading,
)
from relay.telemetry import Metric
from tests.relay.dns_server import empty, records
from tests.relay.resolver.lab import A1, AAAA1, SOA, Lab, failure_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient")]


async def test_ttl_is_honoured(lab: Lab) -> None:
    lab.server.answer("www.test", records(A1), empty(SOA))
    resolver = await lab.resolver()
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
    resolver = await lab.resolver(min_ttl=20, max_ttl=100)
    for elapsed, asked in ((0, 1), (kept, 1), (gone, 2)):
        lab.clock.now = 1000.0 + elapsed
        await resolver.resolve("www.test")
        assert lab.server.asked["www.test", "A"] == asked


@pytest.mark.parametrize("minimum", [10, 100_000])
async def test_absence_is_believed_for_a_bounded_time(lab: Lab, minimum: int) -> None:
    soa = f"test. 100000 IN SOA ns.test. admin.test. 1 2 3 4 {minimum}"
    absent = records(soa, rcode=dns.rcode.NXDOMAIN)
    lab.server.answer("www.test", absent, absent)
    resolver = await lab.resolver()
    span = min(minimum, NEGATIVE_TTL)
    for elapsed, asked in ((0.0, 1), (span - 1, 1), (span + 1, 2)):
        lab.clock.now = 1000.0 + elapsed
        assert (await failure_of(resolver, "www.test")).rcode == "NXDOMAIN"
        assert lab.server.asked["www.test", "A"] == asked


GOOD = Reading((ip_address("192.0.2.1"),), ttl=60)
GONE = Reading(failure=Failure(FailureKind.DNS_ERROR, Side.TARGET, rcode="NXDOMAIN"), ttl=60)
MUTE = failed_reading(FailureKind.DNS_TIMEOUT)


def test_the_cache_forgets_what_was_not_used_longest() -> None:
    cache = AnswerCache(2, 10**6)
    cache.put("a", GOOD, 10, 0.0)
    cache.put("b", GONE, 10, 0.0)
    assert cache.get("a", 1.0) is not None
    cache.put("c", GOOD, 10, 1.0)
    assert [cache.get(key, 1.0) is not None for key in "abc"] == [True, False, True]
    assert cache.get("a", 10.0) is None
    assert len(cache) == 1


def test_a_cache_of_no_entries_no_bytes_and_values_of_no_time() -> None:
    for cache, ttl in ((AnswerCache(0, 10**6), 10), (AnswerCache(1, 0), 10), (AnswerCache(1, 10**6), 0)):
        cache.put("a", GOOD, ttl, 0.0)
        assert (len(cache), cache.size) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 8), st.integers(1, 9)), max_size=40))
def test_entries_and_bytes_stay_within_their_bounds(steps: list[tuple[str, int, int]]) -> None:
    cache = AnswerCache(4, 3000, max_stale=2)
    for now, (key, count, ttl) in enumerate(steps):
        addresses = tuple(ip_address(f"192.0.2.{number}") for number in range(count))
        cache.put(key, Reading(addresses), ttl, float(now))
        cache.get("a", float(now))
        kept = [cache._values[key].size for key in cache._values]
        assert cache.size == sum(kept) <= 3000
        assert len(kept) <= 4


def test_the_estimated_size_is_not_far_from_the_real_one() -> None:
    cache = AnswerCache(10**6, 10**9)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(2000):
            addresses = tuple(ip_address((0x20010DB8 << 96) + number * 8 + n) for n in range(number % 5))
            aliases = tuple(f"alias-{number}-{n}.cdn.example" for n in range(number % 3))
            key = (f"name-{number}.example", dns.rdatatype.AAAA, None)
            cache.put(key, Reading(addresses, aliases=aliases, ttl=60.0), 60, float(number))
        real = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.5 < cache.size / real < 2, (cache.size, real)


def test_a_failure_does_not_replace_what_may_still_do() -> None:
    cache = AnswerCache(9, 10**6, max_stale=100)
    cache.put("a", GOOD, 10, 0.0)
    cache.put("a", MUTE, 5, 11.0)
    entry = cache.get("a", 12.0)
    assert entry is not None
    assert (entry.reading, entry.recheck_at) == (GOOD, 41.0)
    assert cache.get("a", 110.0) is None
    cache.put("a", MUTE, 5, 111.0)
    found = cache.get("a", 112.0)
    assert found is not None
    assert found.reading is MUTE


@pytest.mark.parametrize("last_word", [GONE, failed_reading(FailureKind.DNS_ERROR, "SERVFAIL", 6)])
def test_absence_and_bogus_replace_what_was_known(last_word: Reading) -> None:
    cache = AnswerCache(9, 10**6, max_stale=100)
    cache.put("a", GOOD, 10, 0.0)
    cache.put("a", last_word, 5, 11.0)
    entry = cache.get("a", 12.0)
    assert entry is not None
    assert entry.reading is last_word
    assert cache.get("a", 17.0) is None
