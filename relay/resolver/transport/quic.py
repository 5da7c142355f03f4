"""DNS over QUIC: one connection, one stream for each question (RFC 9250)."""

from __future__ import annotations

import asyncio
import socket
import ssl

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    HandshakeCompleted,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

from relay.resolver.query import MAX_SIGNED_MESSAGE, Query
from relay.resolver.transport.connection import Closed, Connection
from relay.resolver.transport.udp import connected_socket
from relay.settings import Upstream

__all__ = ["QuicUpstreamConnection", "connect_quic"]

_NO_ERROR = 0x0
_EXCESSIVE_LOAD = 0x4
_REQUEST_CANCELLED = 0x3
"Codes of RFC 9250 §8.4."
_LARGEST = 65535


class QuicUpstreamConnection(Connection):
    """A client's QUIC connection on a socket of its own. The message's id is 0 (RFC 9250 §4.2.1)."""

    def __init__(
        self, sock: socket.socket, configuration: QuicConfiguration, upstream: Upstream, idle: float
    ) -> None:
        """Send the first packet; questions may be asked at once and leave when the handshake allows it."""
        super().__init__(idle)
        self._sock = sock
        self._address = (str(upstream.address), upstream.port)
        self._quic = QuicConnection(configuration=configuration)
        self._timer: asyncio.TimerHandle | None = None
        self._received: dict[int, bytearray] = {}
        self._is_complete = False
        self._quic.connect(self._address, now=self._loop.time())
        self._flush()

    def _send(self, query: Query) -> int:
        stream = self._quic.get_next_available_stream_id()
        self._quic.send_stream_data(stream, len(query.wire).to_bytes(2, "big") + query.wire, end_stream=True)
        self._received[stream] = bytearray()
        self._flush()
        return stream

    def _cancel(self, key: int) -> None:
        if self._received.pop(key, None) is not None:
            self._quic.stop_stream(key, _REQUEST_CANCELLED)
            self._flush()

    async def _receive(self) -> None:
        while True:
            data = await self._loop.sock_recv(self._sock, _LARGEST)
            self._heard()
            self._quic.receive_datagram(data, self._address, self._loop.time())
            self._handle_events()
            if not self.is_open and not self._pending:
                return
            self._flush()

    def _handle_events(self) -> None:
        """Handle all there are.

        Raises:
            OSError: the handshake failed.
            Closed: the connection is over.
        """
        while (event := self._quic.next_event()) is not None:
            if isinstance(event, ConnectionTerminated):
                raise Closed if self._is_complete else OSError("the upstream's handshake failed")
            if isinstance(event, HandshakeCompleted):
                self._is_complete = True
            else:
                self._on_stream(event)

    def _on_stream(self, event: QuicEvent) -> None:
        if not isinstance(event, StreamDataReceived | StreamReset | StopSendingReceived):
            return
        stream = event.stream_id
        received = self._received.get(stream)
        if received is None:
            return
        if not isinstance(event, StreamDataReceived):
            del self._received[stream]
            self._fail(stream, OSError("the upstream refuses the question"))
            return
        received += event.data
        if len(received) > MAX_SIGNED_MESSAGE + 2:
            del self._received[stream]
            self._quic.stop_stream(stream, _EXCESSIVE_LOAD)
            self._fail(stream, OSError("the response is too long"))
        elif event.end_stream:
            del self._received[stream]
            if len(received) >= 2 and int.from_bytes(received[:2], "big") == len(received) - 2:
                self._settle(stream, bytes(received[2:]), 0)
            self._fail(stream, OSError("the upstream has no DNS message for the question"))

    def _flush(self) -> None:
        """Send what is due, and wake up when the connection wants it."""
        for data, _ in self._quic.datagrams_to_send(self._loop.time()):
            try:
                self._sock.send(data)
            except OSError:
                pass  # lost, as datagrams are; the timer or the reader will find out
        if self._timer is not None:
            self._timer.cancel()
        due = self._quic.get_timer()
        self._timer = None if due is None else self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._quic.handle_timer(self._loop.time())
        self._flush()
        if self._quic.get_timer() is None:
            self._end()

    def _end(self) -> None:
        """Stop receiving: the connection has ended by a timer."""
        self.is_open = False
        for stream in tuple(self._pending):
            self._fail(stream, Closed() if self._is_complete else OSError("the upstream is silent"))
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._quic.close(_NO_ERROR)
        for data, _ in self._quic.datagrams_to_send(self._loop.time()):
            try:
                self._sock.send(data)
            except OSError:
                break
        self._sock.close()


async def connect_quic(upstream: Upstream, idle: float) -> QuicUpstreamConnection:
    """Begin a connection for DNS over QUIC; a handshake that fails shows when a question is asked.

    The library reads the trusted certificates anew at each handshake, and takes no store made before: 3 to 4 ms on
    the loop for those of a system, much less for a `ca_file`.

    Raises:
        OSError: there is no route to the upstream.
    """
    configuration = QuicConfiguration(alpn_protocols=["doq"], server_name=upstream.server_name, idle_timeout=idle)
    trusted = ssl.get_default_verify_paths()
    if upstream.ca_file is not None:
        configuration.load_verify_locations(str(upstream.ca_file))
    elif trusted.cafile or trusted.capath:
        configuration.load_verify_locations(trusted.cafile, trusted.capath)
    return QuicUpstreamConnection(connected_socket(upstream), configuration, upstream, idle)
