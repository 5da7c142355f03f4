"""Checks of authenticators, off the packet loop: a thread takes all that wait as one batch.

A check of type 2 takes 20 microseconds, nearly all of them without the interpreter's lock: the thread does it itself.
One of type 1 holds the lock for more than half a millisecond: for these the thread asks another process
(`relay/auth/private_token/evaluation.py`) and waits for it. Either way the loop only queues and is told, once for
each batch. While a batch is checked the next one gathers, so that the more wait, the less each one costs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from relay.auth.private_token.key_file import OriginKey
from relay.spent import take_turns

__all__ = ["Check", "CheckQueue", "ChecksBusy", "ChecksFailed", "verify_all"]

_PATIENCE = 6.0
"Seconds for the end: more than any batch may take."


class ChecksBusy(Exception):
    """As many tokens wait as may."""


class ChecksFailed(Exception):
    """The checks could not be made, or the queue is closed. Nothing is known of the token."""


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """One token whose authenticator is to be checked."""

    key: OriginKey
    "The key that it names."
    token_input: bytes = field(repr=False)
    "`Token.input`."
    authenticator: bytes = field(repr=False)
    "`Token.authenticator`."
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
        self._name = name
        self._verify = verify
        self._finish = finish
        self._most = waiting
        self._batch = batch
        self._waiting = 0
        self._inbox: SimpleQueue[Check | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None
        self._closed = False

    async def verify(self, key: OriginKey, token_input: bytes, authenticator: bytes) -> bool:
        """Check an authenticator.

        Returns:
            True when the key made it.

        Raises:
            ChecksBusy: too many wait already.
            ChecksFailed: it could not be checked.
        """
        if self._closed:
            raise ChecksFailed
        if self._waiting >= self._most:
            raise ChecksBusy
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._ended = self._loop.create_future()
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        check = Check(key, token_input, authenticator, self._loop.create_future())
        self._waiting += 1
        self._inbox.put(check)
        return await check.answer

    async def close(self) -> None:
        """Answer who waits, then end. A check that hangs is left behind."""
        if not self._closed:
            self._closed = True
            self._inbox.put(None)
        if self._ended is not None:
            await asyncio.wait([self._ended], timeout=_PATIENCE)

    def _work(self) -> None:
        """All of the thread."""
        take_turns()
        try:
            self._serve()
        finally:
            if self._finish is not None:
                self._finish()
            self._call(self._end)

    def _serve(self) -> None:
        """Make the checks of batch after batch until the inbox or the loop has ended. Runs in the thread."""
        ended = False
        while not ended:
            batch, ended = self._take()
            wanted = [check for check in batch if not check.answer.done()]
            try:
                answers: list[bool] | None = self._verify(wanted) if wanted else []
            except Exception:  # noqa: BLE001 - a fault costs this batch, never the thread that all wait for
                answers = None
            if not self._call(self._settle, len(batch), wanted, answers):
                return

    def _take(self) -> tuple[list[Check], bool]:
        """Wait for one check, then take all that are there, up to a batch; say whether the inbox has ended."""
        item = self._inbox.get()
        batch: list[Check] = []
        while item is not None:
            batch.append(item)
            if len(batch) == self._batch:
                return batch, False
            try:
                item = self._inbox.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _call(self, callback: Callable[..., None], *args: object) -> bool:
        """Have the loop call this; False when there is no loop any more."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            return False
        return True

    def _end(self) -> None:
        assert self._ended is not None
        if not self._ended.done():
            self._ended.set_result(None)

    def _settle(self, taken: int, wanted: list[Check], answers: list[bool] | None) -> None:
        """Answer those who still wait. Runs on the loop."""
        self._waiting -= taken
        for index, check in enumerate(wanted):
            if check.answer.done():
                continue
            if answers is None:
                check.answer.set_exception(ChecksFailed())
            else:
                check.answer.set_result(answers[index])
