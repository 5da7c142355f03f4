"""The file: what it looks like, and every way it can be away."""

# ruff: noqa: ASYNC240 - these tests move and break small files between two questions, when nothing else runs
from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from relay.spent import (
    GRACE,
    AwayReason,
    Database,
    LedgerError,
    Spend,
    SpentStore,
    SqliteLedger,
    StoreAway,
    StoreKind,
    Synchronous,
    open_store,
)
from tests.relay.spent.rig import NOW, Clock, answers, token, until

pytestmark = pytest.mark.anyio

LATER = NOW + 86_400


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a store of # spent?.db"


@pytest.fixture
async def store(path: Path, clock: Clock) -> AsyncIterator[SpentStore]:
    opened = open_store(StoreKind.SQLITE, clock, path=path, timeout=0.4, retry=0.0)
    yield opened
    await opened.close()


@contextlib.contextmanager
def direct(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, as another program sees it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        yield db


def rows(path: Path) -> dict[bytes, tuple[int, float]]:
    with direct(path) as db:
        return {row[0]: (row[1], row[2]) for row in db.execute("SELECT id, uses, keep_until FROM spent")}


async def test_the_file_and_what_is_in_it(store: SpentStore, path: Path) -> None:
    used, other = token(), token()
    for expires in (LATER, LATER + 5, LATER + 1):
        assert await store.spend(used, 3, expires)
    assert not await store.spend(used, 2, LATER + 9)
    assert await store.spend(other, 2, math.inf)
    assert rows(path) == {used: (3, LATER + 5 + GRACE), other: (1, math.inf)}
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    assert {file.name for file in path.parent.iterdir()} == {path.name, f"{path.name}-wal", f"{path.name}-shm"}
    await store.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("synchronous", [Synchronous.FULL, Synchronous.NORMAL])
def test_what_a_commit_waits_for(path: Path, synchronous: Synchronous) -> None:
    db, _ = Database(path, synchronous, 1.0).connect()
    with contextlib.closing(db):
        expected = {Synchronous.FULL: 2, Synchronous.NORMAL: 1}[synchronous]
        assert db.execute("PRAGMA synchronous").fetchone() == (expected,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_default_waits_for_the_disk(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    monkeypatch.setattr("relay.spent.factory.Database", lambda *args: given.extend(args))
    open_store(StoreKind.SQLITE, clock, path=path)
    assert given[1] is Synchronous.FULL


def test_many_threads_make_one_file(path: Path) -> None:
    barrier = threading.Barrier(8)
    failed: list[BaseException] = []
    identities = set()

    def connect() -> None:
        barrier.wait()
        try:
            db, identity = Database(path, Synchronous.NORMAL, 5.0).connect()
            identities.add(identity[0])
            db.execute("SELECT count(*) FROM spent").fetchone()
            db.close()
        except BaseException as exc:  # noqa: BLE001 - handed to the test
            failed.append(exc)

    threads = [threading.Thread(target=connect) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(identities) == 1
    assert [file.name for file in path.parent.iterdir()] == [path.name]


async def _refuses(store: SpentStore, reason: str) -> None:
    with pytest.raises(StoreAway) as caught:
        await store.spend(token(), 1, LATER)
    assert caught.value.reason.value == reason
    with pytest.raises(StoreAway, match=reason):
        await store.probe()


@contextlib.contextmanager
def one_outage(reason: str) -> Iterator[None]:
    """Expect one line for the outage and one for its end, and no more in them than there should be."""
    with capture_logs() as logs:
        yield
    assert [line["event"] for line in logs] == ["spent_store_away", "spent_store_back"]
    assert logs[0]["reason"] == reason
    assert {name for line in logs for name in line} <= {
        *("event", "log_level", "kind", "reason", "exception_type", "seconds", "count")
    }


@pytest.mark.parametrize("which", ["", "-wal", "-shm"])
async def test_a_deleted_file_is_an_outage_until_it_is_back(store: SpentStore, path: Path, which: str) -> None:
    used = token()
    file = path.with_name(path.name + which)
    aside = path.with_name("aside")
    assert await store.spend(used, 1, LATER)
    with one_outage("missing"):
        file.rename(aside)
        with pytest.raises(StoreAway, match="missing"):
            await store.spend(token(), 1, LATER)
        if which == "":
            await _refuses(store, "missing")
            assert not path.exists(), "never made anew while the relay runs"
            aside.rename(file)
        assert await store.spend(token(), 1, LATER)
    assert used in rows(path), "SQLite makes the two companions anew, from what it still has open"


async def test_a_replaced_file_admits_nothing_into_the_old_one(store: SpentStore, path: Path) -> None:
    """What was answered is in the file that everybody sees."""
    assert await store.spend(token(), 1, LATER)
    used = token()
    with one_outage("missing"):
        for end in ("", "-wal", "-shm"):
            path.with_name(path.name + end).rename(path.with_name("old" + end))
        Database(path, Synchronous.NORMAL, 1.0).connect()[0].close()
        with pytest.raises(StoreAway, match="missing"):
            await store.spend(used, 1, LATER)
        assert await store.spend(used, 1, LATER)
    assert set(rows(path)) == {used}


async def test_a_restart_makes_a_new_file(path: Path, clock: Clock) -> None:
    used = token()
    for _ in range(2):
        store = open_store(StoreKind.SQLITE, clock, path=path)
        assert await store.spend(used, 1, LATER)
        await store.close()
        path.unlink()


async def test_a_folder_that_is_missing(path: Path, clock: Clock) -> None:
    store = open_store(StoreKind.SQLITE, clock, path=path.parent / "none" / "spent.db", retry=0.0)
    with one_outage("missing"):
        await _refuses(store, "missing")
        (path.parent / "none").mkdir()
        await store.probe()
    await store.close()


async def test_a_locked_file(store: SpentStore, path: Path) -> None:
    assert await store.spend(token(), 1, LATER)
    with one_outage("locked"):
        with direct(path) as db:
            db.execute("BEGIN IMMEDIATE")
            await _refuses(store, "locked")
        assert await store.spend(token(), 1, LATER)


async def test_a_lock_that_is_short_is_waited_for(store: SpentStore, path: Path) -> None:
    assert await store.spend(token(), 1, LATER)
    with direct(path) as db:
        db.execute("BEGIN IMMEDIATE")
        spend = asyncio.ensure_future(store.spend(token(), 1, LATER))
        await asyncio.sleep(0.01)
        assert not spend.done()
        db.execute("COMMIT")
        assert await spend


@pytest.mark.parametrize("content", [b"", b"not a database" * 100, None], ids=["empty", "text", "another's"])
async def test_what_is_not_our_file_is_left_alone(
    store: SpentStore, path: Path, content: bytes | None, clock: Clock
) -> None:
    if content is None:
        with direct(path) as db:
            db.execute("CREATE TABLE spent (x)")
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with one_outage("corrupt"):
        await _refuses(store, "corrupt")
        assert path.read_bytes() == before
        path.unlink()
        await store.probe()


async def test_a_damaged_file(store: SpentStore, path: Path) -> None:
    for _ in range(300):
        assert await store.spend(token(), 1, LATER)
    await store.close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    again = open_store(StoreKind.SQLITE, Clock(), path=path, retry=0.0)
    await _refuses(again, "corrupt")
    await again.close()


async def test_another_version(store: SpentStore, path: Path) -> None:
    await store.probe()
    await store.close()
    with direct(path) as db:
        db.execute("PRAGMA user_version = 2")
    again = open_store(StoreKind.SQLITE, Clock(), path=path, retry=0.0)
    await _refuses(again, "version")
    await again.close()


async def test_a_copy_of_an_open_file_has_all_that_was_answered(store: SpentStore, path: Path) -> None:
    """As after a power failure: the file and its log, with no process that closed them."""
    tokens = [token() for _ in range(50)]
    for used in tokens:
        assert await store.spend(used, 1, LATER)
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    shutil.copy(f"{path}-wal", f"{copy}-wal")
    again = open_store(StoreKind.SQLITE, Clock(), path=copy)
    assert not any([await again.spend(used, 1, LATER) for used in tokens])
    await again.close()


def _ledger(path: Path) -> SqliteLedger:
    return SqliteLedger(Database(path, Synchronous.NORMAL, 1.0))


def _spends(tokens: list[bytes], keep_until: float) -> list[Spend]:
    loop = asyncio.get_running_loop()
    return [Spend(used, 1, keep_until, loop.create_future()) for used in tokens]


async def test_expired_entries_go_in_small_bites(path: Path) -> None:
    ledger = _ledger(path)
    tokens = [token() for _ in range(1000)]
    for start in range(0, 1000, 250):
        ledger.record(_spends(tokens[start : start + 250], NOW + 10), NOW)
    kept = [token() for _ in range(20)]
    ledger.record(_spends(kept, NOW + 1000), NOW)
    sizes = [len(rows(path))]
    new = 0
    while sizes[-1] > 20 + new:
        ledger.record(_spends([token() for _ in range(8)], NOW + 1000), NOW + 10)
        new += 8
        sizes.append(len(rows(path)))
        assert sizes[-2] - sizes[-1] <= 256
    assert new <= 2 * 1000 / 4
    assert len(set(sizes)) > 5, "not all at once"
    assert set(kept) <= set(rows(path))
    ledger.close()


async def test_the_sweep_keeps_up_with_what_is_added(path: Path) -> None:
    ledger = _ledger(path)
    now = NOW
    for _ in range(300):
        ledger.record(_spends([token() for _ in range(20)], now + 10), now)
        now += 1
    assert len(rows(path)) < 20 * 10 * 3
    ledger.close()


async def test_an_error_between_writing_and_committing_leaves_nothing(path: Path) -> None:
    ledger = _ledger(path)
    tokens = [token() for _ in range(200)]

    def fail(bite: int, now: float) -> None:
        raise sqlite3.OperationalError("for the test")

    ledger._sweep = fail  # type: ignore[method-assign]
    with pytest.raises(LedgerError):
        ledger.record(_spends(tokens, NOW + 10), NOW)
    ledger.close()
    again = _ledger(path)
    assert again.record(_spends(tokens, NOW + 10), NOW) == [1] * 200
    again.close()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: OSError(28, "No space left"), AwayReason.DISK_FULL),
        (lambda: OSError(30, "Read-only"), AwayReason.READ_ONLY),
        (lambda: OSError(5, "I/O"), AwayReason.FAILED),
        (lambda: sqlite3.OperationalError("of no code"), AwayReason.FAILED),
    ],
)
def test_reasons(path: Path, make: Callable[[], OSError | sqlite3.Error], reason: AwayReason) -> None:
    database = Database(path, Synchronous.NORMAL, 1.0)
    db, _ = database.connect()
    assert database.explain(make()).reason is reason
    db.close()
    os.unlink(path)
    assert database.explain(sqlite3.OperationalError("of no code")).reason is AwayReason.MISSING


@pytest.mark.parametrize("system_calls", [0, 16], ids=["thinking", "sending"])
async def test_a_loop_that_is_never_idle_does_not_starve_the_store(
    path: Path, clock: Clock, system_calls: int
) -> None:
    """A packet loop under load lets go of the interpreter's lock for microseconds, and takes it back at once."""
    store = open_store(StoreKind.SQLITE, clock, path=path, timeout=60.0)

    async def spend() -> list[bool]:
        return [await store.spend(token(), 1, LATER) for _ in range(30)]

    spending = asyncio.ensure_future(spend())
    turns = 0
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with first, second:
        while not spending.done() and turns < 3000:
            for _ in range(max(1, system_calls)):
                begun = time.perf_counter()
                while time.perf_counter() - begun < 500e-6 / max(1, system_calls):
                    pass
                if system_calls:
                    first.send(bytes(1200))
                    second.recv(2000)
            turns += 1
            await asyncio.sleep(0)
    assert spending.done(), "it has its turns only by chance"
    assert all(spending.result())
    await store.close()


async def test_it_answers_again_without_a_restart_and_without_a_retry_of_the_caller(path: Path, clock: Clock) -> None:
    """With the default interval: whoever comes after it finds the store back."""
    path.write_bytes(b"")
    store = open_store(StoreKind.SQLITE, clock, path=path, retry=0.05)
    assert not await answers(store)
    path.unlink()
    await until(lambda: answers(store))
    await store.close()
