"""relay.egress: sessions spread evenly over the addresses, and only those of an address that goes move."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Network, ip_network

import pytest

from interop.egress.report import deviation
from relay.egress import Pool, SourceState, SourceTable
from relay.egress.session import EgressSession
from relay.settings import SourceEntry

SESSIONS = 6_000


def pool_of(count: int) -> Pool:
    table = SourceTable(10.0)
    first = int(ip_network("198.18.0.0/24").network_address)
    return Pool(
        "a", {4: tuple(table.take(SourceEntry(ip_network(first + number))) for number in range(count)), 6: ()}
    )


def key_of(number: int) -> bytes:
    return number.to_bytes(16, "big")


@pytest.mark.parametrize("addresses", [2, 7, 200])
def test_sessions_spread_evenly_over_the_addresses(addresses: int) -> None:
    """One run in three million is off by five standard deviations when the spread is even."""
    pool = pool_of(addresses)
    counts: Counter[object] = Counter(EgressSession(0.0).pick(pool, 4) for _ in range(SESSIONS))
    assert abs(deviation(counts.values(), addresses)) < 5


def test_the_measure_finds_an_uneven_spread() -> None:
    """A tenth more on one half of 200 addresses does not pass."""
    counts: Counter[object] = Counter(number % 200 if number % 20 else number % 100 for number in range(12_000))
    assert deviation(counts.values(), 200) > 5


def test_only_the_sessions_of_an_address_that_goes_move_and_they_spread_over_the_rest() -> None:
    pool = pool_of(20)
    sessions = [EgressSession(0.0) for _ in range(SESSIONS)]
    before = [session.pick(pool, 4) for session in sessions]
    gone = pool.sources[4][3]
    gone.is_quarantined = True
    after = [session.pick(pool, 4) for session in sessions]
    assert all((new is old) != (old is gone) for old, new in zip(before, after, strict=True))
    moved: Counter[object] = Counter(new for old, new in zip(before, after, strict=True) if old is gone)
    assert abs(deviation(moved.values(), 19)) < 5
    gone.is_quarantined = False
    assert [session.pick(pool, 4) for session in sessions] == after


def test_addresses_drawn_from_a_network_are_each_sessions_own_and_spread_over_it() -> None:
    source = SourceTable(10.0).take(SourceEntry(IPv6Network("2001:db8::/64")))
    keys = [EgressSession(0.0).key for _ in range(SESSIONS)]
    addresses = [source.address_for(key) for key in keys]
    assert addresses == [source.address_for(key) for key in keys]
    assert len(set(addresses)) == SESSIONS
    for shift in (0, 29, 59):
        cells: Counter[object] = Counter(int(address or 0) >> shift & 31 for address in addresses)
        assert abs(deviation(cells.values(), 32)) < 5


def test_a_network_is_drawn_from_around_what_is_in_quarantine() -> None:
    source = SourceTable(10.0).take(SourceEntry(IPv6Network("2001:db8::/120")))
    source.avoid([ip_network("2001:db8::/121"), ip_network("192.0.2.0/24")])
    drawn = [source.address_for(key) for key in map(key_of, range(500))]
    assert all(address in IPv6Network("2001:db8::80/121") for address in drawn if address is not None)
    states = [source.state]
    source.avoid([ip_network("2001:db8::/64")])
    states.append(source.state)
    assert states == [SourceState.IN_SERVICE, SourceState.QUARANTINED]
    source.avoid([ip_network("2001:db8::/121"), ip_network("2001:db8::80/121")])
    assert source.address_for(key_of(1)) is None


def test_the_address_of_the_subnets_routers_is_never_drawn() -> None:
    source = SourceTable(10.0).take(SourceEntry(IPv6Network("2001:db8::/126")))
    drawn = {source.address_for(key) for key in map(key_of, range(200))}
    assert drawn == {ip_network("2001:db8::/126")[number] for number in (1, 2, 3)}


def test_a_reload_moves_no_session_whose_address_stays() -> None:
    table = SourceTable(10.0)
    entries = [SourceEntry(ip_network(f"198.18.0.{number}")) for number in range(8)]
    before = Pool("a", {4: tuple(map(table.take, entries[:6])), 6: ()})
    after = Pool("a", {4: tuple(map(table.take, entries[2:])), 6: ()})
    for _ in range(50):
        session = EgressSession(0.0)
        first = session.pick(before, 4)
        second = session.pick(after, 4)
        assert (second is first) == (first in after.sources[4])
        assert session.pick(after, 4) is second
