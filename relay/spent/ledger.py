"""A record of uses that blocks: what differs between a file and a server, below one queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from relay.spent.store import AwayReason

__all__ = ["Ledger", "LedgerError", "Spend"]


@dataclass(frozen=True, slots=True, eq=False)
class Spend:
    """One caller who waits for one use."""

    token_id: bytes = field(repr=False)
    "Whose use."
    limit: int
    "How many uses there may be, this one included. 0 is a question only: it changes nothing."
    keep_until: float
    "When the entry may be forgotten, in seconds of the store's wall clock."
    answer: asyncio.Future[int]
    "Which use it was, counted from 1; 0 when there was none left."


class LedgerError(Exception):
    """A ledger cannot record. Whether it has recorded is open; its text is the reason's name only."""

    def __init__(self, reason: AwayReason, exception: BaseException | None = None) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.exception_type = None if exception is None else type(exception).__name__


class Ledger(Protocol):
    """An open record. It is made, used and closed in one thread, and thrown away after its first error."""

    def record(self, spends: Sequence[Spend], now: float) -> list[int]:
        """Record uses, in this order, all in one transaction; it is durable when this returns.

        Args:
            spends: at most a batch, and not empty; a token may come more than once.
            now: the wall clock's time, to tell which entries may be forgotten.

        Returns:
            For each spend which use it was, counted from 1; 0 when there was none left.

        Raises:
            LedgerError: it failed, and it is open how much was recorded.
        """
        ...

    def close(self) -> None:
        """Let go of everything. Does not raise."""
        ...
