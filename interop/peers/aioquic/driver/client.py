"""A connection to the relay on aioquic's HTTP/3 and its asyncio shell, both unchanged.

Nothing of the relay's own packages is imported: what is understood here was understood by other code. Capsules alone
are read and written by hand, because aioquic has none.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import urlsplit

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import ErrorCode, H3Connection, Setting
from aioquic.h3.events import DatagramReceived, DataReceived, H3Event, HeadersReceived
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamReset

from .request import Server, configure, connect_lines, connect_udp_lines
from .tunnel import DATAGRAM_CAPSULE, DriverError, Ending, Signal, Tunnel, encode_capsule

__all__ = ["Client", "connected"]

_PACKET_OVERHEAD = 1 + 2 + 16
"What aioquic's short header packets have besides frames and connection id: flags, packet number, AEAD tag."
_FRAME_OVERHEAD = 1 + 2
"A DATAGRAM frame's type and length (RFC 9221 §4)."
_PIECE = 65536


class Client(QuicConnectionProtocol):
    """aioquic's asyncio protocol with its HTTP/3 on top."""

    def __init__(self, quic: QuicConnection, server: Server, **options: Any) -> None:
        super().__init__(quic, **options)
        self.server = server
        # aioquic announces H3_DATAGRAM together with WebTransport, or not at all.
        self.http = H3Connection(quic, enable_webtransport=server.datagrams)
        self.changed = Signal()
        self.end: ConnectionTerminated | None = None
        self.transport: asyncio.DatagramTransport | None = None
        self._tunnels: dict[int, Tunnel] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, for migration."""
        super().connection_made(transport)
        self.transport = cast(asyncio.DatagramTransport, transport)

    def quic_event_received(self, event: QuicEvent) -> None:
        """Pass everything through aioquic's HTTP/3, and what comes out to the tunnels."""
        for found in self.http.handle_event(event):
            self._http_event_received(found)
        match event:
            case StreamReset() if event.stream_id in self._tunnels:
                self._tunnels[event.stream_id].finish(Ending("reset", event.error_code))
            case ConnectionTerminated():
                self.end = event
                for tunnel in self._tunnels.values():
                    tunnel.changed.happened()
        self.changed.happened()

    def _http_event_received(self, event: H3Event) -> None:
        if not isinstance(event, HeadersReceived | DataReceived | DatagramReceived):
            return
        tunnel = self._tunnels.get(event.stream_id)
        if tunnel is None:
            return
        match event:
            case DatagramReceived():
                if self.server.datagrams:  # else the relay had no leave to send it (RFC 9297 §2.1.1), so it is lost
                    tunnel.receive_datagram(event.data)
                return
            case HeadersReceived():
                tunnel.receive_headers(event.headers)
            case DataReceived():
                tunnel.receive_content(event.data)
        if event.stream_ended:
            tunnel.finish(Ending("fin", None))

    async def settings(self) -> dict[int, int]:
        """Wait for the relay's SETTINGS (RFC 9114 §7.2.4)."""
        await self.changed.until(lambda: self.http.received_settings is not None or self.end)
        self.check_open()
        return self.http.received_settings or {}

    async def open(self, kind: str, host: str, port: int, headers: Sequence[Sequence[str]], early: bytes) -> Tunnel:
        """Ask for a tunnel and wait for the answer; `early` goes out with the request.

        Raises:
            DriverError: there was no answer, or the relay does not offer this kind.
        """
        self.check_open()
        if kind == "tcp":
            lines = connect_lines(host, port)
        elif (self.http.received_settings or {}).get(Setting.ENABLE_CONNECT_PROTOCOL):
            lines = connect_udp_lines(self.server, host, port)
        else:
            raise DriverError("the relay has not announced SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 §3)")
        lines += [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
        stream_id = self._quic.get_next_available_stream_id()
        self.http.send_headers(stream_id, lines)
        tunnel = self._tunnels[stream_id] = Tunnel(stream_id, kind)
        if early and kind == "tcp":
            self.http.send_data(stream_id, early, end_stream=False)
        elif early and not self.send_payload(tunnel, early):
            raise DriverError(f"{len(early)} bytes do not fit a DATAGRAM frame")
        self.transmit()
        await self.until(tunnel, lambda: tunnel.status is not None or tunnel.ending)
        if tunnel.status is None:
            raise DriverError(f"the stream ended without an answer: {tunnel.ending}")
        if tunnel.status >= 300:
            # The relay is done with it; so are we (RFC 9114 §4.1.1).
            self._quic.reset_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
            self.transmit()
            del self._tunnels[stream_id]
        return tunnel

    def tunnel(self, number: int) -> Tunnel:
        """The open tunnel of that number. Raises DriverError when there is none."""
        try:
            return self._tunnels[number]
        except KeyError:
            raise DriverError(f"no tunnel {number}") from None

    def send(self, tunnel: Tunnel, data: bytes, *, end: bool = False) -> None:
        """Give content to aioquic, in DATA frames of a common size. It buffers what the relay has no room for."""
        self.check_open()
        for start in range(0, len(data), _PIECE):
            self.http.send_data(tunnel.stream_id, data[start : start + _PIECE], end_stream=False)
        if end:
            self.http.send_data(tunnel.stream_id, b"", end_stream=True)
        self.transmit()

    def send_payload(self, tunnel: Tunnel, payload: bytes, context: int = 0) -> bool:
        """Queue a UDP payload; `transmit` sends it. False when it does not fit.

        aioquic takes what does not fit too, and then sends no DATAGRAM frame any more, so it is measured first.
        """
        self.check_open()
        datagram = encode_uint_var(context) + payload
        if not self.server.datagrams:
            self.http.send_data(tunnel.stream_id, encode_capsule(DATAGRAM_CAPSULE, datagram), end_stream=False)
            return True
        if len(datagram) > self._room(tunnel):
            return False
        self.http.send_datagram(tunnel.stream_id, datagram)
        return True

    def max_payload(self, tunnel: Tunnel) -> int:
        """The largest UDP payload that fits a DATAGRAM frame; aioquic itself does not tell."""
        return self._room(tunnel) - len(encode_uint_var(0))

    def _room(self, tunnel: Tunnel) -> int:
        """Bytes for an HTTP Datagram's context and payload in a packet (RFC 9297 §2.1)."""
        if not self.server.datagrams or not (self.http.received_settings or {}).get(Setting.H3_DATAGRAM):
            raise DriverError("H3_DATAGRAM was not announced by both sides (RFC 9297 §2.1.1)")
        connection_id = len(self._quic._peer_cid.cid)  # of the relay's choosing; no public name tells it
        packet = self._quic.configuration.max_datagram_size - _PACKET_OVERHEAD - connection_id
        return packet - _FRAME_OVERHEAD - len(encode_uint_var(tunnel.stream_id // 4))

    def reset(self, tunnel: Tunnel, code: int) -> None:
        """Abandon both directions (RFC 9000 §3.5)."""
        self.check_open()
        self._quic.reset_stream(tunnel.stream_id, code)
        if tunnel.ending is None:
            self._quic.stop_stream(tunnel.stream_id, code)
        self.transmit()

    async def migrate(self) -> None:
        """Go on from a new local port, under another connection id (RFC 9000 §9.5), and wait until that works."""
        self.check_open()
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
        old = self.transport
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=sock)
        if old is not None:
            old.close()
        self.change_connection_id()
        await self.ping()

    async def until(self, tunnel: Tunnel, fact: Any) -> None:
        """Wait for a fact of a tunnel. Raises DriverError when the connection ends before."""
        await tunnel.changed.until(lambda: fact() or self.end)
        if not fact():
            self.check_open()

    def check_open(self) -> None:
        """Raise DriverError when the connection is over."""
        if self.end is not None:
            reason = f": {self.end.reason_phrase}" if self.end.reason_phrase else ""
            raise DriverError(f"the connection ended with code {self.end.error_code:#x}{reason}")


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Client]:
    """A connection to the relay; closed in order at the end.

    Args:
        server: the relay.

    Raises:
        DriverError: it could not be connected to.
    """
    made: list[Client] = []

    def create(quic: QuicConnection, **options: Any) -> Client:
        made.append(Client(quic, server, **options))
        return made[0]

    url = urlsplit(server.url)
    try:
        async with connect(
            url.hostname or "", url.port or 443, configuration=configure(server), create_protocol=create
        ) as client:
            assert isinstance(client, Client)
            try:
                yield client
            finally:
                client.close(ErrorCode.H3_NO_ERROR)
    except ConnectionError:
        if made:
            made[0].check_open()
        raise
    finally:
        for client in made:
            if client.transport is not None:
                client.transport.close()
