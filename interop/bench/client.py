"""The load generator's QUIC client on qh3, driven in batches over a socket of its own.

This is the only file of the benchmark that touches private names of qh3 (version 2.1): its native core takes a
joined buffer and gives events and packets with no Python object around them. The handshake goes through the public
interface, because TLS lives there.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable

from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection
from qh3.quic.events import StreamDataReceived
from qh3.tls import Epoch

from interop.bench.batches import Address, open_socket, receive_batch, send_batch
from interop.bench.http3 import ResponseStream, encode_preface

__all__ = ["Client"]

_READS = 64
_IDLE_SECONDS = 60.0
_DATAGRAM_BYTES = 1400
_CONNECTION_WINDOW = 64 << 20
_STREAM_WINDOW = 16 << 20
_H3_NO_ERROR = 0x0100


class Client:
    """One HTTP/3 connection to the server under test."""

    def __init__(self, server: Address) -> None:
        """Begin the handshake. A `Pool` moves it on.

        Args:
            server: the server's address.
        """
        self.server = server
        "The server's address."
        self.socket = open_socket(peer=server)
        "The connection's own socket."
        self.datagrams: list[bytes] = []
        "DATAGRAM payloads that have come; whoever reads them clears the list."
        self.streams: dict[int, ResponseStream] = {}
        "Request streams by id."
        self.is_closed = False
        "The connection is over."
        configuration = QuicConfiguration(
            alpn_protocols=["h3"],
            server_name="localhost",
            verify_mode=ssl.CERT_NONE,
            max_datagram_size=_DATAGRAM_BYTES,
            probe_datagram_size=False,
            max_datagram_frame_size=65_536,
            max_data=_CONNECTION_WINDOW,
            max_stream_data=_STREAM_WINDOW,
            idle_timeout=_IDLE_SECONDS,
        )
        self._quic = QuicConnection(configuration=configuration)
        self._quic.connect(server, time.monotonic())
        assert self._quic._core is not None
        self._core = self._quic._core
        self._quic.send_stream_data(self._quic.get_next_available_stream_id(True), encode_preface())

    @property
    def is_connected(self) -> bool:
        """The server has confirmed the handshake (HANDSHAKE_DONE, RFC 9001 §4.1.2)."""
        return bool(self._quic._handshake_confirmed)

    @property
    def deadline(self) -> float | None:
        """When `on_deadline` is due, or None."""
        timer = self._core.get_timer()
        return None if timer is None else timer[1]

    def open_request(self, head: bytes) -> int:
        """Open a request stream.

        Args:
            head: a HEADERS frame.

        Returns:
            The stream's id; its answer appears in `streams`.
        """
        stream_id = self._quic.get_next_available_stream_id()
        self._quic.send_stream_data(stream_id, head)
        self.streams[stream_id] = ResponseStream()
        return stream_id

    def send_stream(self, stream_id: int, data: bytes | memoryview, is_end: bool = False) -> None:
        """Queue bytes on a stream.

        Args:
            stream_id: an open request stream.
            data: what to send.
            is_end: the stream ends behind them.
        """
        self._core.send_stream(stream_id, data, is_end)

    def backlog(self, stream_id: int) -> int:
        """Count a stream's bytes that have not been sent.

        Args:
            stream_id: an open request stream.

        Returns:
            The number of bytes.
        """
        return self._core.get_send_buffer_size(stream_id)

    @property
    def send_datagram(self) -> Callable[[bytes], None]:
        """Queue one DATAGRAM; `flush` sends it."""
        return self._core.send_datagram

    def receive(self) -> None:
        """Take everything that waits in the socket, and the events it makes."""
        now = time.monotonic()
        for _ in range(_READS):
            try:
                batch = receive_batch(self.socket)
            except ConnectionRefusedError:
                continue
            if batch is None:
                break
            view, segment, _ = batch
            if self._quic._handshake_complete:
                self._core.receive_gro_buffer(bytes(view), segment, self.server, now)
                continue
            for start in range(0, len(view), segment):
                self._quic.receive_datagram(bytes(view[start : start + segment]), self.server, now)
            self._core = self._quic._require_core()
        self._take_events()

    def on_deadline(self, now: float) -> None:
        """Tell the connection that its deadline has passed.

        Args:
            now: the time.
        """
        self._core.handle_timer(now)
        self._take_events()

    def flush(self) -> None:
        """Send what the connection has to send."""
        now = time.monotonic()
        packets = []
        poll = self._core.poll_transmit
        while (transmit := poll(now)) is not None:
            packets.append(transmit[0])
        if packets:
            send_batch(self.socket, packets)

    def close(self) -> None:
        """Send the end of the connection and close the socket."""
        if not self.is_closed:
            self._quic.close(_H3_NO_ERROR)
            self.flush()
        self.is_closed = True
        self.socket.close()

    def _take_events(self) -> None:
        """Sort the events of both layers into fields of this object."""
        while (event := self._quic.next_event()) is not None:
            if isinstance(event, StreamDataReceived):
                self._receive_stream(event.stream_id, event.data, event.end_stream)
        core_event = self._core.next_event
        datagrams = self.datagrams
        while (native := core_event()) is not None:
            kind = native[0]
            if kind == "datagram":
                datagrams.append(native[1])
            elif kind == "stream_data":
                self._receive_stream(native[1], native[2], native[3])
            else:
                self._take_control(native)

    def _take_control(self, native: tuple[object, ...]) -> None:
        """Handle an event of the native core that is not data."""
        match native:
            case ("crypto_data", int(epoch), int(offset), bytes(data)):
                assert self._quic._tls is not None
                self._quic._tls.receive_crypto(Epoch(epoch), data, offset, version=self._core.version)
                self._quic._drain_tls()
            case ("handshake_done",):
                self._quic._handshake_confirmed = True
                self._core.handshake_confirmed()
            case ("stream_reset", int(stream_id), *_):
                self._receive_stream(stream_id, b"", True)
            case ("peer_closed" | "protocol_error" | "connection_terminated", *_):
                self.is_closed = True
            case _:
                pass

    def _receive_stream(self, stream_id: int, data: bytes, is_end: bool) -> None:
        """Give bytes to their request stream; the server's own streams are of no interest here."""
        stream = self.streams.get(stream_id)
        if stream is not None:
            stream.receive(data, is_end)
