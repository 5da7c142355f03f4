"""Which tokens were spent, so that none is admitted more often than allowed.

One interface, `SpentStore`, and three stores behind it:

- `memory`: one process, and gone with it. For trying out, and for one worker whose keys die with it.
- `sqlite`: one file for all workers of a host. Survives crashes. The default.
- `redis`: one server for a fleet; `relay/spent/redis.py` says what its replication means for exactness.

`sqlite` and `redis` share `QueuedStore`: a thread of their own takes all spends that wait as one transaction, so
that neither a disk nor a network ever holds up the packet loop. All of them fail closed: who cannot be counted is
not admitted. `relay/spent/redis.py` is imported only when it is asked for, since its package is optional.
"""

from __future__ import annotations

from relay.spent.availability import Availability
from relay.spent.batch_thread import BatchThread
from relay.spent.database import Database, Synchronous
from relay.spent.factory import StoreKind, open_store
from relay.spent.known import KnownTokens
from relay.spent.ledger import Ledger, LedgerError, Spend
from relay.spent.memory import MemoryStore
from relay.spent.queued import QueuedStore
from relay.spent.sqlite import SqliteLedger
from relay.spent.store import (
    GRACE,
    MAX_LIMIT,
    TOKEN_ID_SIZE,
    AwayReason,
    SpentStore,
    StoreAway,
    StoreFull,
    check_spend,
)
from relay.spent.turns import take_turns

__all__ = [
    "GRACE",
    "MAX_LIMIT",
    "TOKEN_ID_SIZE",
    "Availability",
    "AwayReason",
    "BatchThread",
    "Database",
    "KnownTokens",
    "Ledger",
    "LedgerError",
    "MemoryStore",
    "QueuedStore",
    "Spend",
    "SpentStore",
    "SqliteLedger",
    "StoreAway",
    "StoreFull",
    "StoreKind",
    "Synchronous",
    "check_spend",
    "open_store",
    "take_turns",
]
