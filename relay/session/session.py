"""One HTTP/3 connection: moves bytes and datagrams between the H3 machine and its QUIC connection, either side.

The session knows exchanges, not tunnels. It is what a QUIC link calls (`relay.quic.link.LinkHandler`) and what an
exchange calls (`relay.exchange.Carrier`); ingress and client add only who starts an exchange.
"""

from __future__ import annotations

from masque.errors import ErrorCode, Malformed
from masque.h3 import (
    Action,
    CloseConnection,
    ConnectionFailed,
    DataReceived,
    GoawayReceived,
    H3Connection,
    RequestReceived,
    ResetReceived,
    ResponseReceived,
    SettingsReceived,
    StopSendingReceived,
    StreamFailed,
    StreamReset,
    StreamStop,
    StreamWrite,
    TrailersReceived,
    encode_data_header,
)
from masque.head import RequestHead, ResponseHead
from relay.datagrams import DatagramRouter
from relay.exchange import EarlyLimits, Exchange
from relay.session.contracts import SessionObserver, Transport
from relay.telemetry import LimitName, Metric, Metrics

__all__ = ["Session"]


class Session:
    """One HTTP/3 connection."""

    def __init__(
        self,
        transport: Transport,
        machine: H3Connection,
        observer: SessionObserver,
        early: EarlyLimits,
        buffer_limit: int,
        metrics: Metrics,
    ) -> None:
        """Join a machine and a transport; SETTINGS are queued at once.

        Args:
            transport: the QUIC connection.
            machine: fresh, of the right role.
            observer: who is told what happens.
            early: bounds on what arrives before an exchange has a sink.
            buffer_limit: bytes that all exchanges' sinks may buffer together.
            metrics: where drops are counted.
        """
        self.machine = machine
        self.exchanges: dict[int, Exchange] = {}
        self.is_closed = False
        self.is_established = False
        self._is_client = machine.is_client
        self._transport = transport
        self._observer = observer
        self._early = early
        self._metrics = metrics
        self._held: set[int] = set()
        self._waiting: dict[Exchange, None] = {}
        self._answered_early: list[int] = []
        "Streams of refused CONNECTs, until their answers have left."
        self._unsent: set[int] = set()
        self._buffered = 0
        self._buffer_limit = buffer_limit
        self._datagrams = DatagramRouter(self.exchanges, 0 if machine.is_client else early.datagrams, metrics)
        machine.start()
        self._act()

    # What the link calls.

    def established(self, alpn: str | None) -> None:
        """The handshake is complete; the ALPN was h3 or TLS would have failed."""
        self.is_established = True

    def stream_data(self, stream_id: int, data: bytes, fin: bool) -> None:
        """Bytes of a stream."""
        self.machine.receive_stream_data(stream_id, data, fin)
        self._pump()

    def stream_reset(self, stream_id: int, code: int) -> None:
        """The peer's RESET_STREAM."""
        self.machine.receive_reset(stream_id, code)
        self._pump()

    def stop_sending(self, stream_id: int, code: int) -> None:
        """The peer's STOP_SENDING."""
        self.machine.receive_stop_sending(stream_id, code)
        self._pump()

    def datagrams(self, payloads: list[bytes]) -> None:
        """DATAGRAM payloads of one turn."""
        try:
            self._datagrams.deliver(payloads)
        except Malformed as error:
            self.close(error.code, error.detail)

    def flushed(self) -> None:
        """Backlogs may have fallen, and answers have left."""
        if self._answered_early:
            answered, self._answered_early = self._answered_early, []
            for stream_id in answered:
                self._stop(stream_id)
        if self._unsent:
            self._unsent = {stream_id for stream_id in self._unsent if self._transport.backlog(stream_id)}
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            for exchange in waiting:
                if exchange.sink is not None and not exchange.is_over:
                    exchange.sink.drained()

    def terminated(self, code: int) -> None:
        """The connection is over."""
        if self.is_closed:
            return
        self.is_closed = True
        exchanges = list(self.exchanges.values())
        for exchange in exchanges:
            exchange.deliver_abort()
            exchange.end()
        self._datagrams.clear()
        self._unsent.clear()
        self._observer.session_closed(self, code)

    # What exchanges call.

    @property
    def max_datagram_payload(self) -> int:
        """Largest DATAGRAM payload; 0 until both sides have announced H3_DATAGRAM (RFC 9297 §2.1.1)."""
        return self._transport.max_datagram_payload if self.machine.carries_datagrams else 0

    @property
    def holds_connection(self) -> bool:
        """True when holding one stream stops the others."""
        return self._transport.holds_connection

    def send_head(self, stream_id: int, head: ResponseHead, fin: bool) -> None:
        """Send a response's head."""
        self.machine.send_response(stream_id, head, fin)
        self._act()

    def send_content(self, stream_id: int, data: bytes | memoryview, fin: bool) -> None:
        """Send content without another copy: a DATA header, then the bytes, straight to QUIC."""
        if data:
            self._transport.send_stream(stream_id, encode_data_header(len(data)))
            self._transport.send_stream(stream_id, data)
        if fin:
            self.machine.send_data(stream_id, b"", fin=True)
            self._act()

    def send_datagrams(self, prefix: bytes, data: bytes, segment: int) -> int:
        """Send datagrams."""
        return self._transport.send_datagrams(prefix, data, segment)

    def backlog(self, stream_id: int) -> int:
        """Bytes of a stream not sent yet."""
        return self._transport.backlog(stream_id)

    def limit_hit(self, limit: LimitName) -> None:
        """Count that a bound bit."""
        self._metrics.count(Metric.LIMITS_HIT, 1, limit)

    @property
    def fair_share(self) -> int:
        """Half of the buffer is for what clients send, half for what they receive, and that is shared evenly."""
        return self._buffer_limit // (2 * max(1, len(self.exchanges)))

    @property
    def is_crowded(self) -> bool:
        """True while the exchanges together buffer more than half of `buffer_limit`."""
        return self._buffered > self._buffer_limit // 2

    def add_buffered(self, size: int) -> None:
        """Note buffered bytes."""
        self._buffered += size

    def await_drain(self, exchange: Exchange) -> None:
        """Call the sink's `drained` after the next flush."""
        self._waiting[exchange] = None

    def hold(self, stream_id: int) -> None:
        """Give no more credit for a stream."""
        self._held.add(stream_id)
        self._transport.hold(stream_id)

    def release(self, stream_id: int) -> None:
        """Give credit again."""
        if stream_id in self._held:
            self._held.discard(stream_id)
            self._transport.release(stream_id)

    def abort(self, stream_id: int, code: int) -> None:
        """Abort a stream both ways."""
        self.machine.reset_stream(stream_id, code)
        self._act()

    def finish(self, stream_id: int) -> None:
        """Nothing more is wanted of the peer on a stream that is answered (RFC 9114 §4.1).

        Engines put STOP_SENDING before the answer of the same packet. A client may not drop an answer for that, but
        Firefox drops that of a CONNECT and waits until it is idle, so that one gets it in the next packet.
        """
        exchange = self.exchanges.get(stream_id)
        if exchange is not None and exchange.head.protocol is None:
            self._answered_early.append(stream_id)
        else:
            self._stop(stream_id)

    def open_datagrams(self, prefix: bytes, exchange: Exchange) -> None:
        """Route a prefix to an exchange."""
        self._datagrams.open(prefix, exchange)

    def forget(self, exchange: Exchange) -> None:
        """Remove what leads to an exchange."""
        self.exchanges.pop(exchange.stream_id, None)
        if exchange.prefix is not None:
            self._datagrams.close(exchange.prefix)
        self._waiting.pop(exchange, None)
        self.release(exchange.stream_id)
        if self._transport.backlog(exchange.stream_id):
            self._unsent.add(exchange.stream_id)

    # What the owner calls.

    def request(self, stream_id: int, head: RequestHead) -> Exchange:
        """Client: send a request on a new stream.

        Raises:
            masque.errors.LocalMisuse: the peer is going away, or the stream was used before.
        """
        self.machine.send_request(stream_id, head)
        exchange = Exchange(stream_id, head, self, self._early)
        self.exchanges[stream_id] = exchange
        self._act()
        return exchange

    @property
    def is_idle(self) -> bool:
        """True while there is no exchange, and all content of former ones was sent."""
        return not self.exchanges and not self._unsent

    def goaway(self, *, final: bool) -> None:
        """Tell the peer that this connection takes no new requests, or soon will not (RFC 9114 §5.2)."""
        if not self.is_closed and not self.machine.is_closed:
            self.machine.send_goaway(final)
            self._act()

    def close(self, code: ErrorCode = ErrorCode.H3_NO_ERROR, detail: str = "") -> None:
        """Close the connection."""
        if not self.machine.is_closed:
            self.machine.close(code, detail)
        self._act()

    # Inside.

    def _stop(self, stream_id: int) -> None:
        self.machine.stop_sending(stream_id, ErrorCode.H3_NO_ERROR)
        self._act()

    def _pump(self) -> None:
        """Hand up the machine's events and carry out its actions."""
        next_event = self.machine.next_event
        while (event := next_event()) is not None:
            match event:
                case DataReceived():
                    self._deliver(event.stream_id, event.data, event.fin)
                case TrailersReceived():
                    self._deliver(event.stream_id, b"", True)
                case RequestReceived():
                    self._requested(event)
                case ResponseReceived():
                    self._answered(event)
                case ResetReceived():
                    self._aborted(event.stream_id)
                case StreamFailed():
                    if event.code is ErrorCode.H3_EXCESSIVE_LOAD:
                        self.limit_hit(LimitName.FIELD_SECTION)
                    self._aborted(event.stream_id)
                case StopSendingReceived():
                    self._stopped(event.stream_id)
                case SettingsReceived():
                    self._observer.session_ready(self)
                case GoawayReceived():
                    self._observer.session_draining(self)
                case ConnectionFailed():
                    pass  # its action closes the connection; the link then says that it is over
        self._act()

    def _deliver(self, stream_id: int, data: bytes, fin: bool) -> None:
        exchange = self.exchanges.get(stream_id)
        if exchange is not None:
            exchange.deliver_data(data, fin)

    def _requested(self, event: RequestReceived) -> None:
        stream_id = event.stream_id
        exchange = Exchange(stream_id, event.head, self, self._early)
        self.exchanges[stream_id] = exchange
        self._observer.request_received(self, exchange)
        if event.fin:
            exchange.deliver_data(b"", True)
        self._datagrams.adopt(exchange)

    def _answered(self, event: ResponseReceived) -> None:
        exchange = self.exchanges.get(event.stream_id)
        if exchange is not None:
            if event.head.status >= 200:
                exchange.response = event.head
            self._observer.response_received(self, exchange, event.head)
            if event.fin:
                exchange.deliver_data(b"", True)

    def _aborted(self, stream_id: int) -> None:
        exchange = self.exchanges.get(stream_id)
        if exchange is not None:
            exchange.deliver_abort()

    def _stopped(self, stream_id: int) -> None:
        """The peer wants no more of ours. Towards a client that awaits its answer this is no abort: a server that
        refuses early says so (RFC 9114 §4.1)."""
        exchange = self.exchanges.get(stream_id)
        if exchange is not None and (exchange.sink is not None or not self._is_client):
            exchange.deliver_abort()

    def _act(self) -> None:
        """Carry out what the machine asks for, in order."""
        transport = self._transport
        actions: list[Action] = self.machine.actions_to_send()
        for action in actions:
            match action:
                case StreamWrite():
                    transport.send_stream(action.stream_id, action.data, action.fin)
                case StreamReset():
                    transport.reset_stream(action.stream_id, action.code)
                case StreamStop():
                    transport.stop_sending(action.stream_id, action.code)
                case CloseConnection():
                    transport.close(action.code, action.detail)
