"""The queue in front of a ledger: batches, bounds, cancellation, faults, and what the log says of them."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from relay.spent import AwayReason, LedgerError, QueuedStore, Spend, StoreAway, take_turns
from tests.relay.spent.rig import NOW, Clock, answers, token, until

pytestmark = pytest.mark.anyio

LATER = NOW + 86_400


async def test_a_spend_shows_no_token() -> None:
    spend = Spend(b"\x5a" * 32, 1, LATER, asyncio.get_running_loop().create_future())
    assert "ZZ" not in repr(spend)


class FakeLedger:
    """Counts in a dict; stands still, fails and opens as the test wants it."""

    def __init__(self) -> None:
        self.uses: dict[bytes, int] = {}
        self.batches: list[list[bytes]] = []
        self.opened = 0
        self.closed = 0
        self.fault: Exception | None = None
        self.fault_at_opening: Exception | None = None
        self.going = threading.Event()
        self.going.set()
        self.entered = threading.Event()

    def open(self) -> FakeLedger:
        """Stand in for a ledger's constructor."""
        if self.fault_at_opening is not None:
            raise self.fault_at_opening
        self.opened += 1
        return self

    def record(self, spends: Sequence[Spend], now: float) -> list[int]:
        self.batches.append([spend.token_id for spend in spends])
        self.entered.set()
        assert self.going.wait(10)
        answers = []
        for spend in spends:
            uses = self.uses.get(spend.token_id, 0)
            answers.append(uses + 1 if uses < spend.limit else 0)
            self.uses[spend.token_id] = max(uses, answers[-1])
        if self.fault is not None:
            raise self.fault
        return answers

    def close(self) -> None:
        self.closed += 1

    async def busy(self) -> None:
        """Wait until the thread stands in `record`."""
        assert await asyncio.to_thread(self.entered.wait, 10)
        self.entered.clear()


@asynccontextmanager
async def queued(
    ledger: FakeLedger, *, timeout: float = 10, waiting: int = 1000, retry: float = 0.0
) -> AsyncIterator[QueuedStore]:
    store = QueuedStore("fake", ledger.open, Clock(), timeout=timeout, waiting=waiting, retry=retry)
    try:
        yield store
    finally:
        ledger.going.set()
        await store.close()


def start(store: QueuedStore, *tokens: bytes) -> list[asyncio.Task[bool]]:
    return [asyncio.ensure_future(store.spend(used, 1, LATER)) for used in tokens]


async def test_all_who_wait_are_one_batch() -> None:
    ledger = FakeLedger()
    ledger.going.clear()
    tokens = [token() for _ in range(600)]
    async with queued(ledger) as store:
        first = start(store, tokens[0])
        await ledger.busy()
        rest = start(store, *tokens[1:])
        await asyncio.sleep(0)
        ledger.going.set()
        assert all(await asyncio.gather(*first, *rest))
    assert [len(batch) for batch in ledger.batches] == [1, 256, 256, 87]
    assert [used for batch in ledger.batches for used in batch] == tokens
    assert (ledger.opened, ledger.closed) == (1, 1)


async def test_a_known_token_is_refused_without_asking() -> None:
    ledger = FakeLedger()
    used = token()
    async with queued(ledger) as store:
        assert await store.spend(used, 1, LATER)
        assert not await store.spend(used, 1, LATER)
        assert await store.is_spent(used, 1)
        assert len(ledger.batches) == 1
        assert not await store.is_spent(used, 2)
        assert await store.spend(used, 2, LATER)


async def test_no_more_may_wait_than_allowed() -> None:
    ledger = FakeLedger()
    ledger.going.clear()
    with capture_logs() as logs:
        async with queued(ledger, waiting=10) as store:
            waiting = start(store, *[token() for _ in range(10)])
            await ledger.busy()
            for _ in range(3):
                with pytest.raises(StoreAway, match="busy"):
                    await store.spend(token(), 1, LATER)
                assert not await store.is_spent(token(), 1)
            ledger.going.set()
            assert all(await asyncio.gather(*waiting))
            assert await store.spend(token(), 1, LATER)
    assert [(line["event"], line.get("reason")) for line in logs] == [
        ("spent_store_away", "busy"),
        ("spent_store_back", None),
    ]


async def test_who_is_cancelled_makes_no_room_while_the_ledger_hangs() -> None:
    ledger = FakeLedger()
    ledger.going.clear()
    async with queued(ledger, waiting=10) as store:
        waiting = start(store, *[token() for _ in range(10)])
        await ledger.busy()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(StoreAway, match="busy"):
            await store.spend(token(), 1, LATER)
        ledger.going.set()
        await until(lambda: answers(store))


async def test_who_gives_up_early_keeps_the_token() -> None:
    ledger = FakeLedger()
    ledger.going.clear()
    used = token()
    async with queued(ledger) as store:
        first = start(store, token())
        await ledger.busy()
        gone = start(store, used)
        await asyncio.sleep(0)
        gone[0].cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        ledger.going.set()
        assert await first[0]
        assert await store.spend(used, 1, LATER)


async def test_who_gives_up_late_has_used_the_token() -> None:
    ledger = FakeLedger()
    ledger.going.clear()
    used, other = token(), token()
    async with queued(ledger) as store:
        both = start(store, used)
        await ledger.busy()
        both += start(store, other)
        await asyncio.sleep(0)
        both[0].cancel()
        ledger.going.set()
        assert await both[1]
        assert both[0].cancelled()
        assert not await store.spend(used, 1, LATER)


async def test_a_ledger_that_hangs_is_away_in_time() -> None:
    ledger = FakeLedger()
    ledger.going.clear()
    used = token()
    loop = asyncio.get_running_loop()
    with capture_logs() as logs:
        async with queued(ledger, timeout=0.05, retry=60) as store:
            begun = loop.time()
            with pytest.raises(StoreAway, match="timeout"):
                await store.spend(used, 1, LATER)
            assert loop.time() - begun < 5
            for ask in (store.is_spent(token(), 1), store.spend(token(), 1, LATER), store.probe()):
                with pytest.raises(StoreAway, match="timeout"):
                    await ask
            ledger.going.set()
            await until(lambda: _is_open(store))
            assert await store.is_spent(used, 1)
            assert await store.spend(token(), 1, LATER)
    assert [line["event"] for line in logs] == ["spent_store_away"], "back only when nothing failed for `retry`"
    assert ledger.batches[0] == [used]


async def _is_open(store: QueuedStore) -> bool:
    try:
        await store.is_spent(token(), 1)
    except StoreAway:
        return False
    return True


@pytest.mark.parametrize(
    ("fault", "reason", "name"),
    [(LedgerError(AwayReason.DISK_FULL), "disk_full", None), (ZeroDivisionError("x"), "failed", "ZeroDivisionError")],
)
@pytest.mark.parametrize("where", ["fault", "fault_at_opening"])
async def test_a_fault_refuses_its_batch_and_the_ledger_is_opened_anew(
    fault: Exception, reason: str, name: str | None, where: str
) -> None:
    ledger = FakeLedger()
    setattr(ledger, where, fault)
    tokens = [token() for _ in range(5)]
    with capture_logs() as logs:
        async with queued(ledger) as store:
            for _ in range(2):
                answers = await asyncio.gather(*start(store, *tokens), return_exceptions=True)
                assert [str(answer) for answer in answers] == [reason] * 5
                assert {type(answer) for answer in answers} == {StoreAway}
                assert not any(isinstance(answer, BaseException) and answer.__cause__ for answer in answers)
            setattr(ledger, where, None)
            assert await store.spend(token(), 1, LATER)
    assert ledger.opened == ledger.closed
    assert ledger.opened >= 3 if where == "fault" else ledger.opened == 1
    away, back = logs
    assert (away["event"], away["log_level"], away["kind"], away["reason"]) == (
        "spent_store_away",
        "error",
        "fake",
        reason,
    )
    assert away.get("exception_type") == name
    assert (back["event"], back["log_level"], back["count"]) == ("spent_store_back", "info", 10)
    assert not any(used.hex() in str(logs) or str(used) in str(logs) for used in tokens)


async def test_while_away_all_are_refused_at_once() -> None:
    ledger = FakeLedger()
    ledger.fault = LedgerError(AwayReason.LOCKED)
    async with queued(ledger, retry=60) as store:
        for _ in range(50):
            for ask in (store.spend(token(), 1, LATER), store.probe()):
                with pytest.raises(StoreAway, match="locked"):
                    await ask
    assert len(ledger.batches) == 1


async def test_an_outage_ends_by_itself() -> None:
    ledger = FakeLedger()
    ledger.fault_at_opening = LedgerError(AwayReason.LOCKED)
    with capture_logs() as logs:
        async with queued(ledger, retry=0.02) as store:
            assert not await answers(store)
            assert not await answers(store)
            ledger.fault_at_opening = None
            await until(lambda: answers(store))
            assert await answers(store)
    assert [line["event"] for line in logs] == ["spent_store_away", "spent_store_back"]


async def test_closing_does_not_wait_for_a_ledger_that_hangs() -> None:
    ledger = FakeLedger()
    ledger.going.clear()
    async with queued(ledger, timeout=0.05) as store:
        waiting = start(store, token())
        await ledger.busy()
        await store.close()
        with pytest.raises(StoreAway, match="timeout"):
            await waiting[0]
        assert not ledger.closed


def test_a_loop_that_is_gone_ends_the_thread() -> None:
    ledger = FakeLedger()
    ledger.going.clear()

    async def leave() -> None:
        store = QueuedStore("gone", ledger.open, Clock(), timeout=10, waiting=10, retry=0)
        waiting = start(store, token())
        await ledger.busy()
        waiting[0].cancel()

    asyncio.run(leave())
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "spent-gone"]
    ledger.going.set()
    thread.join(10)
    assert not thread.is_alive()
    assert ledger.closed == 1


@pytest.mark.parametrize(("before", "after"), [(0.005, 10e-6), (2e-6, 2e-6)])
def test_a_shorter_switch_interval_stays(before: float, after: float) -> None:
    sys.setswitchinterval(before)
    thread = threading.Thread(target=take_turns)
    thread.start()
    thread.join()
    assert sys.getswitchinterval() == pytest.approx(after)
