"""Equal questions are asked once."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel
import pytest

from relay.hooks import Resolution
from relay.resolver import (
    Flights,
)
from tests.relay.dns_server import records
from tests.relay.resolver.lab import A1, AAAA1, Lab

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient")]


async def test_equal_questions_are_joined(lab: Lab) -> None:
    lab.server.answer("www.test", records(A1), records(AAAA1))
    lab.server.gate = asyncio.Event()
    resolver = await lab.resolver(timeout=60)
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
    resolver = await lab.resolver(timeout=60)
    found: list[Resolution] = []
    first = anyio.CancelScope()
    gone = anyio.Event()

    async def ask_first() -> None:
        with first:
            await resolver.resolve("www.test")
            pytest.fail("the first asker was cancelled")
        gone.set()

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
        await gone.wait()
        lab.server.gate.set()
    assert len(found) == 3
    assert lab.server.asked.total() == 2


class Work:
    """Work that waits for a gate, and knows what became of it."""

    def __init__(self) -> None:
        self.gate = anyio.Event()
        self.started = 0
        self.cancelled = 0

    async def __call__(self) -> int:
        self.started += 1
        try:
            await self.gate.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        return self.started


async def test_work_that_nobody_waits_for_stops() -> None:
    work = Work()
    async with anyio.create_task_group() as tasks:
        flights: Flights[str, int] = Flights(tasks)
        with anyio.move_on_after(0.01):
            await flights.join("key", work)
        assert len(flights) == 0
        await anyio.wait_all_tasks_blocked()
        assert (work.started, work.cancelled) == (1, 1)
        work.gate.set()
        assert await flights.join("key", work) == 2


async def test_work_that_was_launched_goes_on_alone() -> None:
    work = Work()
    async with anyio.create_task_group() as tasks:
        flights: Flights[str, int] = Flights(tasks)
        flights.launch("key", work)
        flights.launch("key", work)
        with anyio.move_on_after(0.01):
            await flights.join("key", work)
        assert len(flights) == 1
        work.gate.set()
    assert (work.started, work.cancelled, len(flights)) == (1, 0, 0)


async def test_work_that_raises_is_raised_to_each_and_leaves_nothing() -> None:
    errors: list[str] = []

    async def work() -> int:
        await anyio.lowlevel.checkpoint()
        raise RuntimeError("broken")

    async with anyio.create_task_group() as group:
        flights: Flights[str, int] = Flights(group)

        async def ask() -> None:
            try:
                await flights.join("key", work)
            except RuntimeError as error:
                errors.append(str(error))

        for _ in range(3):
            group.start_soon(ask)
        flights.launch("other", work)
    assert errors == ["broken"] * 3
    assert len(flights) == 0
