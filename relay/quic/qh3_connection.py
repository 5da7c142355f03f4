"""qh3's connection as the engine needs it: our limits in its core, its events sorted, its state by name.

With `relay.quic.qh3_engine` the only place where qh3's private names are used. When a release changes what we rely
on, `tests/relay/quic/test_engine_traps.py` fails. What is done, and why:

- Events are taken from the core by us (`Tap`), because taking an event is what gives the peer credit. While a stream
  is held nothing is taken, so the whole connection's reading waits (`Engine.holds_connection`).
- An address as the server's name goes into the ClientHello, where servers refuse it. We leave it out.
- Stream limits and the stateless reset token are fixed in qh3's Python; we build the core and the transport
  parameters ourselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final, cast

from qh3._hazmat import Buffer, QuicConnectionCore
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection, QuicConnectionState
from qh3.quic.packet import pull_quic_transport_parameters, push_quic_transport_parameters
from qh3.quic.tls_bridge import QuicTlsBridge

from relay.quic.engine import (
    Address,
    Event,
    IdIssued,
    IdRetired,
    StopSending,
    StreamData,
    StreamReset,
    TransportLimits,
)
from relay.quic.packet import reset_token

__all__ = ["Configuration", "Connection", "Tap"]

_UNI_STREAMS: Final = 16
"Unidirectional streams the peer may open; HTTP/3 needs three."


class Tap:
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
class Configuration(QuicConfiguration):
    """qh3's configuration, carrying our limits to where they are needed."""

    limits: TransportLimits = field(default_factory=TransportLimits)


class _Bridge(QuicTlsBridge):
    """Announces our stream limits instead of qh3's, and no address as a server's name (RFC 6066 §3)."""

    configuration: Configuration

    def __init__(self, configuration: Configuration, **options: Any) -> None:
        super().__init__(configuration, **options)
        tls: Any = self.tls
        name, send_hello = configuration.server_name, tls._client_send_hello
        if name is None or not _is_address(name):
            return

        def send_hello_unnamed(buffer: Buffer) -> None:
            """Servers refuse such a name; the certificate is checked for it all the same."""
            tls._server_name = None
            send_hello(buffer)
            tls._server_name = name

        tls._client_send_hello = send_hello_unnamed

    def serialize_transport_parameters(self) -> bytes:
        parameters = pull_quic_transport_parameters(Buffer(data=super().serialize_transport_parameters()))
        parameters.initial_max_streams_bidi = self.configuration.limits.streams
        parameters.initial_max_streams_uni = _UNI_STREAMS
        buffer = Buffer(capacity=1024)
        push_quic_transport_parameters(buffer, parameters)
        return buffer.data


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class Connection(QuicConnection):
    """qh3's connection with our limits in its core and `Tap` before it."""

    _configuration: Configuration
    tap: Tap

    def _create_core(self, remote_addr: Address, initial_dcid: bytes, now: float) -> None:
        limits = self._configuration.limits
        assert self._version is not None, "the version is chosen before the core is made"
        self.tap = Tap(
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
