"""A ledger in an SQLite file: shared by the workers of a host, and safe against crashes of any of them.

What it rests on:

- A batch is one transaction that takes the write lock before it reads (`BEGIN IMMEDIATE`), so processes take turns.
- In WAL mode a killed process leaves a log whose unfinished end the next one ignores. A use is answered only after
  its commit: killed before, it never was; killed after, it counts and nobody was admitted by it.
- A file that was deleted or replaced under an open connection still takes writes that nobody will see again. So the
  files' identities are compared after each commit, before anything is answered.

Entries whose time is over are deleted in small bites. A cursor walks over four times as many entries as were asked
for. That needs no index on the time, which would double what is written, and it keeps up with whatever is added.

A batch is few statements with many values, not many statements: each one lets go of the interpreter's lock and has to
get it back from a busy packet loop (`relay/spent/turns.py`).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence

from relay.spent.database import Database
from relay.spent.ledger import LedgerError, Spend
from relay.spent.store import AwayReason

__all__ = ["SqliteLedger"]

_SWEEP = 4
"Entries looked at for each spend."
_BITE = 256
"Entries that are due before a bite is taken."


class SqliteLedger:
    """An open file of spent tokens."""

    def __init__(self, database: Database) -> None:
        """Open the file.

        Raises:
            LedgerError: it cannot be used now.
        """
        self._database = database
        self._db, self._identity = database.connect()
        self._walked = b""
        self._due = 0

    def record(self, spends: Sequence[Spend], now: float) -> list[int]:
        """Record uses in one transaction; see `Ledger`."""
        try:
            uses = self._transact(spends, now)
            if self._database.identity() != self._identity:
                raise LedgerError(AwayReason.MISSING)
        except (sqlite3.Error, OSError) as exc:
            raise self._database.explain(exc) from exc
        return uses

    def close(self) -> None:
        """Close the file; what was not committed is undone; see `Ledger`."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def _transact(self, spends: Sequence[Spend], now: float) -> list[int]:
        self._db.execute("BEGIN IMMEDIATE")
        ids = list({spend.token_id for spend in spends})
        marks = ",".join("?" * len(ids))
        rows = self._db.execute(f"SELECT id, uses, keep_until FROM spent WHERE id IN ({marks})", ids)
        entries = {token_id: (uses, end) for token_id, uses, end in rows}
        changed: dict[bytes, tuple[int, float]] = {}
        answers = []
        for spend in spends:
            uses, end = entries.get(spend.token_id, (0, 0.0))
            use = uses + 1 if uses < spend.limit else 0
            if use:
                entry = (use, max(end, spend.keep_until))
                entries[spend.token_id] = changed[spend.token_id] = entry
            answers.append(use)
        if changed:
            marks = ",".join(["(?, ?, ?)"] * len(changed))
            values = [value for token_id, (uses, end) in changed.items() for value in (token_id, uses, end)]
            self._db.execute(f"REPLACE INTO spent (id, uses, keep_until) VALUES {marks}", values)
        self._due += _SWEEP * len(spends)
        if self._due >= _BITE:
            self._sweep(self._due, now)
            self._due = 0
        self._db.execute("COMMIT")
        return answers

    def _sweep(self, bite: int, now: float) -> None:
        """Walk over the next few entries and delete those whose time is over; at the end, begin again."""
        step = "SELECT max(id) FROM (SELECT id FROM spent WHERE id > ? ORDER BY id LIMIT ?)"
        (last,) = self._db.execute(step, (self._walked, bite)).fetchone()
        if last is not None:
            gone = "DELETE FROM spent WHERE id > ? AND id <= ? AND keep_until <= ?"
            self._db.execute(gone, (self._walked, last, now))
        self._walked = b"" if last is None else last
