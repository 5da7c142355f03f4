"""A store whose record blocks: callers wait on the loop, a thread of its own records all who wait as one transaction.

Rules of this file:

- The loop's side owns futures, counts and the log. The thread owns the ledger (`relay/spent/batch_thread.py`).
- What the inbox holds is counted until the thread has given it back, also when its caller has gone: a caller that
  is cancelled cannot make room for another one while the disk hangs.
- A caller that gives up before its batch is taken is left out of it. After that its use may count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from relay.spent.availability import Availability
from relay.spent.batch_thread import BatchThread
from relay.spent.known import KnownTokens
from relay.spent.ledger import Ledger, LedgerError, Spend
from relay.spent.store import GRACE, TOKEN_ID_SIZE, AwayReason, StoreAway, check_spend

__all__ = ["QueuedStore"]

_BATCH = 256
"The most spends in one transaction: a bound on how long it holds a lock."
_REMEMBERED = 32_768
"The tokens that a process remembers itself: some 6 MiB."


class QueuedStore:
    """A `SpentStore` over a `Ledger` in a thread."""

    def __init__(
        self,
        kind: str,
        open_ledger: Callable[[], Ledger],
        clock: Callable[[], float],
        *,
        timeout: float,
        waiting: int,
        retry: float,
    ) -> None:
        """Prepare; the thread starts with the first caller.

        Args:
            kind: the store's kind, for the log.
            open_ledger: opens the record, in the thread; may raise LedgerError. Called again after each error.
            clock: the wall clock.
            timeout: seconds after which a caller gets StoreAway, whatever the ledger does.
            waiting: the most spends that may wait.
            retry: seconds between two attempts while the store is away.
        """
        self._kind = kind
        self._open_ledger = open_ledger
        self._clock = clock
        self._timeout = timeout
        self._most = waiting
        self._waiting = 0
        self._known = KnownTokens(_REMEMBERED)
        self._availability = Availability(kind, retry)
        self._thread: BatchThread[Spend] = BatchThread(f"spent-{kind}", _BATCH, self._work, self._drop_ledger)
        self._ledger: Ledger | None = None
        self._closed = False

    async def probe(self) -> None:
        """Ask whether a spend could be recorded now; see `SpentStore`."""
        loop = self._start()
        await self._ask(Spend(bytes(TOKEN_ID_SIZE), 0, 0.0, loop.create_future()))

    async def is_spent(self, token_id: bytes, limit: int) -> bool:
        """Say whether this process knows the token to be used up; see `SpentStore`.

        It asks nobody: a good token would pay for the question twice, and each further replay of a bad one in this
        process is refused here.
        """
        check_spend(token_id, limit)
        if self._known.uses(token_id) >= limit:
            return True
        if self._closed:
            raise StoreAway(AwayReason.CLOSED)
        self._availability.peek(asyncio.get_running_loop().time())
        return False

    async def spend(self, token_id: bytes, limit: int, expires: float) -> bool:
        """Record one more use; see `SpentStore`."""
        check_spend(token_id, limit, expires)
        if self._known.uses(token_id) >= limit or expires <= self._clock():
            return False
        loop = self._start()
        use = await self._ask(Spend(token_id, limit, expires + GRACE, loop.create_future()))
        return use > 0

    async def close(self) -> None:
        """Let the thread answer who waits and end; see `SpentStore`. A ledger that hangs is left behind."""
        self._closed = True
        await self._thread.close(self._timeout)

    def _start(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise StoreAway(AwayReason.CLOSED)
        return self._thread.start()

    async def _ask(self, spend: Spend) -> int:
        """Queue a spend and wait for its answer, within the bounds of number and time."""
        loop = spend.answer.get_loop()
        now = loop.time()
        self._availability.peek(now)
        if self._waiting >= self._most:
            raise self._availability.overloaded(AwayReason.BUSY, now)
        self._availability.enter(now)
        self._waiting += 1
        self._thread.put(spend)
        try:
            async with asyncio.timeout(self._timeout):
                return await spend.answer
        except TimeoutError:
            raise self._availability.failed(AwayReason.TIMEOUT, loop.time()) from None

    def _settle(self, batch: Sequence[Spend], outcome: dict[Spend, int] | LedgerError) -> None:
        """Give the thread's outcome to those who still wait. Runs on the loop."""
        self._waiting -= len(batch)
        now = asyncio.get_running_loop().time()
        if isinstance(outcome, LedgerError):
            refused = [spend for spend in batch if not spend.answer.done()]
            self._availability.failed(outcome.reason, now, outcome.exception_type, len(refused))
            for spend in refused:
                spend.answer.set_exception(StoreAway(outcome.reason))
            return
        if outcome:
            self._availability.succeeded(now)
        for spend, use in outcome.items():
            if spend.limit:
                self._known.note(spend.token_id, use or spend.limit)
            if not spend.answer.done():
                spend.answer.set_result(use)

    def _work(self, batch: list[Spend]) -> Callable[[], None]:
        """Record a batch. Runs in the thread."""
        wanted = [spend for spend in batch if not spend.answer.done()]
        outcome: dict[Spend, int] | LedgerError
        try:
            if self._ledger is None and wanted:
                self._ledger = self._open_ledger()
            uses = self._ledger.record(wanted, self._clock()) if self._ledger is not None and wanted else []
            outcome = dict(zip(wanted, uses, strict=True))
        except LedgerError as exc:
            outcome = exc
        except Exception as exc:  # noqa: BLE001 - a fault costs this batch, never the thread that all wait for
            outcome = LedgerError(AwayReason.FAILED, exc)
        if isinstance(outcome, LedgerError):
            self._drop_ledger()
        return partial(self._settle, batch, outcome)

    def _drop_ledger(self) -> None:
        """Close the ledger, if it is open. Runs in the thread."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
