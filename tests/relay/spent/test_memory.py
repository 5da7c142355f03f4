"""The store in memory: bounded, and swept as it is used."""

from __future__ import annotations

import itertools
import math

import pytest
from structlog.testing import capture_logs

from relay.spent import GRACE, MemoryStore, StoreAway, StoreFull
from tests.relay.spent.rig import NOW, Clock, token

pytestmark = pytest.mark.anyio


async def test_a_full_store_refuses_and_forgets_nothing(clock: Clock) -> None:
    store = MemoryStore(clock, entries=10, retry=0.0)
    tokens = [token() for _ in range(10)]
    with capture_logs() as logs:
        for used in tokens:
            assert await store.spend(used, 2, NOW + 10)
        with pytest.raises(StoreAway, match="full"):
            await store.probe()
        for _ in range(3):
            with pytest.raises(StoreFull):
                await store.spend(token(), 2, NOW + 10)
        assert [await store.spend(used, 2, NOW + 10) for used in tokens] == [True] * 10
        assert [await store.spend(used, 2, NOW + 10) for used in tokens] == [False] * 10
    assert [line["event"] for line in logs] == ["spent_store_away", "spent_store_back"]
    assert len(store) == 10


async def test_expired_entries_make_room(clock: Clock) -> None:
    store = MemoryStore(clock, entries=10, retry=0.0)
    for _ in range(10):
        assert await store.spend(token(), 1, NOW + 10)
    clock.now = NOW + 9 + GRACE
    with pytest.raises(StoreFull):
        await store.spend(token(), 1, NOW + 2 * GRACE)
    clock.now = NOW + 10 + GRACE
    await store.probe()
    for _ in range(10):
        assert await store.spend(token(), 1, NOW + 2 * GRACE)
    assert len(store) == 10


async def test_the_sweep_keeps_up_and_takes_few_at_once(clock: Clock) -> None:
    store = MemoryStore(clock, entries=10_000, retry=0.0)
    for number in range(1000):
        assert await store.spend(token(), 1, NOW + 1 + number % 7)
    clock.now = NOW + GRACE + 100
    sizes = [len(store)]
    for _ in range(500):
        assert await store.spend(token(), 1, math.inf)
        sizes.append(len(store))
    assert max(before - after for before, after in itertools.pairwise(sizes)) <= 4
    assert sizes[-1] == 500


async def test_an_extended_life_moves_the_end(clock: Clock) -> None:
    store = MemoryStore(clock, entries=10, retry=0.0)
    used = token()
    assert await store.spend(used, 2, NOW + 10)
    assert await store.spend(used, 2, NOW + 3 * GRACE)
    assert not await store.spend(used, 2, NOW + 9 * GRACE)
    clock.now = NOW + 2 * GRACE
    await store.probe()
    assert len(store) == 1
    clock.now = NOW + 4 * GRACE
    await store.probe()
    assert len(store) == 0
