"""One epoll of every data-path socket, inside the asyncio loop, and the turn that batches are made of.

asyncio spends about a microsecond on each ready descriptor before our code runs; with sixty tunnels that is a
quarter of what a relayed datagram may cost. So data-path sockets sit in an epoll of our own, whose descriptor is
the only one that asyncio watches. One wake-up is one *turn*: read what is ready, round after round, until nothing
is ready or the bound is reached; then run what was deferred; then flush what was written. Nothing is held back to
make a batch larger: a batch is what one turn found.

Runs under any asyncio loop. Not thread-safe: one poller belongs to one loop.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Final

__all__ = ["READABLE", "WRITABLE", "Poller"]

READABLE: Final = select.EPOLLIN
WRITABLE: Final = select.EPOLLOUT

_ROUNDS: Final = 32
"How often one turn asks epoll again: the bound on how long arriving data can delay the flush."
_BATCH: Final = 512
"Ready descriptors taken from one call of epoll."

Ready = Callable[[int], None]


class Poller:
    """Readiness callbacks in turns.

    `now` is the loop's time at the start of the turn, in seconds: one clock read serves all that a turn does.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._ready: dict[int, Ready] = {}
        self._deferred: list[Callable[[], None]] = []
        self._flushes: list[Callable[[], None]] = []
        self._is_in_turn = False
        self._is_scheduled = False
        self.now = loop.time()
        loop.add_reader(self._epoll.fileno(), self._turn)

    def add(self, fd: int, ready: Ready, events: int = READABLE) -> None:
        """Call `ready(events)` whenever `fd` is ready. Error and hang-up are always reported."""
        self._ready[fd] = ready
        self._epoll.register(fd, events)

    def modify(self, fd: int, events: int) -> None:
        """Change what `fd` waits for. To wait for nothing, `remove` it: a hang-up would be reported for ever."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Forget `fd`; call before closing it. Unknown descriptors are ignored."""
        if self._ready.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def refresh(self) -> float:
        """Read the clock outside a turn, for a timer's callback; returns the new `now`."""
        self.now = self._loop.time()
        return self.now

    def defer(self, callback: Callable[[], None]) -> None:
        """Run `callback` once in this turn, after reading (or soon, when no turn is under way)."""
        self._deferred.append(callback)
        if not self._is_in_turn:
            self._schedule()

    def defer_flush(self, callback: Callable[[], None]) -> None:
        """Run `callback` at the end of this turn, when nothing deferred is left."""
        self._flushes.append(callback)
        if not self._is_in_turn:
            self._schedule()

    def drain(self) -> None:
        """Run at once what is deferred: before closing, so that last words go out."""
        self._finish()

    def close(self) -> None:
        """Stop watching; what was deferred is dropped."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._ready.clear()
        self._deferred.clear()
        self._flushes.clear()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._finish_scheduled)

    def _finish_scheduled(self) -> None:
        self._is_scheduled = False
        if not self._epoll.closed:
            self.now = self._loop.time()
            self._finish()

    def _turn(self) -> None:
        self.now = self._loop.time()
        self._is_in_turn = True
        poll = self._epoll.poll
        ready = self._ready
        for _ in range(_ROUNDS):
            found = poll(0, _BATCH)
            if not found:
                break
            for fd, events in found:
                callback = ready.get(fd)
                if callback is not None:
                    try:
                        callback(events)
                    except Exception as exc:  # noqa: BLE001 - one socket's fault must not stop the others
                        self._report(exc)
            if self._epoll.closed:
                break
        self._finish()

    def _finish(self) -> None:
        """Run all that was deferred, then all flushes, until both are empty."""
        self._is_in_turn = True
        try:
            while self._deferred or self._flushes:
                if self._deferred:
                    pending, self._deferred = self._deferred, []
                else:
                    pending, self._flushes = self._flushes, []
                for callback in pending:
                    try:
                        callback()
                    except Exception as exc:  # noqa: BLE001 - as above
                        self._report(exc)
        finally:
            self._is_in_turn = False

    def _report(self, exc: Exception) -> None:
        self._loop.call_exception_handler({"message": "error in a socket callback", "exception": exc})
