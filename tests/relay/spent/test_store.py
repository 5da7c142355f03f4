"""The contract that every store keeps."""

from __future__ import annotations

import asyncio
import importlib
import math
import pkgutil

import pytest

from relay.spent import (
    GRACE,
    MAX_LIMIT,
    AwayReason,
    SpentStore,
    StoreAway,
    StoreFull,
    StoreKind,
    open_store,
)
from tests.relay.spent.conftest import Make
from tests.relay.spent.rig import NOW, Clock, token

pytestmark = pytest.mark.anyio

LATER = NOW + 86_400


async def test_one_use(store: SpentStore) -> None:
    used = token()
    assert not await store.is_spent(used, 1)
    assert await store.spend(used, 1, LATER)
    assert await store.is_spent(used, 1)
    assert not await store.spend(used, 1, LATER)
    assert await store.spend(token(), 1, LATER)


async def test_as_many_uses_as_allowed(store: SpentStore) -> None:
    used = token()
    for _ in range(5):
        assert not await store.is_spent(used, 5)
        assert await store.spend(used, 5, LATER)
    assert await store.is_spent(used, 5)
    assert not await store.spend(used, 5, LATER)


async def test_a_larger_limit_counts_the_uses_there_were(store: SpentStore) -> None:
    used = token()
    assert await store.spend(used, 1, LATER)
    assert not await store.spend(used, 1, LATER)
    assert [await store.spend(used, 3, LATER) for _ in range(3)] == [True, True, False]
    assert not await store.spend(used, 2, LATER)
    assert await store.spend(used, MAX_LIMIT, LATER)


@pytest.mark.parametrize("limit", [1, 7])
async def test_many_at_once_get_as_many_uses_as_allowed(store: SpentStore, limit: int) -> None:
    used = token()
    answers = await asyncio.gather(*[store.spend(used, limit, LATER) for _ in range(600)])
    assert sum(answers) == limit


async def test_many_tokens_at_once(store: SpentStore) -> None:
    tokens = [token() for _ in range(300)]
    answers = await asyncio.gather(*[store.spend(used, 1, LATER) for used in tokens + tokens])
    assert answers == [True] * 300 + [False] * 300


@pytest.mark.parametrize("make", ["sqlite", "redis"], indirect=True)
async def test_stores_over_the_same_record_count_together(make: Make) -> None:
    stores = [make(), make()]
    used = token()
    answers = await asyncio.gather(*[store.spend(used, 3, LATER) for _ in range(50) for store in stores])
    assert sum(answers) == 3
    for store in stores:
        await store.close()
    last = make()
    assert not await last.is_spent(used, 3)
    assert not await last.spend(used, 3, LATER)
    assert await last.is_spent(used, 3)
    await last.close()


@pytest.mark.parametrize("expires", [NOW, NOW - 1, 0.0, -math.inf])
async def test_what_is_expired_is_refused(store: SpentStore, expires: float) -> None:
    used = token()
    assert not await store.spend(used, 1, expires)
    assert not await store.is_spent(used, 1)
    assert await store.spend(used, 1, LATER)


async def test_a_forgotten_token_stays_refused(store: SpentStore, clock: Clock) -> None:
    used = token()
    assert await store.spend(used, 1, NOW + 10)
    for moment in (NOW + 9, NOW + 10, NOW + 10 + GRACE, NOW + 10 * GRACE):
        clock.now = moment
        for _ in range(3):
            assert await store.spend(token(), 1, math.inf)
        assert not await store.spend(used, 1, NOW + 10)


async def test_the_latest_time_counts(store: SpentStore, clock: Clock) -> None:
    """Of those that came with a use. What the process remembers itself is got around by a larger limit."""
    tokens = [token() for _ in range(3)]
    for used in tokens:
        assert await store.spend(used, 3, NOW + 10)
        assert await store.spend(used, 3, LATER)
        assert await store.spend(used, 3, NOW + 10)
    clock.now = LATER - 1
    for _ in range(100):
        assert await store.spend(token(), 1, math.inf)
    for used in tokens:
        assert [await store.spend(used, 5, LATER) for _ in range(3)] == [True, True, False]


async def test_a_token_can_live_for_ever(store: SpentStore, clock: Clock) -> None:
    used = token()
    assert await store.spend(used, 1, math.inf)
    clock.now = 1e15
    assert not await store.spend(used, 1, math.inf)


@pytest.mark.parametrize(
    ("token_id", "limit", "expires"),
    [(b"", 1, LATER), (b"x" * 31, 1, LATER), (b"x" * 33, 1, LATER), (b"x" * 32, 0, LATER), (b"x" * 32, -1, LATER)]
    + [(b"x" * 32, MAX_LIMIT + 1, LATER), (b"x" * 32, 1, math.nan)],
)
async def test_wrong_arguments(store: SpentStore, token_id: bytes, limit: int, expires: float) -> None:
    with pytest.raises(ValueError, match=r"token|expiry") as caught:
        await store.spend(token_id, limit, expires)
    assert "xx" not in str(caught.value)
    if not math.isnan(expires):
        with pytest.raises(ValueError, match="token"):
            await store.is_spent(token_id, limit)


async def test_a_probe_changes_nothing(store: SpentStore) -> None:
    used = bytes(32)
    for _ in range(3):
        await store.probe()
    assert await store.spend(used, 1, LATER)
    await store.probe()
    assert not await store.spend(used, 1, LATER)


async def test_a_closed_store_is_away(store: SpentStore) -> None:
    used = token()
    assert await store.spend(used, 1, LATER)
    await store.close()
    await store.close()
    other = token()
    with pytest.raises(StoreAway, match="closed"):
        await store.spend(other, 1, LATER)
    with pytest.raises(StoreAway, match="closed"):
        await store.is_spent(other, 1)
    with pytest.raises(StoreAway, match="closed"):
        await store.probe()
    assert await store.is_spent(used, 1)


async def test_a_store_that_was_never_used_closes(make: Make) -> None:
    await make().close()


async def test_who_waits_is_answered_before_the_end(store: SpentStore) -> None:
    async with asyncio.TaskGroup() as tasks:
        spends = [tasks.create_task(store.spend(token(), 1, LATER)) for _ in range(100)]
        await asyncio.sleep(0)
        await store.close()
    assert all(spend.result() for spend in spends)


async def test_a_cancelled_use_counts_once_at_most(store: SpentStore) -> None:
    """Who is cancelled may have used the token; nobody else gets the same use."""
    tokens = [token() for _ in range(60)]
    admitted = []

    async def spend(used: bytes) -> None:
        if await store.spend(used, 1, LATER):
            admitted.append(used)

    first = [asyncio.ensure_future(spend(used)) for used in tokens]
    for turn in range(6):
        await asyncio.sleep(0)
        for task in first[turn::6]:
            task.cancel()
    await asyncio.gather(*first, return_exceptions=True)
    again = await asyncio.gather(*[store.spend(used, 1, LATER) for used in tokens])
    admitted += [used for used, answer in zip(tokens, again, strict=True) if answer]
    assert len(admitted) == len(set(admitted))
    assert await store.spend(token(), 1, LATER)


@pytest.mark.parametrize("kind", [StoreKind.SQLITE, StoreKind.REDIS])
def test_a_store_needs_its_place(kind: StoreKind, clock: Clock) -> None:
    with pytest.raises(ValueError, match=f"the store {kind.value} needs"):
        open_store(kind, clock)


def test_errors_say_their_reason_only() -> None:
    assert str(StoreAway(AwayReason.DISK_FULL)) == "disk_full"
    assert str(StoreFull()) == "full"
    assert StoreFull().reason is AwayReason.FULL


def test_the_door_is_the_sum_of_its_modules() -> None:
    """All but the module whose package is optional."""
    door = importlib.import_module("relay.spent")
    names: list[str] = []
    for found in pkgutil.iter_modules(door.__path__, "relay.spent."):
        if found.name != "relay.spent.redis":
            names += importlib.import_module(found.name).__all__
    assert sorted(door.__all__) == sorted(names)
    assert all(hasattr(door, name) for name in names)
