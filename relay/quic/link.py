"""One QUIC connection on its endpoint: feeds the engine, hands events up, flushes once a turn, keeps its timer.

Three steps a turn, in the poller's order: `receive` (any number of times) only feeds the engine; `_process` hands
up what came of it; `flush` sends all that was written. A link is *dirty* from the first write until its flush.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter
from typing import Protocol

from relay.poller import Poller
from relay.quic.engine import (
    ALL_STREAMS,
    Address,
    Burst,
    Engine,
    Established,
    Event,
    IdIssued,
    IdRetired,
    StopSending,
    StreamData,
    StreamReset,
    Terminated,
)
from relay.telemetry import DropReason, LimitName, Metric, Metrics, get_logger

__all__ = ["Link", "LinkHandler", "LinkOwner"]

_log = get_logger()

_TURN_TIME = 0.005
"Seconds after which a link lets the others go on."
_SLICE_TIME = 0.002
"Seconds a slice of stream data should take at most."
_SMALLEST_SLICE = 4 << 10
_FIRST_SLICE = 16 << 10
_LARGEST_SLICE = 256 << 10
_TIMER_SLACK = 0.001
"Seconds by which a timer may be late; the loop's own resolution."


class LinkHandler(Protocol):
    """What sits on a link and gets its events. Methods may write to the link; none may raise."""

    def established(self, alpn: str | None) -> None:
        """The handshake is complete."""

    def stream_data(self, stream_id: int, data: bytes, fin: bool) -> None:
        """In-order bytes of a stream."""

    def stream_reset(self, stream_id: int, code: int) -> None:
        """The peer abandoned its sending side."""

    def stop_sending(self, stream_id: int, code: int) -> None:
        """The peer wants no more of ours."""

    def datagrams(self, payloads: list[bytes]) -> None:
        """DATAGRAM payloads of one turn."""

    def flushed(self) -> None:
        """What could be sent was sent: backlogs may have fallen."""

    def terminated(self, code: int) -> None:
        """The connection is over. Called exactly once; nothing follows."""


class LinkOwner(Protocol):
    """The endpoint a link lives on."""

    def send(self, bursts: list[Burst], link: Link) -> None:
        """Send UDP payloads; a full socket keeps them."""

    @property
    def is_blocked(self) -> bool:
        """True while the socket takes no more."""

    def wait_writable(self, link: Link) -> None:
        """Flush `link` when the socket takes more."""

    def id_issued(self, link: Link, connection_id: bytes) -> None:
        """Route this id to `link`."""

    def id_retired(self, link: Link, connection_id: bytes) -> None:
        """Route this id no more."""

    def link_established(self, link: Link) -> None:
        """The handshake of `link` is complete."""

    def link_over(self, link: Link) -> None:
        """Forget `link`."""


class Link:
    """A QUIC connection as sessions use it."""

    def __init__(
        self, engine: Engine, owner: LinkOwner, poller: Poller, loop: asyncio.AbstractEventLoop, metrics: Metrics
    ) -> None:
        """Put `engine` on `owner`. Set `handler` before the first `receive`."""
        self.engine = engine
        self.handler: LinkHandler | None = None
        self.is_established = False
        self.is_terminated = False
        self._owner = owner
        self._poller = poller
        self._loop = loop
        self._metrics = metrics
        self._has_input = False
        self._is_dirty = False
        self._is_over = False
        self._is_paused = False
        self._pending: deque[Event] = deque()
        self._slice = _FIRST_SLICE
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._counted_drops = 0

    # What the endpoint calls.

    def receive(self, data: bytes, segment: int, address: Address) -> None:
        """Feed UDP payloads, back to back and of `segment` bytes each; they are processed later in this turn."""
        if self._is_over:
            return
        try:
            self.engine.receive(data, segment, address, self._poller.now)
        except Exception as exc:  # noqa: BLE001 - a library's fault on hostile input costs this connection only
            self._fail(exc)
        if not self._has_input:
            self._has_input = True
            self._poller.defer(self._process)

    def flush(self) -> None:
        """Send what was written since the last flush, and set the timer."""
        self._is_dirty = False
        if self._is_over:
            return
        if self._owner.is_blocked:
            self._owner.wait_writable(self)
            return
        try:
            bursts = self.engine.transmit(self._poller.now)
        except Exception as exc:  # noqa: BLE001 - as above
            self._fail(exc)
            return
        if bursts:
            self._owner.send(bursts, self)
            if self.engine.has_sent_events and not self._has_input:
                self._has_input = True
                self._poller.defer(self._process)
        if self.engine.is_over:
            self._end()
            return
        self._arm()
        if self.handler is not None and not self.is_terminated:
            self.handler.flushed()

    # What sessions call.

    @property
    def max_datagram_payload(self) -> int:
        """Largest DATAGRAM payload that can be sent now, in bytes; 0 when the peer takes none."""
        return self.engine.max_datagram_payload

    @property
    def peer_certificate(self) -> bytes | None:
        """SHA-256 of the certificate that the client proved to own; None when there is none."""
        return self.engine.peer_certificate

    def send_stream(self, stream_id: int, data: bytes | memoryview, fin: bool = False) -> None:
        """Queue bytes on a stream; they are copied."""
        self.engine.send_stream(stream_id, data, fin)
        self.touch()

    def backlog(self, stream_id: int) -> int:
        """Bytes of a stream that wait to be sent for the first time."""
        return self.engine.backlog(stream_id)

    @property
    def holds_connection(self) -> bool:
        """True when `hold` stops the other streams too."""
        return self.engine.holds_connection

    def send_datagrams(self, prefix: bytes, data: bytes, segment: int) -> int:
        """Queue DATAGRAM frames, `prefix` before each piece of `segment` bytes; how many fitted."""
        if not self._is_dirty:
            self.touch()
        return self.engine.send_datagrams(prefix, data, segment)

    def hold(self, stream_id: int) -> None:
        """Give the peer no more credit for this stream until `release`."""
        self.engine.hold(stream_id)

    def release(self, stream_id: int) -> None:
        """Undo `hold`; events that waited are handed up in this turn."""
        self.engine.release(stream_id)
        if not self._has_input:
            self._has_input = True
            self._poller.defer(self._process)

    def reset_stream(self, stream_id: int, code: int) -> None:
        """Abandon our sending side."""
        self.engine.reset_stream(stream_id, code)
        self.touch()

    def stop_sending(self, stream_id: int, code: int) -> None:
        """Ask the peer to stop sending."""
        self.engine.stop_sending(stream_id, code)
        self.touch()

    def close(self, code: int, reason: str = "") -> None:
        """Close the connection with an application error code."""
        self.engine.close(code, reason)
        if not self._has_input:
            self._has_input = True
            self._poller.defer(self._process)
        self.touch()

    def abandon(self) -> None:
        """Forget the connection without a word to the peer: it never completed its handshake."""
        self._end()

    def touch(self) -> None:
        """Flush at the end of this turn."""
        if not self._is_dirty:
            self._is_dirty = True
            self._poller.defer_flush(self.flush)

    # Inside.

    def _process(self) -> None:
        """Hand up what came. What takes long is cut in slices and goes on later, so that no client stops the others:
        a window full of the smallest pieces there are costs hundreds of times what bulk data of its size does."""
        self._has_input = False
        if self._is_over or self.handler is None:
            return
        self._pending.extend(self.engine.take_events())
        give_up_at = perf_counter() + _TURN_TIME
        while self._pending and not self.is_terminated:
            self._hand_up(self.handler, self._pending.popleft())
            if perf_counter() > give_up_at and self._pending:
                self._go_on_later()
                break
        else:
            self._pending.clear()
            if self._is_paused:
                self._is_paused = False
                self.release(ALL_STREAMS)
        datagrams = self.engine.take_datagrams()
        if datagrams and not self.is_terminated:
            self.handler.datagrams(datagrams)
        self.touch()

    def _hand_up(self, handler: LinkHandler, event: Event) -> None:
        match event:
            case StreamData():
                self._hand_up_data(handler, event)
            case StreamReset():
                handler.stream_reset(event.stream_id, event.code)
            case StopSending():
                handler.stop_sending(event.stream_id, event.code)
            case Established():
                self.is_established = True
                self._owner.link_established(self)
                handler.established(event.alpn)
            case IdIssued():
                self._owner.id_issued(self, event.connection_id)
            case IdRetired():
                self._owner.id_retired(self, event.connection_id)
            case Terminated():
                self.is_terminated = True
                handler.terminated(event.code)

    def _hand_up_data(self, handler: LinkHandler, event: StreamData) -> None:
        """Hand up one slice of a stream's data. Slices grow while they are cheap, and shrink when they are not."""
        stream_id, data, fin = event
        size = len(data)
        if size <= _SMALLEST_SLICE:
            handler.stream_data(stream_id, bytes(data), fin)
            return
        if size > self._slice:
            self._pending.appendleft(StreamData(stream_id, memoryview(data)[self._slice :], fin))
            data, fin = data[: self._slice], False
        started = perf_counter()
        handler.stream_data(stream_id, bytes(data), fin)
        taken = perf_counter() - started
        if taken > _SLICE_TIME:
            self._slice = max(_SMALLEST_SLICE, self._slice // 4)
        elif taken < _SLICE_TIME / 4 and size >= self._slice:
            self._slice = min(_LARGEST_SLICE, self._slice * 2)

    def _go_on_later(self) -> None:
        """Let the loop serve the others first; meanwhile the peer gets no credit for more."""
        if not self._is_paused:
            self._is_paused = True
            self.engine.hold(ALL_STREAMS)
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if not self._is_over:
            self._poller.refresh()
            self._process()

    def _fail(self, exc: Exception) -> None:
        """The library raised what it should not: close this connection, keep the rest."""
        _log.error("engine_failed", exception_type=type(exc).__name__)
        self._end()

    def _end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._count_drops()
        self._owner.link_over(self)
        if not self.is_terminated:
            self.is_terminated = True
            if self.handler is not None:
                self.handler.terminated(0)

    def _arm(self) -> None:
        deadline = self.engine.deadline()
        if deadline is None:
            return
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._on_timer)
            self._timer_at = deadline
        elif deadline < self._timer_at - _TIMER_SLACK:
            self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._on_timer)
            self._timer_at = deadline

    def _on_timer(self) -> None:
        """The deadline may have moved since the timer was set: then only set it again."""
        self._timer = None
        now = self._poller.refresh()
        deadline = self.engine.deadline()
        if deadline is not None and deadline <= now + _TIMER_SLACK:
            try:
                self.engine.on_deadline(max(now, deadline))
            except Exception as exc:  # noqa: BLE001 - as above
                self._fail(exc)
                return
            self._count_drops()
            was_alive = not self.is_terminated
            self._process()
            if was_alive and self.is_terminated and self.is_established:
                self._metrics.count(Metric.LIMITS_HIT, 1, LimitName.IDLE)
        else:
            self._arm()

    def _count_drops(self) -> None:
        dropped = self.engine.dropped_datagrams - self._counted_drops
        if dropped:
            self._counted_drops += dropped
            self._metrics.count(Metric.DATAGRAMS_DROPPED, dropped, DropReason.QUEUE_FULL)
            self._metrics.count(Metric.LIMITS_HIT, dropped, LimitName.DATAGRAM_QUEUE)
