"""One request stream as pipelines and tunnels see it, whatever HTTP version carries it, on either side.

An exchange is made by the session that owns the connection and is driven by one *sink* at a time: nobody until the
answer is decided (what arrives is kept, within bounds), then a tunnel. It ends exactly once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from masque.errors import ErrorCode
from masque.head import RequestHead, ResponseHead
from relay.telemetry import LimitName

__all__ = ["Carrier", "EarlyLimits", "Exchange", "Sink"]


class Sink(Protocol):
    """What an accepted exchange delivers to: a tunnel. Methods must not raise."""

    def data_received(self, data: bytes, fin: bool) -> None:
        """Content of the stream, in order."""

    def payloads_received(self, payloads: list[bytes]) -> None:
        """Payloads of the datagram prefix that was opened, of one turn."""

    def datagram_received(self, datagram: bytes) -> None:
        """An HTTP Datagram that did not match the opened prefix, from its context id on."""

    def drained(self) -> None:
        """Asked for with `Exchange.await_drain`: the stream's backlog may have fallen."""

    def aborted(self) -> None:
        """The peer reset or stopped the stream, broke a rule on it, or the connection is gone. Nothing follows."""


class Carrier(Protocol):
    """What an exchange needs of the session that carries it."""

    @property
    def max_datagram_payload(self) -> int:
        """Largest DATAGRAM frame payload now, in bytes; 0 when the peer takes capsules only."""

    @property
    def holds_connection(self) -> bool:
        """True when `hold` stops other streams of the connection too."""

    def send_head(self, stream_id: int, head: ResponseHead, fin: bool) -> None:
        """Send a response's head."""

    def send_content(self, stream_id: int, data: bytes | memoryview, fin: bool) -> None:
        """Send content, or its end."""

    def send_datagrams(self, prefix: bytes, data: bytes, segment: int) -> int:
        """Send datagrams; how many fitted."""

    def backlog(self, stream_id: int) -> int:
        """Bytes of content not sent yet."""

    def limit_hit(self, limit: LimitName) -> None:
        """Count that a bound bit."""

    @property
    def fair_share(self) -> int:
        """Bytes that one exchange's unsent content may be now, given how many there are."""

    @property
    def is_crowded(self) -> bool:
        """True while all exchanges together buffer more than the connection may."""

    def add_buffered(self, size: int) -> None:
        """Note that an exchange's sink buffers `size` bytes more, or less when negative."""

    def await_drain(self, exchange: Exchange) -> None:
        """Call the sink's `drained` after the next flush."""

    def hold(self, stream_id: int) -> None:
        """Give the peer no more credit for the stream."""

    def release(self, stream_id: int) -> None:
        """Give credit again."""

    def abort(self, stream_id: int, code: int) -> None:
        """Abort both directions of the stream."""

    def finish(self, stream_id: int) -> None:
        """Nothing more is wanted of the peer's direction."""

    def open_datagrams(self, prefix: bytes, exchange: Exchange) -> None:
        """Deliver datagrams with this prefix to the exchange's sink."""

    def forget(self, exchange: Exchange) -> None:
        """The exchange is over: no route leads to it any more."""


class EarlyLimits:
    """Bounds on what arrives before an exchange has a sink."""

    __slots__ = ("data", "datagrams", "spare")

    def __init__(self, data: int = 65536, datagrams: int = 32, spare: int = 1 << 20) -> None:
        """Set the bounds.

        Args:
            data: bytes of content kept before the stream is held.
            datagrams: datagrams kept; those after them are dropped.
            spare: bytes kept beyond `data` where holding a stream would hold its neighbours; a stream that brings
                more is aborted.
        """
        self.data = data
        self.datagrams = datagrams
        self.spare = spare


class Exchange:
    """One request stream and its response."""

    __slots__ = (
        "_carrier",
        "_early",
        "_early_data",
        "_early_datagrams",
        "_early_fin",
        "_early_size",
        "_is_held",
        "head",
        "inbox",
        "is_aborted",
        "is_answered",
        "is_over",
        "on_abort",
        "on_end",
        "prefix",
        "response",
        "sink",
        "stream_id",
    )

    def __init__(self, stream_id: int, head: RequestHead, carrier: Carrier, early: EarlyLimits) -> None:
        """Made by a session when the request's head arrived (server) or was sent (client)."""
        self.stream_id = stream_id
        self.head = head
        self.sink: Sink | None = None
        self.inbox: list[bytes] = []
        "Payloads of this turn; the session fills it and hands it over."
        self.prefix: bytes | None = None
        self.response: ResponseHead | None = None
        "Client side: the final response."
        self.is_answered = False
        self.is_aborted = False
        self.is_over = False
        self.on_abort: Callable[[], None] | None = None
        "Called once when the peer gives up before there is a sink."
        self.on_end: Callable[[], None] | None = None
        "Called once when the exchange is over."
        self._carrier = carrier
        self._early = early
        self._early_data: list[bytes] = []
        self._early_datagrams: list[bytes] = []
        self._early_size = 0
        self._early_fin = False
        self._is_held = False

    def __repr__(self) -> str:
        """Show the stream only: the head names the target."""
        return f"Exchange(stream_id={self.stream_id})"

    # What pipelines and tunnels call.

    @property
    def max_datagram_payload(self) -> int:
        """Largest DATAGRAM frame payload now, prefix included; 0 when the peer takes capsules only."""
        return self._carrier.max_datagram_payload

    @property
    def holds_connection(self) -> bool:
        """True when `hold` stops the connection's other streams too."""
        return self._carrier.holds_connection

    @property
    def backlog(self) -> int:
        """Bytes of content written and not sent yet."""
        return self._carrier.backlog(self.stream_id)

    def respond(self, head: ResponseHead, fin: bool = False) -> None:
        """Send the final response's head; with `fin` the exchange is refused and over."""
        if self.is_over:
            return
        self.is_answered = True
        self._carrier.send_head(self.stream_id, head, fin)
        if fin:
            self._carrier.finish(self.stream_id)
            self.end()

    def attach(self, sink: Sink) -> None:
        """Deliver to `sink` from now on, first what came early, an abort included."""
        self.sink = sink
        was_aborted = self.is_aborted
        data, self._early_data = self._early_data, []
        self._carrier.add_buffered(-self._early_size)
        self._early_size = 0
        datagrams, self._early_datagrams = self._early_datagrams, []
        if self._is_held:
            self._is_held = False
            self._carrier.release(self.stream_id)
        if data or self._early_fin:
            sink.data_received(b"".join(data), self._early_fin)
        for datagram in datagrams:
            if self.is_over:
                break
            sink.datagram_received(datagram)
        if was_aborted:
            sink.aborted()

    def open_datagrams(self, prefix: bytes) -> None:
        """Hand payloads with this prefix to the sink in batches, prefix removed."""
        self.prefix = prefix
        self._carrier.open_datagrams(prefix, self)

    def write(self, data: bytes | memoryview) -> None:
        """Send content."""
        self._carrier.send_content(self.stream_id, data, False)

    def end_content(self) -> None:
        """Send the end of our content; the peer's direction stays open."""
        self._carrier.send_content(self.stream_id, b"", True)

    def send_datagrams(self, prefix: bytes, data: bytes, segment: int) -> int:
        """Send HTTP Datagrams: `prefix` before each piece of `segment` bytes of `data`.

        Returns:
            How many fitted into the connection's DATAGRAM frames; the rest is dropped.
        """
        return self._carrier.send_datagrams(prefix, data, segment)

    @property
    def fair_share(self) -> int:
        """Bytes of content that may wait to be sent now: a share of what the connection may buffer."""
        return self._carrier.fair_share

    @property
    def is_crowded(self) -> bool:
        """True while the connection's exchanges together buffer more than they may."""
        return self._carrier.is_crowded

    def add_buffered(self, size: int) -> None:
        """Note that the sink buffers `size` bytes more of the stream, or less when negative."""
        self._carrier.add_buffered(size)

    def await_drain(self) -> None:
        """Have the sink's `drained` called after the next flush, once."""
        self._carrier.await_drain(self)

    def hold(self) -> None:
        """Give the peer no more credit for this stream."""
        self._carrier.hold(self.stream_id)

    def release(self) -> None:
        """Give credit again."""
        self._carrier.release(self.stream_id)

    def abort(self, code: int) -> None:
        """Abort both directions; the exchange is over. The sink is not called."""
        if not self.is_over:
            self._carrier.abort(self.stream_id, code)
            self.end()

    def end(self) -> None:
        """Both directions ended: forget the exchange."""
        if not self.is_over:
            self.is_over = True
            self._early_data.clear()
            self._early_datagrams.clear()
            self._carrier.add_buffered(-self._early_size)
            self._early_size = 0
            self.inbox.clear()
            self._carrier.forget(self)
            if self.on_end is not None:
                self.on_end()

    # What sessions call.

    def deliver_data(self, data: bytes, fin: bool) -> None:
        """Content arrived."""
        if self.sink is not None:
            self.sink.data_received(data, fin)
            return
        self._early_data.append(data)
        self._early_size += len(data)
        self._carrier.add_buffered(len(data))
        self._early_fin = self._early_fin or fin
        if self._early_size > self._early.data:
            self._bound_early()

    def _bound_early(self) -> None:
        """More came than is kept for nothing: hold the stream, or where that hurts its neighbours, end it in time."""
        if self._carrier.holds_connection:
            if self._early_size > self._early.data + self._early.spare or self._carrier.is_crowded:
                self._carrier.limit_hit(LimitName.EARLY_DATA)
                self._carrier.abort(self.stream_id, ErrorCode.H3_EXCESSIVE_LOAD)
                self.deliver_abort()
        elif not self._is_held:
            self._is_held = True
            self._carrier.hold(self.stream_id)
            self._carrier.limit_hit(LimitName.EARLY_DATA)

    def deliver_datagram(self, datagram: bytes) -> bool:
        """A datagram arrived outside the opened prefix. False when it was dropped for arriving too early."""
        if self.sink is not None:
            self.sink.datagram_received(datagram)
        elif len(self._early_datagrams) < self._early.datagrams:
            self._early_datagrams.append(datagram)
        else:
            self._carrier.limit_hit(LimitName.EARLY_DATAGRAMS)
            return False
        return True

    def deliver_abort(self) -> None:
        """The peer gave up, or the connection is gone."""
        if self.is_over or self.is_aborted:
            return
        self.is_aborted = True
        if self.sink is not None:
            self.sink.aborted()
        elif self.on_abort is not None:
            self.on_abort()
