"""A process that spends tokens, for tests that need several of them or kill them.

`python -m tests.relay.spent.spender MODE KIND PLACE LIMIT`, with the ids of tokens on standard input, one a line.
It writes `ready` when it has reached its store, then waits for the end of the input. Its log goes to standard output
too, as JSON.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from relay.spent import Database, SpentStore, SqliteLedger, StoreAway, StoreKind, open_store
from relay.telemetry import LogFormat, configure_logging
from tests.relay.spent.rig import answers, until

COPIES = 250
"How often a process spends each token in the mode `crowd`."
WORKERS = 16
"How many spends are under way at once in the mode `stream`."


def write(line: str) -> None:
    """Write a line at once: what was admitted before a kill must be known after it."""
    os.write(1, f"{line}\n".encode())


async def crowd(store: SpentStore, tokens: Iterable[bytes], limit: int) -> None:
    """Spend each token many times at once; write how many were admitted."""
    for used in tokens:
        answers = await asyncio.gather(*[store.spend(used, limit, math.inf) for _ in range(COPIES)])
        write(str(sum(answers)))


async def stream(store: SpentStore, tokens: Iterable[bytes], limit: int) -> None:
    """Spend one token after the other; write each that is admitted."""
    rest = iter(tokens)

    async def work() -> None:
        for used in rest:
            if await store.spend(used, limit, math.inf):
                write(used.hex())

    await asyncio.gather(*[work() for _ in range(WORKERS)])
    write("end")


async def fill(store: SpentStore, place: Path) -> None:
    """Fill the disk, spend until it is felt, make room again, and go on. Writes what it saw."""
    ballast = place.with_name("ballast")
    assert await store.spend(os.urandom(32), 1, math.inf)
    with ballast.open("wb", 0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    tokens = [os.urandom(32)]
    try:
        while await store.spend(tokens[-1], 1, math.inf):
            tokens.append(os.urandom(32))
    except StoreAway as away:
        write(away.reason.value)
    ballast.unlink()
    await until(lambda: answers(store))
    write("back")
    fresh = open_store(StoreKind.SQLITE, time.time, path=place)
    admitted = [await fresh.spend(used, 1, math.inf) for used in tokens]
    await fresh.close()
    write(f"admitted again: {sum(admitted[:-1])}")


async def forbid(store: SpentStore, place: Path) -> None:
    """Make the file system read-only and writable again around spends. Writes what it saw."""
    remount(place, "ro")
    try:
        await store.probe()
    except StoreAway as away:
        write(away.reason.value)
    remount(place, "rw")
    await until(lambda: answers(store))
    write("back")


def remount(place: Path, how: str) -> None:
    """Change the file system that a file is in."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(place.parent)], check=True)


def die_before_commit() -> None:
    """Kill this process when a transaction has written and is about to commit."""
    connect = Database.connect

    def traced(self: Database) -> object:
        db, identity = connect(self)
        written: list[str] = []

        def trace(statement: str) -> None:
            written.append(statement)
            if statement == "COMMIT" and any(text.startswith("REPLACE") for text in written):
                os.kill(os.getpid(), signal.SIGKILL)

        db.set_trace_callback(trace)
        return db, identity

    Database.connect = traced  # type: ignore[method-assign, assignment]


def die_after_commit() -> None:
    """Kill this process when a spend is committed and not yet answered."""
    record = SqliteLedger.record

    def deadly(self: SqliteLedger, spends: object, now: float) -> object:
        uses = record(self, spends, now)  # type: ignore[arg-type]
        if any(uses):
            os.kill(os.getpid(), signal.SIGKILL)
        return uses

    SqliteLedger.record = deadly  # type: ignore[method-assign, assignment]


async def main(mode: str, kind: str, place: str, limit: str) -> None:
    """Run one mode."""
    configure_logging(log_format=LogFormat.JSON, stream=sys.stdout)
    deaths = {"die_before_commit": die_before_commit, "die_after_commit": die_after_commit}
    if mode in deaths:
        deaths[mode]()
    store = open_store(StoreKind(kind), time.time, path=Path(place), url=place, timeout=20.0, retry=0.05)
    if mode != "forbid":
        await store.probe()
    write("ready")
    tokens = [bytes.fromhex(line) for line in sys.stdin]
    if mode == "crowd":
        await crowd(store, tokens, int(limit))
    elif mode in {"fill", "forbid"}:
        await {"fill": fill, "forbid": forbid}[mode](store, Path(place))
    else:
        await stream(store, tokens, int(limit))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*cast("tuple[str, str, str, str]", tuple(sys.argv[1:]))))
