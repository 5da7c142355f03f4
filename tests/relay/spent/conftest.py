"""Fixtures: one Redis server for all tests that do not break it, and a store of each kind."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from relay.spent import SpentStore, StoreKind, Synchronous, open_store
from tests.relay.spent.rig import Clock, RedisProcess, redis_process, token

__all__ = ["clock", "make", "redis_server", "store"]

KINDS = [kind.value for kind in StoreKind]
Make = Callable[[], SpentStore]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """A server for many tests; each uses a prefix of its own."""
    with redis_process(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(autouse=True)
def _switch_interval() -> Iterator[None]:
    """Undo what stores do to the process, for other tests' sake."""
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def clock() -> Clock:
    """The wall clock of the stores."""
    return Clock()


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Make:
    """Makes stores of one kind over the same record, as several workers do; in memory, each has its own."""
    kind = StoreKind(request.param)
    if kind is StoreKind.REDIS:
        url = request.getfixturevalue("redis_server").url
        prefix = f"test:{token().hex()}:"
        return lambda: open_store(kind, clock, url=url, prefix=prefix)
    return lambda: open_store(kind, clock, path=tmp_path / "spent.db", synchronous=Synchronous.NORMAL)


@pytest.fixture
async def store(make: Make) -> AsyncIterator[SpentStore]:
    """One open store."""
    opened = make()
    yield opened
    await opened.close()
