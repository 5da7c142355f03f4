"""A thread that takes all that waits as one batch, for work that must not hold up the packet loop.

The loop's side owns futures, counts and the log; the thread owns what the work is done with. They meet in two places
only: the inbox, and `call_soon_threadsafe`. While a batch is worked on the next one gathers, so that the more wait,
the less each one costs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from relay.spent.turns import take_turns

__all__ = ["BatchThread"]

T = TypeVar("T")


class BatchThread(Generic[T]):
    """The thread and its inbox. Belongs to the loop that starts it."""

    def __init__(
        self,
        name: str,
        batch: int,
        work: Callable[[list[T]], Callable[[], None]],
        finish: Callable[[], None] | None = None,
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            name: the thread's.
            batch: the most items at once.
            work: takes a batch, in the thread; returns what the loop shall call with its outcome. May not raise.
            finish: called at the end, in the thread.
        """
        self._name = name
        self._batch = batch
        self._work = work
        self._finish = finish
        self._inbox: SimpleQueue[T | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None

    def start(self) -> asyncio.AbstractEventLoop:
        """Start the thread, if it was not yet; returns the loop that it belongs to."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._ended = self._loop.create_future()
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        return self._loop

    def put(self, item: T) -> None:
        """Leave an item for the next batch."""
        self._inbox.put(item)

    async def close(self, seconds: float) -> None:
        """Have the thread end after what is in the inbox, and wait so long for it; one that hangs is left behind."""
        if self._ended is None:
            return
        if not self._ended.done():
            self._inbox.put(None)
        await asyncio.wait([self._ended], timeout=seconds)

    def _run(self) -> None:
        """All of the thread: batch after batch until the inbox or the loop has ended."""
        take_turns()
        try:
            ended = False
            while not ended:
                batch, ended = self._take()
                if not self._tell(self._work(batch)):
                    break
        finally:
            if self._finish is not None:
                self._finish()
            self._tell(self._end)

    def _take(self) -> tuple[list[T], bool]:
        """Wait for one item, then take all that are there, up to a batch; say whether the inbox has ended."""
        item = self._inbox.get()
        batch: list[T] = []
        while item is not None:
            batch.append(item)
            if len(batch) == self._batch:
                return batch, False
            try:
                item = self._inbox.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _tell(self, callback: Callable[[], None]) -> bool:
        """Have the loop call this; False when there is no loop any more."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return False
        return True

    def _end(self) -> None:
        assert self._ended is not None
        if not self._ended.done():
            self._ended.set_result(None)
