"""Checks of authenticators, off the packet loop: a thread takes all that wait as one batch.

A check of type 2 takes 20 microseconds, nearly all of them without the interpreter's lock: the thread does it itself.
One of type 1 holds the lock for more than half a millisecond: for these the thread asks another process
(`relay/auth/private_token/evaluation.py`) and waits for it. Either way the loop only queues and is told, once for
each batch.

What waits is bounded for all, and for each connection: of one with a thousand streams, and a token on each, a few
are in the queue and some more in a line of its own; the rest is refused. A check keeps its place until its batch is
done, also when the exchange that asked for it is aborted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from relay.auth.private_token.key_file import OriginKey
from relay.spent import BatchThread

__all__ = ["MAX_LINE", "MAX_SHARE", "Check", "CheckQueue", "CheckShare", "ChecksBusy", "ChecksFailed", "verify_all"]

MAX_SHARE = 16
"Checks of one connection in the queues, of both types together."
MAX_LINE = 128
"Tokens of one connection that wait to get there: more than come at once where `limits.streams` is as it was."

_PATIENCE = 6.0
"Seconds for the end: more than any batch may take."


class ChecksBusy(Exception):
    """As many tokens wait as may, of all connections or of this one."""


class ChecksFailed(Exception):
    """The checks could not be made, or the queue is closed. Nothing is known of the token."""


class CheckShare:
    """One connection's checks, kept in its context."""

    def __init__(self) -> None:
        """None waits yet."""
        self._places = asyncio.Semaphore(MAX_SHARE)
        self._line = 0

    async def enter(self) -> None:
        """Wait for a place in the queues.

        Raises:
            ChecksBusy: as many of this connection wait already as may.
        """
        if self._line >= MAX_LINE:
            raise ChecksBusy
        self._line += 1
        try:
            await self._places.acquire()
        finally:
            self._line -= 1

    def leave(self) -> None:
        """Give a place back."""
        self._places.release()


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """One token whose authenticator is to be checked."""

    key: OriginKey
    "The key that it names."
    token_input: bytes = field(repr=False)
    "`Token.input`."
    authenticator: bytes = field(repr=False)
    "`Token.authenticator`."
    share: CheckShare = field(repr=False)
    "Of the connection that asks; for the loop's thread only."
    answer: asyncio.Future[bool] = field(repr=False)
    "True when the key made it."


def verify_all(checks: Sequence[Check]) -> list[bool]:
    """Check each, in the calling thread."""
    return [check.key.verify(check.token_input, check.authenticator) for check in checks]


class CheckQueue:
    """Those who wait for a check, and the thread that makes it. Belongs to the loop that first uses it."""

    def __init__(
        self,
        name: str,
        verify: Callable[[Sequence[Check]], list[bool]],
        finish: Callable[[], None] | None = None,
        *,
        waiting: int,
        batch: int,
    ) -> None:
        """Prepare; the thread starts with the first check.

        Args:
            name: the thread's.
            verify: makes the checks of a batch, in the thread; when it raises, all of the batch failed.
            finish: called at the end, in the thread, if that has ever started.
            waiting: the most checks that wait.
            batch: the most checks at once: a bound on how long the first of them waits for the last.
        """
        self._verify = verify
        self._most = waiting
        self._waiting = 0
        self._thread: BatchThread[Check] = BatchThread(name, batch, self._work, finish)
        self._closed = False

    async def verify(self, key: OriginKey, token_input: bytes, authenticator: bytes, share: CheckShare) -> bool:
        """Check an authenticator.

        Args:
            key: the key that the token names.
            token_input: `Token.input`.
            authenticator: `Token.authenticator`.
            share: of the connection that it came on.

        Returns:
            True when the key made it.

        Raises:
            ChecksBusy: too many wait already, of all connections or of this one.
            ChecksFailed: it could not be checked.
        """
        await share.enter()
        if self._closed or self._waiting >= self._most:
            share.leave()
            raise ChecksFailed if self._closed else ChecksBusy
        check = Check(key, token_input, authenticator, share, self._thread.start().create_future())
        self._waiting += 1
        self._thread.put(check)
        return await check.answer

    async def close(self) -> None:
        """Answer who waits, then end. A check that hangs is left behind."""
        self._closed = True
        await self._thread.close(_PATIENCE)

    def _work(self, batch: list[Check]) -> Callable[[], None]:
        """Make the checks of a batch. Runs in the thread."""
        wanted = [check for check in batch if not check.answer.done()]
        try:
            answers: list[bool] | None = self._verify(wanted) if wanted else []
        except Exception:  # noqa: BLE001 - a fault costs this batch, never the thread that all wait for
            answers = None
        return partial(self._settle, batch, wanted, answers)

    def _settle(self, batch: list[Check], wanted: list[Check], answers: list[bool] | None) -> None:
        """Answer those who still wait. Runs on the loop."""
        self._waiting -= len(batch)
        for check in batch:
            check.share.leave()
        for index, check in enumerate(wanted):
            if check.answer.done():
                continue
            if answers is None:
                check.answer.set_exception(ChecksFailed())
            else:
                check.answer.set_result(answers[index])
