"""The SQLite file of spent tokens: made whole, opened only when it is what it should be, never made anew.

It is made complete under another name and then linked to its own, so that no process ever sees half of it, and only
once in a relay's life: an empty file where a full one was would let every token in again. A file that is gone stays
an outage until it is put back. A restart makes a new one.

The folder must be on a local disk: SQLite's locks are not safe on network file systems.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sqlite3
from enum import StrEnum
from pathlib import Path

from relay.spent.ledger import LedgerError
from relay.spent.store import AwayReason

__all__ = ["Database", "Synchronous"]

_APPLICATION = 0x73706E74
"`spnt`: marks the file as ours (PRAGMA application_id)."
_VERSION = 1
_SCHEMA = (
    "PRAGMA journal_mode = WAL",
    "BEGIN",
    "CREATE TABLE spent (id BLOB PRIMARY KEY, uses INTEGER NOT NULL, keep_until REAL NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {_VERSION}",
    "COMMIT",
)
_COMPANIONS = ("", "-wal", "-shm")

Identity = tuple[tuple[int, int], ...]
"Device and inode of the file, its log and its index."


class Synchronous(StrEnum):
    """What a commit waits for."""

    FULL = "full"
    "The disk, each time: a power failure loses nothing that was answered."
    NORMAL = "normal"
    "Nothing: a failure of power or kernel lets the last moments' tokens in again. A crash of the relay does not."


class Database:
    """The file of one store, with what is remembered about it between two connections."""

    def __init__(self, path: Path, synchronous: Synchronous, busy: float) -> None:
        """Remember what to open.

        Args:
            path: the file; its folder must exist.
            synchronous: what a commit waits for.
            busy: seconds to wait for another process that writes.
        """
        self._path = path.absolute()
        self._synchronous = synchronous
        self._busy = busy
        self._seen = False

    def connect(self) -> tuple[sqlite3.Connection, Identity]:
        """Open the file for this thread; the first time, make it if there is none.

        Returns:
            The connection, and the identity that the files must keep.

        Raises:
            LedgerError: it cannot be used now.
        """
        try:
            if not self._seen and not self._path.exists():
                self._create()
            before = _inode(self._path)
            db = sqlite3.connect(f"{self._path.as_uri()}?mode=rw", uri=True, timeout=self._busy, isolation_level=None)
            try:
                self._check(db)
                identity = self.identity()
                if identity[0] != before:
                    raise LedgerError(AwayReason.MISSING)
            except BaseException:
                db.close()
                raise
        except (sqlite3.Error, OSError) as exc:
            raise self.explain(exc) from exc
        self._seen = True
        return db, identity

    def identity(self) -> Identity:
        """Return which files are at the paths now.

        Raises:
            OSError: one is missing.
        """
        return tuple(_inode(f"{self._path}{end}") for end in _COMPANIONS)

    def explain(self, exc: sqlite3.Error | OSError) -> LedgerError:
        """Name the reason behind an error; where SQLite is vague, look at the file."""
        if isinstance(exc, OSError):
            return LedgerError(_OS_REASONS.get(exc.errno or 0, AwayReason.FAILED), exc)
        code = getattr(exc, "sqlite_errorcode", 0)
        known = _SQLITE_REASONS.get(code & 0xFF)
        return LedgerError(self._look() if known is None else known, exc)

    def _check(self, db: sqlite3.Connection) -> None:
        """Refuse what is not our file; set what every connection sets."""
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if application != _APPLICATION:
            raise LedgerError(AwayReason.CORRUPT)
        if version != _VERSION:
            raise LedgerError(AwayReason.VERSION)
        db.execute("PRAGMA journal_mode = WAL").fetchone()
        db.execute(f"PRAGMA synchronous = {self._synchronous.value}")

    def _create(self) -> None:
        """Make the file, for the owner only; another process may be first."""
        unfinished = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
        try:
            os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            with contextlib.closing(sqlite3.connect(unfinished, isolation_level=None)) as db:
                for statement in _SCHEMA:
                    db.execute(statement)
            with contextlib.suppress(FileExistsError):
                os.link(unfinished, self._path)
        finally:
            for end in _COMPANIONS:
                Path(f"{unfinished}{end}").unlink(missing_ok=True)
        _sync_folder(self._path.parent)

    def _look(self) -> AwayReason:
        """Find the reason of an error that does not say it."""
        try:
            self.identity()
            return AwayReason.FAILED if os.statvfs(self._path.parent).f_bavail else AwayReason.DISK_FULL
        except OSError as exc:
            return _OS_REASONS.get(exc.errno or 0, AwayReason.FAILED)


def _inode(path: str | Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _sync_folder(folder: Path) -> None:
    """Make a new name durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_OS_REASONS = {
    errno.ENOENT: AwayReason.MISSING,
    errno.ENOTDIR: AwayReason.MISSING,
    errno.EROFS: AwayReason.READ_ONLY,
    errno.EACCES: AwayReason.READ_ONLY,
    errno.EPERM: AwayReason.READ_ONLY,
    errno.ENOSPC: AwayReason.DISK_FULL,
    errno.EDQUOT: AwayReason.DISK_FULL,
}
_SQLITE_REASONS = {
    sqlite3.SQLITE_BUSY: AwayReason.LOCKED,
    sqlite3.SQLITE_LOCKED: AwayReason.LOCKED,
    sqlite3.SQLITE_PROTOCOL: AwayReason.LOCKED,
    sqlite3.SQLITE_READONLY: AwayReason.READ_ONLY,
    sqlite3.SQLITE_PERM: AwayReason.READ_ONLY,
    sqlite3.SQLITE_FULL: AwayReason.DISK_FULL,
    sqlite3.SQLITE_CORRUPT: AwayReason.CORRUPT,
    sqlite3.SQLITE_NOTADB: AwayReason.CORRUPT,
}
