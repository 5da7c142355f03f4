"""One connection to an upstream that many questions share (RFC 7766 §6.2.1): who waits for what, and for how long.

A transport adds how queries leave and responses arrive. Whatever a peer sends costs at most this connection.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass

import dns.exception
import dns.message

from relay.resolver.query import Mismatch, Query
from relay.telemetry import get_logger

__all__ = ["Closed", "Connection", "Unseen"]

_log = get_logger()
_SILENCE = 1.0
"Seconds without a byte after which a question that was given up puts the connection under suspicion."
_MISMATCHES = 32
"Responses to nothing that was asked, beyond the good ones; more close the connection."


class Closed(ConnectionError):
    """The connection ended before the response came. It may not have seen the question."""


class Unseen(Closed):
    """The upstream has not looked at the question, and said so: it may be asked again, here or elsewhere."""


@dataclass(slots=True, eq=False)
class _Pending:
    """A question under way."""

    query: Query
    future: asyncio.Future[dns.message.Message]
    sent_at: float


class Connection(ABC):
    """Questions under way on one connection."""

    def __init__(self, idle: float) -> None:
        """Make an open connection without questions.

        Args:
            idle: seconds that it is kept without any.
        """
        self._loop = asyncio.get_running_loop()
        self._idle = idle
        self._pending: dict[int, _Pending] = {}
        self._mismatches = 0
        self._heard_at = self._loop.time()
        self.is_open = True
        "Whether it takes further questions."

    async def ask(self, query: Query) -> dns.message.Message:
        """Send a query, as soon as the upstream takes one more, and wait for its response.

        Raises:
            Unseen: the upstream did not look at it.
            Closed: the connection ended first.
            OSError: the upstream refuses, or breaks the transport's rules.
            dns.exception.DNSException: the response is malformed or too long.
        """
        await self._room()
        now = self._loop.time()
        future: asyncio.Future[dns.message.Message] = self._loop.create_future()
        key = self._send(query)
        self._pending[key] = _Pending(query, future, now)
        try:
            return await future
        finally:
            if self._pending.pop(key, None) is not None:
                self._given_up(key, now)

    async def run(self) -> None:
        """Receive until the connection ends; then nobody waits any more, and nothing is left open."""
        error: BaseException = Closed()
        try:
            await self._receive()
        except (OSError, EOFError, dns.exception.DNSException) as exc:
            if not isinstance(exc, ConnectionError | EOFError):
                error = exc
        except Exception as exc:  # noqa: BLE001 - what an upstream sent must not end the worker's other tasks
            _log.warning("upstream_connection_broke", exception_type=type(exc).__name__)
            error = OSError("the connection broke")
        finally:
            self.is_open = False
            self._close()
            for pending in tuple(self._pending.values()):
                if not pending.future.done():
                    pending.future.set_exception(error)
            self._pending.clear()

    @property
    def questions(self) -> int:
        """Questions under way."""
        return len(self._pending)

    async def _room(self) -> None:  # noqa: B027 - most transports always have some
        """Wait until the upstream takes one question more.

        Raises:
            Unseen: it never will.
        """

    @abstractmethod
    def _send(self, query: Query) -> int:
        """Send a query, and return the key that its response will be known by."""

    @abstractmethod
    async def _receive(self) -> None:
        """Hand over responses until the connection ends; raises what ended it."""

    @abstractmethod
    def _close(self) -> None:
        """Let go of the socket. Called once, and last."""

    def _cancel(self, key: int) -> None:  # noqa: B027 - most transports have nothing to say
        """Tell the upstream that nobody waits for this response, where there is a way."""

    def _heard(self) -> None:
        """Note that the upstream is alive."""
        self._heard_at = self._loop.time()

    def _settle(self, key: int, wire: bytes, ident: int, age: int = 0) -> None:
        """Give a response to who waits for it; one that nobody waits for is dropped.

        Raises:
            OSError: there were too many of those.
        """
        pending = self._pending.get(key)
        try:
            if pending is None:
                raise Mismatch
            message = pending.query.read(wire, ident)
        except Mismatch:
            self._mismatches += 1
            if self._mismatches > _MISMATCHES:
                raise OSError("too many responses to nothing that was asked") from None
            return
        except dns.exception.DNSException as exc:
            self._fail(key, exc)
            return
        for rrset in (*message.answer, *message.authority):
            rrset.ttl = max(0, rrset.ttl - age)
        self._mismatches = max(0, self._mismatches - 1)
        del self._pending[key]
        if not pending.future.done():
            pending.future.set_result(message)

    def _fail(self, key: int, error: Exception) -> None:
        """Tell who waits that there will be no response."""
        pending = self._pending.pop(key, None)
        if pending is not None and not pending.future.done():
            pending.future.set_exception(error)

    def _given_up(self, key: int, sent_at: float) -> None:
        """Somebody waits no longer. When nothing was heard all the while, further questions go elsewhere."""
        self._cancel(key)
        if self._loop.time() - max(self._heard_at, sent_at) >= _SILENCE:
            self.is_open = False
