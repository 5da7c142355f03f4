"""From plain arguments to a store."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path

from relay.spent.database import Database, Synchronous
from relay.spent.memory import MemoryStore
from relay.spent.queued import QueuedStore
from relay.spent.sqlite import SqliteLedger
from relay.spent.store import SpentStore

__all__ = ["StoreKind", "open_store"]


class StoreKind(StrEnum):
    """The stores there are."""

    MEMORY = "memory"
    "One process, gone at a restart."
    SQLITE = "sqlite"
    "A file for the workers of one host."
    REDIS = "redis"
    "A server for a fleet; needs the extra `redis`."


def open_store(
    kind: StoreKind,
    clock: Callable[[], float],
    *,
    path: Path | None = None,
    synchronous: Synchronous = Synchronous.FULL,
    url: str | None = None,
    prefix: str = "relay:spent:",
    ca_file: Path | None = None,
    replicas: int = 0,
    entries: int = 1_000_000,
    waiting: int = 1024,
    timeout: float = 2.0,
    retry: float = 1.0,
) -> SpentStore:
    """Make a store. It opens its file or connects when it is first used; `probe` does it at once.

    Args:
        kind: which one.
        clock: the wall clock, in seconds since the epoch; all who share a store must go by the same time.
        path: the file of `sqlite`.
        synchronous: what a commit of `sqlite` waits for.
        url: the server of `redis`.
        prefix: what the keys of `redis` begin with.
        ca_file: the authorities that `redis` trusts with `rediss://`; the system's when None.
        replicas: how many replicas of `redis` must confirm.
        entries: the most live tokens of `memory`.
        waiting: the most spends that wait, of `sqlite` and `redis`.
        timeout: seconds within which a caller has its answer or StoreAway, of `sqlite` and `redis`.
        retry: seconds between two attempts while the store is away.

    Raises:
        ValueError: an argument is missing or wrong, or the package `redis` is. One sentence, without any secret.
    """
    if kind is StoreKind.MEMORY:
        return MemoryStore(clock, entries=entries, retry=retry)
    queued = partial(QueuedStore, kind.value, clock=clock, timeout=timeout, waiting=waiting, retry=retry)
    if kind is StoreKind.SQLITE:
        if path is None:
            raise ValueError("the store sqlite needs a path")
        database = Database(path, synchronous, timeout / 2)
        return queued(partial(SqliteLedger, database))
    if url is None:
        raise ValueError("the store redis needs a URL")
    try:
        from relay.spent.redis import RedisLedger, RedisServer
    except ImportError:
        raise ValueError("the store redis needs the package redis: install masque-relay[redis]") from None
    server = RedisServer(url, prefix, ca_file, replicas, timeout / 2)
    server.client().close()
    return queued(partial(RedisLedger, server))
