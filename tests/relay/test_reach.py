"""relay.tunnels.reach: what is remembered of destinations, for how long, and the order of attempts."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.target import IPAddress
from relay.tunnels import ReachMemory, Standing, interleave

SIX, SIX_NEAR, SIX_FAR = (ip_address(text) for text in ("2a00:1:1::1", "2a00:1:1:ffff::1", "2a00:1:2::1"))
FOUR, FOUR_NEAR, FOUR_FAR = (ip_address(text) for text in ("8.8.8.8", "8.8.8.255", "8.8.9.8"))


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def memory(
    keep: float = 60, entries: int = 100, clock: Clock | None = None, first_family_count: int = 1
) -> ReachMemory:
    return ReachMemory(keep, entries, clock or Clock(), first_family_count)


@pytest.mark.parametrize(("near", "far", "one"), [(SIX_NEAR, SIX_FAR, SIX), (FOUR_NEAR, FOUR_FAR, FOUR)])
def test_what_is_learned_of_one_address_is_known_of_its_prefix(
    near: IPAddress, far: IPAddress, one: IPAddress
) -> None:
    known = memory()
    known.learn(one, Standing.SILENT)
    assert (known.standing(near), known.standing(far)) == (Standing.SILENT, Standing.UNKNOWN)
    known.learn(near, Standing.ANSWERED)
    assert known.standing(one) is Standing.ANSWERED
    assert len(known) == 1


def test_it_is_forgotten_in_time() -> None:
    clock = Clock()
    known = memory(60, clock=clock)
    known.learn(SIX, Standing.SILENT)
    clock.now += 59.9
    assert known.standing(SIX) is Standing.SILENT
    clock.now += 0.2
    assert known.standing(SIX) is Standing.UNKNOWN
    known.learn(FOUR, Standing.ANSWERED)
    assert len(known) == 1, "nothing is kept beyond its time once something is learned"


def test_zero_seconds_learns_nothing() -> None:
    known = memory(0)
    known.learn(SIX, Standing.SILENT)
    assert (len(known), known.standing(SIX)) == (0, Standing.UNKNOWN)


def test_it_is_bounded() -> None:
    known = memory(entries=10)
    for number in range(1000):
        known.learn(ip_address(0x08000000 + (number << 8)), Standing.SILENT)
        assert len(known) <= 10
    assert known.standing(ip_address(0x08000000 + (999 << 8))) is Standing.SILENT
    assert known.standing(ip_address(0x08000000)) is Standing.UNKNOWN


def test_a_silent_family_is_tried_last() -> None:
    known = memory()
    assert known.order([SIX, SIX_FAR, FOUR]) == [SIX, FOUR, SIX_FAR]
    known.learn(SIX, Standing.SILENT)
    assert known.order([SIX, FOUR]) == [FOUR, SIX]
    assert known.order([SIX, SIX_FAR, FOUR]) == [SIX_FAR, FOUR, SIX]


def test_an_answer_moves_an_address_to_the_front_of_its_family_only() -> None:
    known = memory()
    known.learn(FOUR_FAR, Standing.ANSWERED)
    assert known.order([SIX, FOUR, FOUR_FAR]) == [SIX, FOUR_FAR, FOUR]


def test_all_silent_is_as_all_unknown() -> None:
    known = memory()
    for address in (SIX, FOUR):
        known.learn(address, Standing.SILENT)
    assert known.order([SIX, SIX_NEAR, FOUR]) == [SIX, FOUR, SIX_NEAR]
    assert known.order([]) == []


def test_the_first_family_may_have_more_attempts() -> None:
    known = memory(first_family_count=2)
    assert known.order([SIX, SIX_NEAR, SIX_FAR, FOUR, FOUR_FAR]) == [SIX, SIX_NEAR, FOUR, SIX_FAR, FOUR_FAR]
    assert interleave([SIX, FOUR], 8) == [SIX, FOUR]


STANDINGS = st.sampled_from(Standing)


@given(st.lists(st.tuples(st.ip_addresses(), STANDINGS), max_size=8, unique_by=lambda one: one[0]), st.integers(1, 8))
def test_any_order_has_all_and_ends_with_the_silent(known: list[tuple[IPAddress, Standing]], count: int) -> None:
    learned = memory(first_family_count=count)
    for address, standing in known:
        learned.learn(address, standing)
    given_addresses = [address for address, _ in known]
    ordered = learned.order(given_addresses)
    assert sorted(map(str, ordered)) == sorted(map(str, given_addresses))
    silent = [learned.standing(address) is Standing.SILENT for address in ordered]
    assert silent == sorted(silent)
    hopeful = [one for one in given_addresses if learned.standing(one) is not Standing.SILENT]
    assert not hopeful or ordered[0].version == hopeful[0].version


def test_nothing_of_it_is_shown() -> None:
    known = memory()
    known.learn(FOUR, Standing.SILENT)
    assert "8.8" not in repr(known)
    assert str(int(FOUR) >> 8) not in repr(known)
