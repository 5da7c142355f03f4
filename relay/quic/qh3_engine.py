"""The default engine, on qh3: a Rust packet core under a Python TLS handshake.

What is done beyond `relay.quic.qh3_connection`, and why:

- While a stream is held, packets go on being processed up to a bound, so acknowledgements still arrive; beyond it
  they are dropped, as a full network would.
- The core sends DATAGRAM frames at once, whatever the congestion window says. We queue them ourselves and hand over
  only what the window has room for (RFC 9221 §5.4), and drop the oldest when the queue is full.
- The core raises for ever once a queued DATAGRAM frame cannot fit. So each is measured first.
- Its TLS server is made for clients without certificates: it has no CertificateRequest to send, and computes the
  client's Finished before the client's flight is there. So a relay that asks for certificates runs on aioquic.
- The core finds its way to a client that moved too late, or not at all; `relay.quic.qh3_paths` knows the way.
- The core refuses to write to a stream beyond the peer's limit. We park what is written until there is room.
- The library takes a client's empty source connection id for none at all, and answers to the id that the client had
  made up for the server; such a client never connects. quic-go's clients have empty ids by default (RFC 9000 §5.1
  allows it). Their connections are made on aioquic: slower, and served.
"""

from __future__ import annotations

import ssl
from collections import deque
from typing import Final

from qh3.quic.connection import QuicConnectionError
from qh3.quic.events import HandshakeCompleted
from qh3.quic.packet import QuicFrameType

from relay.quic.certificate import CLIENT_NAMES, check_authorities, check_certificate, load_certificate
from relay.quic.engine import (
    CONNECTION_ID_LENGTH,
    Address,
    Burst,
    Certificate,
    ClientCheck,
    ClientOptions,
    Engine,
    EngineError,
    EngineFactory,
    EngineName,
    Established,
    Event,
    Terminated,
    TransportLimits,
    cut,
    load_factory,
)
from relay.quic.qh3_connection import Configuration, Connection
from relay.quic.qh3_paths import Paths

__all__ = ["Qh3Engine", "Qh3Factory"]

_HELD_EVENTS: Final = 4096
"Core events that may wait while a stream is held; packets beyond are dropped."
_FRAME_OVERHEAD: Final = 3
"DATAGRAM frame type and a two-byte length."
_PACKET_OVERHEAD: Final = 1 + 2 + 16
"Short header without the connection id: flags, packet number, AEAD tag."
_NO_VIABLE_PATH: Final = 0x10
"RFC 9000 §20.1."
_FIRST_RTT: Final = 0.333
_ACK_DELAY: Final = 0.025
"For the time to linger after a close: three probe timeouts (RFC 9000 §10.2)."


class Qh3Engine:
    """One connection on qh3; see `relay.quic.engine.Engine` for the contract."""

    holds_connection = True
    has_sent_events = False
    peer_certificate = None
    "Its server never asks for one."

    def __init__(self, connection: Connection, limits: TransportLimits) -> None:
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
        self._paths: Paths | None = None
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
            paths = self._paths
            if paths is None:
                paths = self._paths = Paths(tap.core)
            if paths.is_settled and address == paths.current:
                events = tap.core.receive_gro_buffer(data, segment, address, now)[5]
            else:
                events = paths.receive(data, segment, address, now)
            if tap.held:
                tap.waiting += events
                tap.release_if_ending()
            connection.drain()
            if paths.is_exhausted:
                connection.close(error_code=_NO_VIABLE_PATH, frame_type=QuicFrameType.PADDING)
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
        if self._paths is not None and not self._paths.is_settled:
            return self._paths.redirect(bursts)
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

    def __init__(
        self, limits: TransportLimits, certificate: Certificate | None, clients: ClientCheck | None = None
    ) -> None:
        """Load the certificate, if any.

        Raises:
            EngineError: qh3 does not take the certificate or its key, or clients shall be asked for theirs.
        """
        if clients is not None:
            raise EngineError(
                "tls.client_certificates: qh3 cannot ask clients for certificates; the engine aioquic can"
            )
        self._limits = limits
        self._certificate = certificate
        self._substitute: EngineFactory | None = None
        self._server = self._configuration(is_client=False)
        if certificate is not None:
            load_certificate(self._server, certificate, "qh3")

    def server(
        self, initial_destination_id: bytes, peer_id: bytes, retry_source_id: bytes | None, now: float
    ) -> Engine:
        """See `relay.quic.engine.EngineFactory.server`."""
        if not peer_id:
            if self._substitute is None:
                self._substitute = load_factory(EngineName.AIOQUIC, self._limits, self._certificate)
            return self._substitute.server(initial_destination_id, peer_id, retry_source_id, now)
        connection = Connection(
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
        if options.certificate is not None:
            check_certificate(options.certificate, CLIENT_NAMES)
            load_certificate(configuration, options.certificate, "qh3")
        connection = Connection(configuration=configuration)
        connection.connect(address, now)
        return Qh3Engine(connection, self._limits)

    def _configuration(self, *, is_client: bool) -> Configuration:
        limits = self._limits
        return Configuration(
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
