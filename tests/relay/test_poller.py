"""The poller's turns on real sockets: read, then what was deferred, then the flushes."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from relay.poller import READABLE, WRITABLE, Poller

pytestmark = pytest.mark.anyio


class Pair:
    """Two joined datagram sockets: one for the poller, one to make it readable."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.near.setblocking(False)
        self.far.setblocking(False)

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    made = [Pair() for _ in range(3)]
    yield made
    for pair in made:
        pair.close()


@pytest.fixture
async def poller() -> Any:
    loop = asyncio.get_running_loop()
    made = Poller(loop)
    yield made
    if not made._epoll.closed:
        made.close()


@pytest.fixture
async def faults() -> Any:
    """Exceptions that reach the loop's handler, instead of the log."""
    loop = asyncio.get_running_loop()
    found: list[BaseException] = []
    loop.set_exception_handler(lambda _, context: found.append(context["exception"]))
    yield found
    loop.set_exception_handler(None)


async def until(done: asyncio.Event) -> None:
    async with asyncio.timeout(5):
        await done.wait()


async def test_a_turn_reads_then_runs_what_was_deferred_then_flushes(poller: Poller, pairs: list[Pair]) -> None:
    order: list[str] = []
    done = asyncio.Event()

    def ready(name: str, pair: Pair) -> None:
        pair.near.recv(100)
        order.append(f"read {name}")
        poller.defer_flush(lambda: order.append(f"flush {name}"))
        poller.defer(lambda: order.append(f"deferred {name}"))
        if name == "1":
            poller.defer_flush(done.set)

    for index, pair in enumerate(pairs[:2]):
        name = str(index)
        poller.add(pair.near.fileno(), lambda _, name=name, pair=pair: ready(name, pair))  # type: ignore[misc]
        pair.far.send(b"x")
    await until(done)
    assert order == ["read 0", "read 1", "deferred 0", "deferred 1", "flush 0", "flush 1"]


async def test_one_turn_reads_until_nothing_is_ready(poller: Poller, pairs: list[Pair]) -> None:
    pair = pairs[0]
    order: list[str] = []
    done = asyncio.Event()

    def flush() -> None:
        order.append("flush")
        done.set()

    def ready(_: int) -> None:
        pair.near.recv(100)
        order.append("read")
        if order.count("read") == 1:
            poller.defer_flush(flush)

    poller.add(pair.near.fileno(), ready)
    for _ in range(5):
        pair.far.send(b"x")
    await until(done)
    assert order == ["read"] * 5 + ["flush"]


async def test_a_turn_ends_although_more_keeps_coming(poller: Poller, pairs: list[Pair]) -> None:
    pair = pairs[0]
    reads = 0
    done = asyncio.Event()

    def ready(_: int) -> None:
        nonlocal reads
        pair.near.recv(100)
        reads += 1
        if reads == 1:
            poller.defer_flush(done.set)
        if not done.is_set():
            pair.far.send(b"x")

    poller.add(pair.near.fileno(), ready)
    pair.far.send(b"x")
    await until(done)
    assert 1 < reads <= 64


async def test_what_a_flush_defers_runs_in_the_same_turn(poller: Poller) -> None:
    order: list[str] = []
    done = asyncio.Event()

    def flush() -> None:
        order.append("flush")
        poller.defer(lambda: order.append("deferred by a flush"))
        poller.defer_flush(last)

    def last() -> None:
        order.append("second flush")
        done.set()

    poller.defer_flush(flush)
    poller.defer(lambda: order.append("deferred"))
    await until(done)
    assert order == ["deferred", "flush", "deferred by a flush", "second flush"]


async def test_an_exception_stops_neither_the_others_nor_the_turn(
    poller: Poller, pairs: list[Pair], faults: list[BaseException]
) -> None:
    order: list[str] = []
    done = asyncio.Event()

    def fail(where: str) -> None:
        raise ZeroDivisionError(where)

    def bad(_: int) -> None:
        pairs[0].near.recv(100)
        poller.defer(lambda: fail("deferred"))
        poller.defer(lambda: order.append("deferred"))
        poller.defer_flush(lambda: fail("flush"))
        poller.defer_flush(lambda: order.append("flush"))
        poller.defer_flush(done.set)
        fail("read")

    def good(_: int) -> None:
        pairs[1].near.recv(100)
        order.append("read")

    poller.add(pairs[0].near.fileno(), bad)
    poller.add(pairs[1].near.fileno(), good)
    for pair in pairs[:2]:
        pair.far.send(b"x")
    await until(done)
    assert order == ["read", "deferred", "flush"]
    assert [str(fault) for fault in faults] == ["read", "deferred", "flush"]


async def test_a_socket_removed_by_another_in_the_same_turn_is_not_called(poller: Poller, pairs: list[Pair]) -> None:
    called: list[int] = []
    done = asyncio.Event()

    def ready(index: int) -> None:
        pairs[index].near.recv(100)
        called.append(index)
        for pair in pairs:
            poller.remove(pair.near.fileno())
        poller.defer_flush(done.set)

    for index, pair in enumerate(pairs):
        pair.far.send(b"x")
        poller.add(pair.near.fileno(), lambda _, index=index: ready(index))  # type: ignore[misc]
    await until(done)
    await asyncio.sleep(0)
    assert len(called) == 1


async def test_remove_ignores_what_it_does_not_know(poller: Poller, pairs: list[Pair]) -> None:
    poller.remove(pairs[0].near.fileno())
    poller.add(pairs[0].near.fileno(), lambda _: None)
    poller.remove(pairs[0].near.fileno())
    poller.remove(pairs[0].near.fileno())


async def test_modify_asks_for_writability(poller: Poller, pairs: list[Pair]) -> None:
    seen: list[int] = []
    done = asyncio.Event()
    fd = pairs[0].near.fileno()

    def ready(events: int) -> None:
        seen.append(events)
        poller.modify(fd, READABLE)
        done.set()

    poller.add(fd, ready)
    poller.modify(fd, READABLE | WRITABLE)
    await until(done)
    assert seen == [WRITABLE]


async def test_a_hang_up_is_reported_unasked(poller: Poller, pairs: list[Pair]) -> None:
    seen: list[int] = []
    done = asyncio.Event()
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

    def ready(events: int) -> None:
        seen.append(events)
        poller.remove(near.fileno())
        done.set()

    try:
        poller.add(near.fileno(), ready, 0)
        far.close()
        await until(done)
        assert seen[0] & select.EPOLLHUP
    finally:
        near.close()
        far.close()


async def test_now_moves_with_the_turns(poller: Poller) -> None:
    loop = asyncio.get_running_loop()
    before = poller.now
    done = asyncio.Event()
    await asyncio.sleep(0.01)
    poller.defer(done.set)
    await until(done)
    assert before < poller.now <= loop.time()
    assert poller.refresh() <= loop.time()


async def test_drain_runs_at_once_what_is_deferred(poller: Poller) -> None:
    order: list[str] = []
    poller.defer_flush(lambda: order.append("flush"))
    poller.defer(lambda: order.append("deferred"))
    poller.drain()
    assert order == ["deferred", "flush"]
    await asyncio.sleep(0)
    assert order == ["deferred", "flush"], "and not twice"


async def test_nothing_is_left_after_close(poller: Poller, pairs: list[Pair]) -> None:
    loop = asyncio.get_running_loop()
    called: list[str] = []
    fd = poller._epoll.fileno()
    poller.add(pairs[0].near.fileno(), lambda _: called.append("ready"))
    pairs[0].far.send(b"x")
    poller.defer(lambda: called.append("deferred"))
    poller.defer_flush(lambda: called.append("flush"))
    poller.close()
    for _ in range(3):
        await asyncio.sleep(0)
    assert called == []
    assert loop.remove_reader(fd) is False
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize("moment", ["ready", "deferred", "flush"])
async def test_the_poller_may_be_closed_from_its_own_turn(
    poller: Poller, pairs: list[Pair], faults: list[BaseException], moment: str
) -> None:
    done = asyncio.Event()

    def close() -> None:
        poller.close()
        done.set()

    def ready(_: int) -> None:
        pairs[0].near.recv(100)
        if moment == "ready":
            close()
        elif moment == "deferred":
            poller.defer(close)
        else:
            poller.defer_flush(close)

    poller.add(pairs[0].near.fileno(), ready)
    pairs[0].far.send(b"x")
    await until(done)
    await asyncio.sleep(0)
    assert faults == []
