"""The default engine, on qh3: a Rust packet core under a Python TLS handshake.

All of qh3's private names are used here and nowhere else; `tests/relay/quic/test_engine_traps.py` fails when a
release changes what we rely on. What is done, and why:

- Events are taken from the core by us (`_Tap`), because taking an event is what gives the peer credit. While a
  stream is held nothing is taken, so the whole connection's reading waits (`holds_connection`). Packets go on being
  processed up to a bound, so acknowledgements still arrive; beyond it they are dropped, as a full network would.
- The core sends DATAGRAM frames at once, whatever the congestion window says. We queue them ourselves and hand over
  only what the window has room for (RFC 9221 §5.4), and drop the oldest when the queue is full.
- The core raises for ever once a queued DATAGRAM frame cannot fit. So each is measured first.
- Stream limits are fixed numbers in qh3's Python; we build the core and the transport parameters ourselves.
"""

from __future__ import annotations

import ssl
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final, cast

from qh3._hazmat import Buffer, QuicConnectionCore
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection, QuicConnectionError, QuicConnectionState
from qh3.quic.events import HandshakeCompleted
from qh3.quic.packet import pull_quic_transport_parameters, push_quic_transport_parameters
from qh3.quic.tls_bridge import QuicTlsBridge

from relay.quic.certificate import check_authorities
from relay.quic.engine import (
    CONNECTION_ID_LENGTH,
    Address,
    Burst,
    Certificate,
    ClientOptions,
    EngineError,
    Established,
    Event,
    IdIssued,
    IdRetired,
    StopSending,
    StreamData,
    StreamReset,
    Terminated,
    TransportLimits,
    cut,
)
from relay.quic.packet import reset_token

__all__ = ["Qh3Engine", "Qh3Factory"]

_HELD_EVENTS: Final = 4096
"Core events that may wait while a stream is held; packets beyond are dropped."
_FRAME_OVERHEAD: Final = 3
"DATAGRAM frame type and a two-byte length."
_PACKET_OVERHEAD: Final = 1 + 2 + 16
"Short header without the connection id: flags, packet number, AEAD tag."
_UNI_STREAMS: Final = 16
_FIRST_RTT: Final = 0.333
_ACK_DELAY: Final = 0.025
"For the time to linger after a close: three probe timeouts (RFC 9000 §10.2)."


class _Tap:
    """Stands where the connection expects its core, and sorts the core's events.

    What the relay wants to see goes to the engine's lists, without an object of qh3 being made. A stream's data of
    one turn is joined: with several streams at once the core has an event for each packet. What qh3 itself must
    handle (the handshake, the end) passes on.
    """

    def __init__(self, core: QuicConnectionCore) -> None:
        self.core = core
        self.datagrams: list[bytes] = []
        self.events: list[Event] = []
        self.chunks: dict[int, list[bytes]] = {}
        self.ended: set[int] = set()
        self.held: set[int] = set()
        self.waiting = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.core, name)

    def release_if_ending(self) -> None:
        """The end of a connection must be seen even while a stream is held."""
        if self.core.state != "connected":
            self.held.clear()

    def take_events(self) -> list[Event]:
        """What was sorted so far: stream data first, since whatever ends a stream follows its data."""
        events: list[Event] = [
            StreamData(stream_id, chunks[0] if len(chunks) == 1 else b"".join(chunks), stream_id in self.ended)
            for stream_id, chunks in self.chunks.items()
        ]
        events += self.events
        self.chunks.clear()
        self.ended.clear()
        self.events.clear()
        return events

    def next_event(self) -> tuple[Any, ...] | None:
        """The next event that qh3 itself must see; None when there is none, or a stream is held."""
        if self.held:
            return None
        core = self.core
        add_datagram = self.datagrams.append
        add_event = self.events.append
        chunks = self.chunks
        while True:
            event = core.next_event()
            if event is None:
                return None
            if self.waiting:
                self.waiting -= 1
            kind = event[0]
            if kind == "datagram":
                add_datagram(event[1])
            elif kind == "stream_data":
                stream_id = event[1]
                if stream_id in chunks:
                    chunks[stream_id].append(event[2])
                else:
                    chunks[stream_id] = [event[2]]
                if event[3]:
                    self.ended.add(stream_id)
            elif kind == "stream_reset":
                add_event(StreamReset(event[1], event[2]))
            elif kind == "stop_sending":
                add_event(StopSending(event[1], event[2]))
            elif kind == "connection_id_issued":
                add_event(IdIssued(event[1]))
            elif kind == "connection_id_retired":
                add_event(IdRetired(event[1]))
            else:
                return event


@dataclass
class _Configuration(QuicConfiguration):
    """qh3's configuration, carrying our limits to where they are needed."""

    limits: TransportLimits = field(default_factory=TransportLimits)


class _Bridge(QuicTlsBridge):
    """Announces our stream limits instead of qh3's."""

    configuration: _Configuration

    def serialize_transport_parameters(self) -> bytes:
        parameters = pull_quic_transport_parameters(Buffer(data=super().serialize_transport_parameters()))
        parameters.initial_max_streams_bidi = self.configuration.limits.streams
        parameters.initial_max_streams_uni = _UNI_STREAMS
        buffer = Buffer(capacity=1024)
        push_quic_transport_parameters(buffer, parameters)
        return buffer.data


class _Connection(QuicConnection):
    """qh3's connection with our limits in its core and `_Tap` before it."""

    _configuration: _Configuration
    tap: _Tap

    def _create_core(self, remote_addr: Address, initial_dcid: bytes, now: float) -> None:
        limits = self._configuration.limits
        assert self._version is not None, "the version is chosen before the core is made"
        self.tap = _Tap(
            QuicConnectionCore(
                is_client=self._is_client,
                version=self._version,
                local_addr=("0.0.0.0", 0),
                remote_addr=remote_addr,
                source_cid=self.host_cid,
                destination_cid=initial_dcid,
                peer_address_validated=self._is_client or self._retry_source_connection_id is not None,
                active_connection_id_limit=2 if self._is_client else 8,
                max_datagram_size=limits.max_datagram_size,
                probe_datagram_size=self._configuration.probe_datagram_size,
                idle_timeout=limits.idle,
                ack_delay_exponent=3,
                max_datagram_frame_size=limits.max_datagram_frame_size,
                peer_max_datagram_frame_size=None,
                connection_receive_window=limits.connection_window,
                connection_send_limit=0,
                stream_receive_window=limits.stream_window,
                stream_send_limit_bidi_local=0,
                stream_send_limit_bidi_remote=0,
                stream_send_limit_uni=0,
                max_stream_reassembly=limits.stream_window,
                local_max_streams_bidi=limits.streams,
                local_max_streams_uni=_UNI_STREAMS,
                peer_max_streams_bidi=0,
                peer_max_streams_uni=0,
                initial_rtt=self._configuration.initial_rtt,
                max_ack_delay=0.025,
                initial_time=now,
            )
        )
        self._core = cast(QuicConnectionCore, self.tap)
        self._applied_transport_parameters = None
        self._pre_handshake_state_replayed = False

    def _create_tls(self, remote_source_cid: bytes | None) -> QuicTlsBridge:
        assert self._version is not None, "the version is chosen before TLS starts"
        self._tls = _Bridge(
            self._configuration,
            version=self._version,
            local_initial_source_connection_id=self.host_cid,
            remote_initial_source_connection_id=remote_source_cid,
            original_destination_connection_id=self._original_destination_connection_id,
            retry_source_connection_id=self._retry_source_connection_id,
            stateless_reset_token=(
                None if self._is_client else reset_token(self._configuration.limits.reset_key, self.host_cid)
            ),
            version_change_handler=self._set_version,
        )
        return self._tls

    @property
    def is_started(self) -> bool:
        return self._core is not None

    @property
    def end_code(self) -> int | None:
        """The error code the connection ended with, as soon as either side closed it."""
        return None if self._close_event is None else self._close_event.error_code

    @property
    def is_over(self) -> bool:
        return self._state is QuicConnectionState.TERMINATED

    @property
    def is_established(self) -> bool:
        return self._handshake_complete

    @property
    def peer_datagram_frame_size(self) -> int:
        return self._remote_max_datagram_frame_size or 0

    @property
    def peer_id_length(self) -> int:
        peer_id = self._tls.remote_initial_source_connection_id if self._tls is not None else None
        return len(peer_id) if peer_id is not None else 20

    def drain(self) -> None:
        self._drain_core()

    def awaits_room(self, stream_id: int) -> bool:
        """True for a stream of ours beyond what the peer allows now (RFC 9000 §4.6)."""
        if (stream_id & 1 == 0) is not self._is_client or self._close_event is not None:
            return False
        return bool(stream_id >> 2 >= self.tap.core.stream_limits[stream_id >> 1 & 1])


class Qh3Engine:
    """One connection on qh3; see `relay.quic.engine.Engine` for the contract."""

    holds_connection = True

    def __init__(self, connection: _Connection, limits: TransportLimits) -> None:
        self._connection = connection
        self._limits = limits
        self._outbox: deque[bytes] = deque()
        self._parked: dict[int, list[tuple[bytes, bool] | int]] = {}
        "Writes, or a reset's code, of streams that the peer has no room for yet; the core would refuse them."
        self._linger: float | None = None
        "Until when to repeat our CONNECTION_CLOSE; the core counts from the last packet received, not from now."
        self._is_closing = False
        self._events: list[Event] = []
        self._max_payload = 0
        self._handed = 0
        "Bytes given to the core and not sent yet."
        self._is_terminated = False
        self.connection_id: bytes = connection.host_cid
        self.dropped_datagrams = 0

    @property
    def max_datagram_payload(self) -> int:
        return self._max_payload

    @property
    def is_over(self) -> bool:
        return self._connection.is_over

    def receive(self, data: bytes, segment: int, address: Address, now: float) -> None:
        connection = self._connection
        if connection.is_established:
            tap = connection.tap
            if tap.held and tap.waiting > _HELD_EVENTS:
                return
            report = tap.core.receive_gro_buffer(data, segment, address, now)
            if tap.held:
                tap.waiting += report[5]
                tap.release_if_ending()
            connection.drain()
            if self._parked:
                self._unpark()
        else:
            for start in range(0, len(data), segment):
                connection.receive_datagram(data[start : start + segment], address, now)

    def take_events(self) -> list[Event]:
        self._translate()
        events, self._events = self._events, []
        return events

    def take_datagrams(self) -> list[bytes]:
        if not self._connection.is_started:
            return []
        tap = self._connection.tap
        datagrams, tap.datagrams = tap.datagrams, []
        return datagrams

    def send_stream(self, stream_id: int, data: bytes | memoryview, fin: bool = False) -> None:
        if self._parked and stream_id in self._parked:
            self._parked[stream_id].append((bytes(data), fin))
            return
        try:
            if self._connection.is_established:
                self._connection.tap.core.send_stream(stream_id, data, fin)
            else:
                self._connection.send_stream_data(stream_id, data, fin)
        except (ValueError, RuntimeError, QuicConnectionError):
            if self._connection.awaits_room(stream_id):
                self._parked[stream_id] = [(bytes(data), fin)]
            # else the stream or the connection is over; its event says so

    def _unpark(self) -> None:
        """Write what waited for room, oldest streams first."""
        core = self._connection.tap.core
        for stream_id in sorted(self._parked):
            if self._connection.awaits_room(stream_id):
                break
            for write in self._parked.pop(stream_id):
                try:
                    if isinstance(write, int):
                        core.send_stream(stream_id, b"")
                        core.reset_stream(stream_id, write)
                    else:
                        core.send_stream(stream_id, *write)
                except (ValueError, RuntimeError):
                    break

    def backlog(self, stream_id: int) -> int:
        if self._parked and stream_id in self._parked:
            return sum(len(write[0]) for write in self._parked[stream_id] if not isinstance(write, int))
        if self._connection.is_established:
            return self._connection.tap.core.get_send_buffer_size(stream_id)
        return self._connection.get_send_buffer_size(stream_id)

    def hold(self, stream_id: int) -> None:
        self._connection.tap.held.add(stream_id)

    def release(self, stream_id: int) -> None:
        held = self._connection.tap.held
        held.discard(stream_id)
        if not held:
            self._connection.drain()

    def reset_stream(self, stream_id: int, code: int) -> None:
        if stream_id in self._parked:
            self._parked[stream_id] = [code]
            return
        try:
            self._connection.reset_stream(stream_id, code)
        except (AssertionError, ValueError, QuicConnectionError):
            return

    def stop_sending(self, stream_id: int, code: int) -> None:
        try:
            self._connection.stop_stream(stream_id, code)
        except (AssertionError, ValueError, QuicConnectionError):
            return

    def send_datagrams(self, prefix: bytes, data: bytes, segment: int) -> int:
        payloads = cut(prefix, data, segment, self._max_payload)
        outbox = self._outbox
        outbox.extend(payloads)
        self._hand_over()
        while len(outbox) > self._limits.datagram_queue:
            outbox.popleft()
            self.dropped_datagrams += 1
        return len(payloads)

    def transmit(self, now: float) -> list[Burst]:
        bursts: list[Burst] = []
        if not self._connection.is_started:
            return bursts
        core = self._connection.tap.core
        if self._is_closing and self._linger is None:
            self._linger = now + 3 * (3 * (core.smoothed_rtt or _FIRST_RTT) + _ACK_DELAY)
        payloads: list[bytes] = []
        destination: Address | None = None
        try:
            if self._outbox:
                self._hand_over()
            poll = core.poll_transmit
            while (packet := poll(now)) is not None:
                if packet[1] != destination:
                    destination = packet[1]
                    payloads = []
                    bursts.append((payloads, packet[1]))
                payloads.append(packet[0])
            if bursts:
                self._handed = 0
        except (ValueError, RuntimeError):
            # The connection is closing, or a path that is not validated yet has no room for a full packet
            # (RFC 9000 §8.1). What was built goes out; datagrams are lost, as datagrams may be.
            self._handed = 0
            self.dropped_datagrams += len(self._outbox)
            self._outbox.clear()
        return bursts

    def _hand_over(self) -> None:
        """Give the core as many datagrams as the congestion window has room for (RFC 9221 §5.4)."""
        outbox = self._outbox
        core = self._connection.tap.core
        room = core.congestion_window - core.bytes_in_flight - self._handed
        send = core.send_datagram
        try:
            while outbox and room > 0:
                payload = outbox.popleft()
                size = len(payload) + _FRAME_OVERHEAD
                room -= size
                self._handed += size
                send(payload)
        except (ValueError, RuntimeError):
            outbox.clear()  # the connection is closing; its event says so

    def deadline(self) -> float | None:
        if not self._connection.is_started:
            return None
        timer = self._connection.tap.core.get_timer()
        if timer is None or self._linger is None:
            return None if timer is None else timer[1]
        return max(timer[1], self._linger)

    def on_deadline(self, now: float) -> None:
        core = self._connection.tap.core
        core.handle_timer(now)
        self._connection.tap.release_if_ending()
        self._connection.drain()

    def close(self, code: int, reason: str = "") -> None:
        self._outbox.clear()
        self._parked.clear()
        self._is_closing = self._connection.is_started
        self._connection.close(error_code=code, reason_phrase=reason)

    def _translate(self) -> None:
        connection = self._connection
        while (event := connection.next_event()) is not None:
            if isinstance(event, HandshakeCompleted):
                self._measure()
                self._events.append(Established(event.alpn_protocol))
        if connection.is_started:
            self._events += connection.tap.take_events()
        ended = connection.end_code
        if ended is not None and not self._is_terminated:
            self._is_terminated = True
            self._outbox.clear()
            self._events.append(Terminated(ended))

    def _measure(self) -> None:
        connection = self._connection
        path = min(self._limits.max_datagram_size, connection.tap.core.active_path[5])
        self._max_payload = max(
            0,
            min(
                path - _PACKET_OVERHEAD - connection.peer_id_length - _FRAME_OVERHEAD,
                connection.peer_datagram_frame_size - _FRAME_OVERHEAD,
            ),
        )


class Qh3Factory:
    """Makes connections on qh3."""

    def __init__(self, limits: TransportLimits, certificate: Certificate | None) -> None:
        """Load the certificate, if any.

        Raises:
            EngineError: qh3 does not take the certificate or its key.
        """
        self._limits = limits
        self._server = self._configuration(is_client=False)
        if certificate is not None:
            try:
                self._server.load_cert_chain(certificate.chain, certificate.private_key)
            except Exception as exc:
                raise EngineError(f"qh3 does not take this certificate or key ({type(exc).__name__})") from exc

    def server(
        self, initial_destination_id: bytes, peer_id: bytes, retry_source_id: bytes | None, now: float
    ) -> Qh3Engine:
        """See `relay.quic.engine.EngineFactory.server`."""
        connection = _Connection(
            configuration=self._server,
            original_destination_connection_id=initial_destination_id,
            retry_source_connection_id=retry_source_id,
        )
        return Qh3Engine(connection, self._limits)

    def client(self, options: ClientOptions, address: Address, now: float) -> Qh3Engine:
        """See `relay.quic.engine.EngineFactory.client`."""
        configuration = self._configuration(is_client=True)
        configuration.server_name = options.server_name
        configuration.alpn_protocols = list(options.alpn)
        if not options.is_verified:
            configuration.verify_mode = ssl.CERT_NONE
        if options.ca_file is not None:
            check_authorities(options.ca_file)
            configuration.cafile = str(options.ca_file)
        connection = _Connection(configuration=configuration)
        connection.connect(address, now)
        return Qh3Engine(connection, self._limits)

    def _configuration(self, *, is_client: bool) -> _Configuration:
        limits = self._limits
        return _Configuration(
            limits=limits,
            is_client=is_client,
            alpn_protocols=["h3"],
            connection_id_length=CONNECTION_ID_LENGTH,
            idle_timeout=limits.idle,
            max_data=limits.connection_window,
            max_stream_data=limits.stream_window,
            max_datagram_size=limits.max_datagram_size,
            max_datagram_frame_size=limits.max_datagram_frame_size,
        )
