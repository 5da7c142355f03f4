"""Every store against a model: whatever is asked in whatever order, the answers are those of a counter."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from relay.spent import GRACE, SpentStore, StoreKind, Synchronous, open_store
from tests.relay.spent.rig import Clock, RedisProcess, token

NUMBERS = st.integers(0, 3)
LIMITS = st.integers(1, 5)


class World:
    """One kind of store with its loop and clock, for all examples: each example has tokens of its own."""

    def __init__(self, kind: StoreKind, path: Path, url: str | None) -> None:
        self.kind = kind
        self.clock = Clock()
        self.runner = asyncio.Runner()
        self._path = path
        self._url = url
        self.store = self._open()

    def reopen(self) -> None:
        """Restart, as far as the record is concerned."""
        self.runner.run(self.store.close())
        self.store = self._open()

    def close(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()

    def _open(self) -> SpentStore:
        return open_store(self.kind, self.clock, path=self._path, synchronous=Synchronous.NORMAL, url=self._url)


class Comparison(RuleBasedStateMachine):
    """The model: uses and the latest time of each token. A token whose time is over is dead and stays dead."""

    world: World

    @initialize()
    def begin(self) -> None:
        self.tokens = [token() for _ in range(4)]
        self.uses = [0] * 4
        self.ends = [0.0] * 4

    def _spend(self, number: int, limit: int, lasting: float, times: int) -> None:
        world = self.world
        is_dead = 0 < self.ends[number] <= world.clock.now
        expires = self.ends[number] if is_dead else world.clock.now + lasting

        async def ask() -> list[bool]:
            spends = (world.store.spend(self.tokens[number], limit, expires) for _ in range(times))
            return await asyncio.gather(*spends)

        free = 0 if is_dead or lasting <= 0 else max(0, limit - self.uses[number])
        assert sum(world.runner.run(ask())) == min(free, times)
        if free:
            self.uses[number] += min(free, times)
            self.ends[number] = max(self.ends[number], expires)

    @rule(number=NUMBERS, limit=LIMITS, lasting=st.sampled_from([-1.0, 0.0, 1.0, 50.0, 1e6]))
    def spend(self, number: int, limit: int, lasting: float) -> None:
        self._spend(number, limit, lasting, 1)

    @rule(number=NUMBERS, limit=LIMITS, times=st.integers(2, 12))
    def spend_at_once(self, number: int, limit: int, times: int) -> None:
        self._spend(number, limit, 100.0, times)

    @rule(number=NUMBERS, limit=LIMITS)
    def ask(self, number: int, limit: int) -> None:
        said = self.world.runner.run(self.world.store.is_spent(self.tokens[number], limit))
        assert not said or self.uses[number] >= limit

    @rule(number=NUMBERS, limit=LIMITS)
    def ask_after_a_refusal(self, number: int, limit: int) -> None:
        if self.uses[number] >= limit and self.ends[number] > self.world.clock.now:
            self._spend(number, limit, 1.0, 1)
            assert self.world.runner.run(self.world.store.is_spent(self.tokens[number], limit))

    @rule(seconds=st.sampled_from([1.0, 60.0, GRACE, 1e6]))
    def pass_time(self, seconds: float) -> None:
        self.world.clock.now += seconds

    @rule()
    def others_come(self) -> None:
        """Which is what drives the sweep."""

        async def ask() -> None:
            for _ in range(3):
                assert await self.world.store.spend(token(), 1, self.world.clock.now + 1)

        self.world.runner.run(ask())

    @precondition(lambda self: self.world.kind is not StoreKind.MEMORY)
    @rule()
    def restart(self) -> None:
        self.world.reopen()


@pytest.fixture(params=[kind.value for kind in StoreKind])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    kind = StoreKind(request.param)
    server: RedisProcess | None = request.getfixturevalue("redis_server") if kind is StoreKind.REDIS else None
    opened = World(kind, tmp_path / "spent.db", server.url if server else None)
    yield opened
    opened.close()


def test_every_store_counts_as_the_model_does(world: World) -> None:
    machine = type("Machine", (Comparison,), {"world": world})
    size = settings(max_examples=settings().max_examples // 2, stateful_step_count=25)
    run_state_machine_as_test(machine, settings=size)
