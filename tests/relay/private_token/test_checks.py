"""Checks off the loop: batches, bounds, and the process for tokens of type 1."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Sequence
from io import BytesIO
from typing import Any

import psutil
import pytest
import structlog.testing

from masque.privacypass import Token, VoprfPrivateKey
from relay.auth.private_token import evaluation
from relay.auth.private_token.checks import (
    MAX_LINE,
    MAX_SHARE,
    Check,
    CheckQueue,
    ChecksBusy,
    ChecksFailed,
    CheckShare,
    verify_all,
)
from relay.auth.private_token.evaluation import Evaluation
from relay.auth.private_token.evaluator import encode_order, serve
from relay.auth.private_token.key_file import SeedKey
from tests.relay.private_token.rig import SEED, voprf_token

pytestmark = pytest.mark.anyio

KEY = SeedKey(SEED, VoprfPrivateKey(SEED))
CHALLENGE = b"\x00\x01challenge"


def ask(queue: CheckQueue, token: Token) -> Any:
    return queue.verify(KEY, token.input, token.authenticator, CheckShare())


class Gatekeeper:
    """Makes checks that wait until they may go on; remembers the sizes of batches and their thread."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.batches: list[int] = []
        self.threads: set[int] = set()

    def verify(self, checks: Sequence[Check]) -> list[bool]:
        self.batches.append(len(checks))
        self.threads.add(threading.get_ident())
        assert self.may.wait(10)
        return [check.authenticator == b"good" for check in checks]


async def test_those_who_wait_go_together_off_the_loop_and_each_gets_its_own_answer() -> None:
    keeper = Gatekeeper()
    queue = CheckQueue("test", keeper.verify, waiting=100, batch=8)
    async with asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(queue.verify(KEY, b"", b"good" if number % 3 else b"bad", CheckShare()))
            for number in range(20)
        ]
        await asyncio.sleep(0)
        keeper.may.set()
    assert [task.result() for task in asked] == [bool(number % 3) for number in range(20)]
    assert sum(keeper.batches) == 20
    assert max(keeper.batches) == 8
    assert threading.get_ident() not in keeper.threads
    assert len(keeper.threads) == 1
    await queue.close()


async def test_one_connection_takes_a_few_places_and_waits_for_them_in_a_line_of_its_own() -> None:
    keeper = Gatekeeper()
    queue = CheckQueue("test", keeper.verify, waiting=MAX_SHARE + 1, batch=MAX_SHARE)
    greedy, modest = CheckShare(), CheckShare()
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(queue.verify(KEY, b"", b"good", greedy)) for _ in range(MAX_SHARE + MAX_LINE)]
        await asyncio.sleep(0)
        with pytest.raises(ChecksBusy):
            await queue.verify(KEY, b"", b"good", greedy)
        other = tasks.create_task(queue.verify(KEY, b"", b"good", modest))
        await asyncio.sleep(0)
        with pytest.raises(ChecksBusy):
            await queue.verify(KEY, b"", b"good", modest)  # now the queue itself is full
        keeper.may.set()
    assert all(task.result() for task in [*asked, other])
    assert sum(keeper.batches) == MAX_SHARE + MAX_LINE + 1
    assert max(keeper.batches) <= MAX_SHARE
    await queue.close()


async def test_places_and_line_are_exact_when_callers_give_up() -> None:
    """An aborted check keeps its place until its batch is done; who waits in line leaves it at once."""
    keeper = Gatekeeper()
    queue = CheckQueue("test", keeper.verify, waiting=1000, batch=4)
    share = CheckShare()
    for _ in range(2):
        keeper.may.clear()
        async with asyncio.TaskGroup() as tasks:
            placed = [tasks.create_task(queue.verify(KEY, b"", b"good", share)) for _ in range(MAX_SHARE)]
            for _ in range(3):  # each time all of the line gives up
                line = [tasks.create_task(queue.verify(KEY, b"", b"good", share)) for _ in range(MAX_LINE)]
                await asyncio.sleep(0)
                with pytest.raises(ChecksBusy):
                    await queue.verify(KEY, b"", b"good", share)
                for task in line:
                    task.cancel()
                await asyncio.sleep(0)
            for task in placed:
                task.cancel()
            await asyncio.sleep(0)
            late = [tasks.create_task(queue.verify(KEY, b"", b"good", share)) for _ in range(MAX_LINE)]
            await asyncio.sleep(0)
            assert queue._waiting == MAX_SHARE, "places of aborted checks are not given away"
            keeper.may.set()
        assert all(task.result() for task in late)
        assert (queue._waiting, share._line, share._places._value) == (0, 0, MAX_SHARE)
    await queue.close()


async def test_who_waits_in_line_when_the_queue_closes_is_told() -> None:
    keeper = Gatekeeper()
    queue = CheckQueue("test", keeper.verify, waiting=100, batch=100)
    share = CheckShare()
    asked = [asyncio.ensure_future(queue.verify(KEY, b"", b"good", share)) for _ in range(MAX_SHARE + 2)]
    await asyncio.sleep(0)
    keeper.may.set()
    await queue.close()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert answers[:MAX_SHARE] == [True] * MAX_SHARE
    assert [type(answer) for answer in answers[MAX_SHARE:]] == [ChecksFailed] * 2


async def test_only_so_many_wait_even_when_callers_give_up() -> None:
    keeper = Gatekeeper()
    queue = CheckQueue("test", keeper.verify, waiting=3, batch=1)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(queue.verify(KEY, b"", b"good", CheckShare())) for _ in range(3)]
        await asyncio.sleep(0)
        for task in asked[1:]:
            task.cancel()
        await asyncio.sleep(0)
        with pytest.raises(ChecksBusy):
            await queue.verify(KEY, b"", b"good", CheckShare())
        keeper.may.set()
    assert await queue.verify(KEY, b"", b"good", CheckShare()), "behind those who gave up"
    assert await asyncio.gather(*[queue.verify(KEY, b"", b"good", CheckShare()) for _ in range(3)]) == [True] * 3
    assert keeper.batches == [1] * 5, "what nobody waits for is not checked"
    await queue.close()


async def test_a_fault_costs_its_batch_only() -> None:
    faults = [RuntimeError("secret")]

    def verify(checks: Sequence[Check]) -> list[bool]:
        if faults:
            raise faults.pop()
        return [True] * len(checks)

    queue = CheckQueue("test", verify, waiting=10, batch=1)
    with pytest.raises(ChecksFailed) as caught:
        await queue.verify(KEY, b"", b"", CheckShare())
    assert str(caught.value) == ""
    assert await queue.verify(KEY, b"", b"", CheckShare())
    await queue.close()
    with pytest.raises(ChecksFailed):
        await queue.verify(KEY, b"", b"", CheckShare())


async def test_a_close_answers_who_waits_and_finishes_in_the_thread() -> None:
    keeper = Gatekeeper()
    ended: list[int] = []
    queue = CheckQueue("test", keeper.verify, lambda: ended.append(threading.get_ident()), waiting=10, batch=1)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(queue.verify(KEY, b"", b"good", CheckShare())) for _ in range(2)]
        await asyncio.sleep(0)
        closing = tasks.create_task(queue.close())
        await asyncio.sleep(0)
        keeper.may.set()
    assert [task.result() for task in asked] == [True, True]
    assert closing.done()
    assert set(ended) == keeper.threads
    await queue.close()


async def test_a_queue_that_was_never_used_starts_nothing() -> None:
    before = threading.active_count()
    queue = CheckQueue("test", verify_all, waiting=10, batch=1)
    await queue.close()
    assert threading.active_count() == before


@contextlib.asynccontextmanager
async def type_1() -> AsyncIterator[tuple[CheckQueue, Evaluation]]:
    """A queue over a process."""
    process = Evaluation()
    queue = CheckQueue("test", process.verify, process.close, waiting=100, batch=16)
    try:
        yield queue, process
    finally:
        await queue.close()


async def test_another_process_checks_and_ends_with_the_queue() -> None:
    async with type_1() as (queue, process):
        before = process.pid
        assert before is None, "it starts with the first check"
        tokens = [voprf_token(CHALLENGE) for _ in range(40)]
        answers = await asyncio.gather(*[ask(queue, token) for token in tokens])
        assert answers == [True] * 40
        other = voprf_token(CHALLENGE, b"\x09" * 32)
        assert not await ask(queue, other)
        assert process.pid is not None
        assert process.pid != os.getpid()
        child = psutil.Process(process.pid)
        child.send_signal(signal.SIGTERM)
        child.send_signal(signal.SIGINT)
        assert await ask(queue, tokens[0]), "signals for the relay do not end it"
    assert not child.is_running()


async def test_a_process_that_is_killed_costs_its_batch_and_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_PAUSE", 0.0)
    async with type_1() as (queue, process):
        token = voprf_token(CHALLENGE)
        assert await ask(queue, token)
        first = process.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        with structlog.testing.capture_logs() as lines:
            with pytest.raises(ChecksFailed):
                await ask(queue, token)
            assert await ask(queue, token)
        assert process.pid not in (None, first)
        assert [line["event"] for line in lines] == ["token_evaluator_failed"]


async def test_a_process_that_is_stuck_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async with type_1() as (queue, process):
        token = voprf_token(CHALLENGE)
        assert await ask(queue, token)
        assert process.pid is not None
        child = psutil.Process(process.pid)
        child.suspend()
        monkeypatch.setattr(evaluation, "_PATIENCE", 0.05)
        with pytest.raises(ChecksFailed):
            await ask(queue, token)
        assert not child.is_running()
        with pytest.raises(ChecksFailed):
            await ask(queue, token)
        assert process.pid is None, "no second start within a moment"


async def test_the_process_ends_with_its_input() -> None:
    process = Evaluation()
    started = process._start()
    assert started.stdin is not None
    started.stdin.close()
    assert await asyncio.to_thread(started.wait, 10) == 0
    process.close()


def test_orders_are_answered_in_order() -> None:
    good, bad = voprf_token(CHALLENGE), voprf_token(CHALLENGE, b"\x09" * 32)
    orders = b"".join(encode_order(SEED, token.input, token.authenticator) for token in (good, bad, good))
    answers = BytesIO()
    serve(BytesIO(orders), answers)
    assert answers.getvalue() == b"\1\0\1"
    for cut in range(0, len(orders), 17):
        answers = BytesIO()
        serve(BytesIO(orders[:cut]), answers)
        assert b"\1\0\1".startswith(answers.getvalue())
    with pytest.raises(ValueError, match="impossible size"):
        serve(BytesIO(b"\x07"), BytesIO())


async def test_checks_of_type_1_cost_this_process_little() -> None:
    """What they hold the interpreter's lock for, they hold in the other process."""
    async with type_1() as (queue, _):
        token = voprf_token(CHALLENGE)
        assert await ask(queue, token)
        begin = time.process_time()
        assert all(KEY.verify(token.input, token.authenticator) for _ in range(100))
        here = time.process_time() - begin
        begin = time.process_time()
        assert await asyncio.gather(*[ask(queue, token) for _ in range(100)]) == [True] * 100
        assert time.process_time() - begin < here / 2
