"""The reference engine, on aioquic: Python all the way, so every step can be read and traced.

All of aioquic's private names are used here and in `relay.quic.aioquic_tls`; `tests/relay/quic/test_engine_traps.py`
fails when a release changes what we rely on. What is done, and why:

- aioquic doubles its flow-control limits as data arrives, whoever reads it or not. We raise them by what was
  received instead (RFC 9000 §4.2), and not at all what a held stream received.
- One DATAGRAM frame that does not fit is never sent, never dropped, and blocks all later ones. So each is measured
  first. The queue has no bound of its own; ours drops the oldest.
- aioquic says CONNECTION_CLOSE once and never again. We say it again to a peer that did not hear it
  (RFC 9000 §10.2.1), less and less often.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final

from aioquic.quic import events as aioquic_events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import Limit, NetworkAddress, QuicConnection, QuicConnectionState
from aioquic.quic.packet import QuicFrameType, QuicProtocolVersion
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from relay.quic.aioquic_tls import ServerContext
from relay.quic.certificate import CLIENT_NAMES, check_authorities, check_certificate, load_certificate
from relay.quic.client_check import ClientVerifier
from relay.quic.engine import (
    ALL_STREAMS,
    CONNECTION_ID_LENGTH,
    Address,
    Burst,
    Certificate,
    ClientCheck,
    ClientOptions,
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

__all__ = ["AioquicEngine", "AioquicFactory"]

_FRAME_OVERHEAD: Final = 3
"DATAGRAM frame type and a two-byte length."
_PACKET_OVERHEAD: Final = 1 + 2 + 16
"Short header without the connection id: flags, packet number, AEAD tag."
_UNI_STREAMS: Final = 16
_LIMIT_FRAME: Final = 1 + 8
_STREAM_LIMIT_FRAME: Final = 1 + 8 + 8


class _Connection(QuicConnection):
    """aioquic's connection with flow-control windows that do not grow, and streams whose credit can be held."""

    limits: TransportLimits
    held: dict[int, int]
    "Held streams, and how far each was read when it was held."
    late_ends: dict[int, list[tuple[Callable[[int, int], None], int]]]
    clients: ClientVerifier | None

    def prepare(self, limits: TransportLimits, clients: ClientVerifier | None = None) -> None:
        """Set our limits; call before the first packet. A server with `clients` asks for their certificates."""
        self.limits = limits
        self.clients = clients
        self.held = {}
        self.late_ends = {}
        self._local_max_streams_bidi.value = self._local_max_streams_bidi.sent = limits.streams
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = _UNI_STREAMS
        if not self._is_client:
            self._host_cids[0].stateless_reset_token = reset_token(limits.reset_key, self.host_cid)

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        if not self._is_client:
            self.tls = ServerContext.of(self.tls, self.clients)

    @property
    def peer_certificate(self) -> bytes | None:
        tls = self.tls
        return tls.proven_certificate if isinstance(tls, ServerContext) else None

    def hold(self, stream_id: int) -> None:
        self.held.setdefault(stream_id, self._offset(stream_id))

    def _offset(self, stream_id: int) -> int:
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.receiver.starting_offset()

    def end_stream(self, end: Callable[[int, int], None], stream_id: int, code: int) -> None:
        """Reset or stop a stream now, or once the peer has room for it: aioquic would break the limit."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.is_blocked:
            self.late_ends.setdefault(stream_id, []).append((end, code))
        else:
            end(stream_id, code)

    def _unblock_streams(self, is_unidirectional: bool) -> None:
        super()._unblock_streams(is_unidirectional)
        for stream_id in [key for key in self.late_ends if not self._streams[key].is_blocked]:
            for end, code in self.late_ends.pop(stream_id):
                end(stream_id, code)

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None:
        if not stream.max_stream_data_local or stream.receiver.is_finished:
            return
        window = self.limits.stream_window
        wanted = stream.receiver.starting_offset() + window
        is_held = stream.stream_id in self.held or ALL_STREAMS in self.held
        if not is_held and wanted - stream.max_stream_data_local >= window // 2:
            stream.max_stream_data_local = wanted
        if stream.max_stream_data_local_sent != stream.max_stream_data_local:
            buffer = builder.start_frame(
                QuicFrameType.MAX_STREAM_DATA,
                capacity=_STREAM_LIMIT_FRAME,
                handler=self._on_max_stream_data_delivery,
                handler_args=(stream,),
            )
            buffer.push_uint_var(stream.stream_id or 0)
            buffer.push_uint_var(stream.max_stream_data_local)
            stream.max_stream_data_local_sent = stream.max_stream_data_local

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        data = self._local_max_data
        window = self.limits.connection_window
        wanted = data.used + window
        for stream_id, start in self.held.items():
            wanted -= max(0, self._offset(stream_id) - start)
        if wanted - data.value >= window // 2 and ALL_STREAMS not in self.held:
            data.value = wanted
        self._write_limit(builder, data)
        for streams in (self._local_max_streams_bidi, self._local_max_streams_uni):
            if streams.sent - streams.used < max(1, streams.value - streams.sent):
                self._write_limit(builder, streams)

    def _write_limit(self, builder: QuicPacketBuilder, limit: Limit) -> None:
        if limit.value != limit.sent:
            buffer = builder.start_frame(
                limit.frame_type,
                capacity=_LIMIT_FRAME,
                handler=self._on_connection_limit_delivery,
                handler_args=(limit,),
            )
            buffer.push_uint_var(limit.value)
            limit.sent = limit.value

    @property
    def is_started(self) -> bool:
        return bool(self._network_paths)

    @property
    def end_code(self) -> int | None:
        """The error code the connection ended with, as soon as either side closed it."""
        return None if self._close_event is None else self._close_event.error_code

    @property
    def is_over(self) -> bool:
        return self._state is QuicConnectionState.TERMINATED

    def is_closing(self) -> bool:
        """True from our CONNECTION_CLOSE until the end."""
        return self._state is QuicConnectionState.CLOSING

    def max_datagram_payload(self) -> int:
        path = self._max_datagram_size - _PACKET_OVERHEAD - len(self._peer_cid.cid)
        return max(0, min(path, self._remote_max_datagram_frame_size or 0) - _FRAME_OVERHEAD)

    def backlog(self, stream_id: int) -> int:
        stream = self._streams.get(stream_id)
        if stream is None:
            return 0
        return int(stream.sender._buffer_stop - stream.sender.highest_offset)

    def queue_datagram(self, payload: bytes) -> int:
        """Queue a payload that fits; how many older ones were dropped for it."""
        dropped = 0
        while len(self._datagrams_pending) >= self.limits.datagram_queue:
            self._datagrams_pending.popleft()
            dropped += 1
        self._datagrams_pending.append(payload)
        return dropped


class AioquicEngine:
    """One connection on aioquic; see `relay.quic.engine.Engine` for the contract."""

    holds_connection = False

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._events: list[Event] = []
        self._datagrams: list[bytes] = []
        self._max_payload = 0
        self._is_terminated = False
        self._last_words: list[Burst] = []
        "The packets of our CONNECTION_CLOSE."
        self._unheard = 0
        "Receives since then."
        self._repeats = False
        self.connection_id: bytes = connection.host_cid
        self.dropped_datagrams = 0

    @property
    def max_datagram_payload(self) -> int:
        return self._max_payload

    @property
    def peer_certificate(self) -> bytes | None:
        return self._connection.peer_certificate

    @property
    def is_over(self) -> bool:
        return self._connection.is_over

    def receive(self, data: bytes, segment: int, address: Address, now: float) -> None:
        if self._connection.is_closing():
            # After 1, 2, 4, 8... receives, so that two closed ends do not keep each other talking.
            self._unheard += 1
            self._repeats |= not self._unheard & (self._unheard - 1)
            return
        receive = self._connection.receive_datagram
        for start in range(0, len(data), segment):
            receive(data[start : start + segment], address, now)

    def take_events(self) -> list[Event]:
        self._translate()
        events, self._events = self._events, []
        return events

    def take_datagrams(self) -> list[bytes]:
        self._translate()
        datagrams, self._datagrams = self._datagrams, []
        return datagrams

    def send_stream(self, stream_id: int, data: bytes | memoryview, fin: bool = False) -> None:
        try:
            self._connection.send_stream_data(stream_id, bytes(data), fin)
        except (ValueError, RuntimeError):
            return  # the stream or the connection is over; its event says so

    def backlog(self, stream_id: int) -> int:
        return self._connection.backlog(stream_id)

    def hold(self, stream_id: int) -> None:
        self._connection.hold(stream_id)

    def release(self, stream_id: int) -> None:
        self._connection.held.pop(stream_id, None)

    def reset_stream(self, stream_id: int, code: int) -> None:
        try:
            self._connection.end_stream(self._connection.reset_stream, stream_id, code)
        except (ValueError, RuntimeError):
            return

    def stop_sending(self, stream_id: int, code: int) -> None:
        try:
            self._connection.end_stream(self._connection.stop_stream, stream_id, code)
        except ValueError:
            return

    def send_datagrams(self, prefix: bytes, data: bytes, segment: int) -> int:
        payloads = cut(prefix, data, segment, self._max_payload)
        for payload in payloads:
            self.dropped_datagrams += self._connection.queue_datagram(payload)
        return len(payloads)

    def transmit(self, now: float) -> list[Burst]:
        bursts: list[Burst] = []
        if self._connection.is_closing():
            if self._repeats:
                self._repeats = False
                return self._last_words
            return bursts
        if self._connection.is_started:
            destination: Address | None = None
            for payload, address in self._connection.datagrams_to_send(now):
                if address != destination:
                    destination = address
                    bursts.append(([], address))
                bursts[-1][0].append(payload)
            if self._connection.is_closing():
                self._last_words = bursts
        return bursts

    @property
    def has_sent_events(self) -> bool:
        return bool(self._connection._events)  # connection ids are made while packets are built

    def deadline(self) -> float | None:
        return self._connection.get_timer() if self._connection.is_started else None

    def on_deadline(self, now: float) -> None:
        self._connection.handle_timer(now)

    def close(self, code: int, reason: str = "") -> None:
        self._connection.close(error_code=code, reason_phrase=reason)

    def _translate(self) -> None:
        add = self._events.append
        while (event := self._connection.next_event()) is not None:
            match event:
                case aioquic_events.DatagramFrameReceived():
                    self._datagrams.append(event.data)
                case aioquic_events.StreamDataReceived():
                    add(StreamData(event.stream_id, event.data, event.end_stream))
                case aioquic_events.StreamReset():
                    add(StreamReset(event.stream_id, event.error_code))
                case aioquic_events.StopSendingReceived():
                    add(StopSending(event.stream_id, event.error_code))
                case aioquic_events.HandshakeCompleted():
                    self._max_payload = self._connection.max_datagram_payload()
                    add(Established(event.alpn_protocol))
                case aioquic_events.ConnectionIdIssued():
                    add(IdIssued(event.connection_id))
                case aioquic_events.ConnectionIdRetired():
                    add(IdRetired(event.connection_id))
                case _:
                    pass
        ended = self._connection.end_code
        if ended is not None and not self._is_terminated:
            self._is_terminated = True
            add(Terminated(ended))


class AioquicFactory:
    """Makes connections on aioquic."""

    def __init__(
        self, limits: TransportLimits, certificate: Certificate | None, clients: ClientCheck | None = None
    ) -> None:
        """Load the certificate, if any, and the authorities that clients' certificates must come from, if asked for.

        Raises:
            EngineError: aioquic does not take the certificate or its key, or the authorities cannot be read.
        """
        self._limits = limits
        self._clients = None if clients is None else ClientVerifier(clients)
        self._server = self._configuration(is_client=False)
        if certificate is not None:
            load_certificate(self._server, certificate, "aioquic")

    def server(
        self, initial_destination_id: bytes, peer_id: bytes, retry_source_id: bytes | None, now: float
    ) -> AioquicEngine:
        """See `relay.quic.engine.EngineFactory.server`."""
        connection = _Connection(
            configuration=self._server,
            original_destination_connection_id=initial_destination_id,
            retry_source_connection_id=retry_source_id,
        )
        connection.prepare(self._limits, self._clients)
        return AioquicEngine(connection)

    def client(self, options: ClientOptions, address: Address, now: float) -> AioquicEngine:
        """See `relay.quic.engine.EngineFactory.client`."""
        configuration = self._configuration(is_client=True)
        configuration.server_name = options.server_name
        configuration.alpn_protocols = list(options.alpn)
        if not options.is_verified:
            configuration.verify_mode = ssl.CERT_NONE
        if options.ca_file is not None:
            check_authorities(options.ca_file)
            configuration.load_verify_locations(str(options.ca_file))
        if options.certificate is not None:
            check_certificate(options.certificate, CLIENT_NAMES)
            load_certificate(configuration, options.certificate, "aioquic")
        connection = _Connection(configuration=configuration)
        connection.prepare(self._limits)
        peer: NetworkAddress = address
        connection.connect(peer, now)
        return AioquicEngine(connection)

    def _configuration(self, *, is_client: bool) -> QuicConfiguration:
        limits = self._limits
        return QuicConfiguration(
            is_client=is_client,
            alpn_protocols=["h3"],
            congestion_control_algorithm="cubic",
            connection_id_length=CONNECTION_ID_LENGTH,
            idle_timeout=limits.idle,
            max_data=limits.connection_window,
            max_stream_data=limits.stream_window,
            max_datagram_size=limits.max_datagram_size,
            max_datagram_frame_size=limits.max_datagram_frame_size,
            supported_versions=[QuicProtocolVersion.VERSION_1],
        )
