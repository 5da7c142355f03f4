"""Pages through a tunnel: HTTPS over CONNECT with Python's ssl, and HTTP/3 inside of CONNECT-UDP with aioquic."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from aioquic.h3.connection import ErrorCode, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, StreamReset

from .client import Client
from .tunnel import DriverError, Tunnel

__all__ = ["Page", "fetch_over_tcp", "fetch_over_udp"]

_MAX_HEAD = 65536


@dataclass(slots=True)
class Page:
    """What came."""

    protocol: str
    status: int = 0
    content: bytes | bytearray = b""

    def encode(self) -> dict[str, object]:
        """As the driver's protocol has it."""
        digest = hashlib.sha256(self.content).hexdigest()
        return {"status": self.status, "size": len(self.content), "sha256": digest, "protocol": self.protocol}


async def fetch_over_tcp(client: Client, tunnel: Tunnel, url: str, ca_file: str) -> Page:
    """Fetch over TLS and HTTP/1.1 (RFC 9112).

    Args:
        client: the connection to the relay.
        tunnel: an open TCP tunnel to the origin.
        url: the page.
        ca_file: PEM file with the authority of the origin's certificate.

    Raises:
        DriverError: the tunnel ended before the page.
        ssl.SSLError: TLS failed.
        ValueError: the answer is no HTTP/1.1.
    """
    parts = urlsplit(url)
    stream = _TlsStream(client, tunnel, parts.hostname or "", ca_file)
    await stream.handshake()
    head = f"GET {_path(parts)} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    await stream.send(head.encode("ascii"))
    received = bytearray()
    while b"\r\n\r\n" not in received:
        if len(received) > _MAX_HEAD:
            raise ValueError("a response without end of its head")
        received += await stream.receive(is_end_allowed=False)
    first, *lines = received[: received.index(b"\r\n\r\n")].decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "transfer-encoding" in fields:
        raise ValueError("a response with Transfer-Encoding, which is not read here")
    content = received[received.index(b"\r\n\r\n") + 4 :]
    length = int(fields["content-length"]) if "content-length" in fields else None
    while length is None or len(content) < length:
        piece = await stream.receive(is_end_allowed=length is None)
        if not piece:
            break
        content += piece
    return Page("http/1.1", int(first.split(" ")[1]), content)


class _TlsStream:
    """TLS over a tunnel, by memory BIOs."""

    def __init__(self, client: Client, tunnel: Tunnel, host: str, ca_file: str) -> None:
        context = ssl.create_default_context(cafile=ca_file)
        context.set_alpn_protocols(["http/1.1"])
        self._client = client
        self._tunnel = tunnel
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    async def handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._feed()
        self._flush()

    async def send(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    async def receive(self, *, is_end_allowed: bool) -> bytes:
        """Some bytes, or b"" at TLS's own end (close_notify)."""
        while True:
            try:
                return self._tls.read(65536)
            except ssl.SSLWantReadError:
                await self._feed()
            except ssl.SSLZeroReturnError:
                if is_end_allowed:
                    return b""
                raise DriverError("the origin ended TLS before the page") from None

    async def _feed(self) -> None:
        self._flush()
        await self._client.until(self._tunnel, self._tunnel.has_content)
        data = self._tunnel.take_content()
        if not data:
            raise DriverError(f"the tunnel ended before the page: {self._tunnel.ending}")
        self._incoming.write(data)

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self._client.send(self._tunnel, data)


async def fetch_over_udp(client: Client, tunnel: Tunnel, url: str, ca_file: str) -> Page:
    """Fetch over a QUIC connection of its own inside of the tunnel.

    Args:
        client: the connection to the relay.
        tunnel: an open UDP tunnel to the origin.
        url: the page.
        ca_file: PEM file with the authority of the origin's certificate.

    Raises:
        DriverError: the tunnel or the inner connection ended before the page.
    """
    return await _InnerConnection(client, tunnel, urlsplit(url), ca_file).fetch()


class _InnerConnection:
    """aioquic without a socket: its packets are the tunnel's payloads."""

    def __init__(self, client: Client, tunnel: Tunnel, url: SplitResult, ca_file: str) -> None:
        configuration = QuicConfiguration(alpn_protocols=["h3"], server_name=url.hostname)
        configuration.load_verify_locations(ca_file)
        self._client = client
        self._tunnel = tunnel
        self._url = url
        self._quic = QuicConnection(configuration=configuration)
        self._http = H3Connection(self._quic)
        self._address = (url.hostname or "", url.port or 443)
        self._clock = asyncio.get_running_loop().time
        self._content = bytearray()
        self._status = 0
        self._is_done = False

    async def fetch(self) -> Page:
        self._quic.connect(self._address, now=self._clock())
        stream_id = self._quic.get_next_available_stream_id()
        self._http.send_headers(stream_id, self._request(), end_stream=True)
        while not self._is_done:
            self._transmit()
            await self._receive()
        self._quic.close(ErrorCode.H3_NO_ERROR)
        self._transmit()
        return Page("h3", self._status, self._content)

    def _request(self) -> list[tuple[bytes, bytes]]:
        return [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", self._url.netloc.encode("ascii")),
            (b":path", _path(self._url).encode("ascii")),
        ]

    def _transmit(self) -> None:
        for packet, _ in self._quic.datagrams_to_send(now=self._clock()):
            if not self._client.send_payload(self._tunnel, packet):
                raise DriverError(f"a QUIC packet of {len(packet)} bytes does not fit the tunnel")
        self._client.transmit()

    async def _receive(self) -> None:
        """Wait for packets or the timer, and take what they mean."""
        timer = self._quic.get_timer()
        try:
            async with asyncio.timeout_at(timer):
                await self._client.until(self._tunnel, self._tunnel.has_payloads)
        except TimeoutError:
            self._quic.handle_timer(now=max(timer or 0.0, self._clock()))
        else:
            packets = self._tunnel.take_payloads(64)
            if not packets:
                raise DriverError(f"the tunnel ended before the page: {self._tunnel.ending}")
            for packet in packets:
                self._quic.receive_datagram(packet, self._address, now=self._clock())
        while (event := self._quic.next_event()) is not None:
            if isinstance(event, ConnectionTerminated | StreamReset):
                raise DriverError(f"the inner connection ended before the page: {event}")
            for found in self._http.handle_event(event):
                if isinstance(found, HeadersReceived):
                    self._status = int(dict(found.headers).get(b":status", b"0"))
                elif isinstance(found, DataReceived):
                    self._content += found.data
                if isinstance(found, HeadersReceived | DataReceived) and found.stream_ended:
                    self._is_done = True


def _path(url: SplitResult) -> str:
    return (url.path or "/") + (f"?{url.query}" if url.query else "")
