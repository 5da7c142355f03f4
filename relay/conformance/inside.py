"""What travels inside of tunnels: HTTPS, and HTTP/3 on aioquic's own stack; neither has a socket of its own."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated

from relay.conformance.driver import DriverError, DriverTimeout, Fetched, Headers

__all__ = ["ByteTunnel", "OpenBytes", "OpenPayloads", "PayloadTunnel", "fetch_http1", "fetch_http3"]

_PATIENCE = 20.0
_LARGEST_HEAD = 65536
_ADDRESS = ("192.0.2.1", 443)
"The inner QUIC needs some address of its peer; nothing is sent there but through the tunnel (RFC 5737)."


@dataclass(frozen=True, slots=True)
class ByteTunnel:
    """A TCP tunnel for the code inside of it."""

    send: Callable[[bytes], Awaitable[None]]
    "Sends bytes."
    receive: Callable[[], Awaitable[bytes]]
    'The next bytes; b"" at the end.'


@dataclass(frozen=True, slots=True)
class PayloadTunnel:
    """A UDP tunnel for the code inside of it."""

    send: Callable[[list[bytes]], Awaitable[int]]
    "Sends payloads."
    receive: Callable[[float], Awaitable[list[bytes]]]
    "What came within so many seconds."


OpenBytes = Callable[[str, int, Headers], Awaitable[ByteTunnel]]
"Opens a TCP tunnel to a host and port, with these field lines."
OpenPayloads = Callable[[str, int, Headers], Awaitable[PayloadTunnel]]
"Opens a UDP tunnel to a host and port, with these field lines."


@dataclass(slots=True)
class _Page:
    """A page as it arrives."""

    status: int = 0
    content: bytearray = field(default_factory=bytearray)
    is_whole: bool = False

    def fetched(self, protocol: str) -> Fetched:
        """The result."""
        return Fetched(self.status, len(self.content), hashlib.sha256(self.content).hexdigest(), protocol)


async def fetch_http1(open_tunnel: OpenBytes, url: str, ca_file: str, headers: Headers) -> Fetched:
    """Fetch a page over TLS and HTTP/1.1 through a TCP tunnel.

    Args:
        open_tunnel: makes the tunnel.
        url: `https://host:port/path`.
        ca_file: PEM file with the origin's authority.
        headers: field lines of the request for the tunnel.

    Raises:
        DriverError: the tunnel, TLS or the origin failed.
    """
    place = urlsplit(url)
    tunnel = await open_tunnel(place.hostname or "", place.port or 443, headers)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=ca_file)
    tls = context.wrap_bio(incoming, outgoing, server_hostname=place.hostname)

    async def turn() -> None:
        """Send what TLS wants to send, and give it what came."""
        if sent := outgoing.read():
            await tunnel.send(sent)
        received = await tunnel.receive()
        incoming.write(received) if received else incoming.write_eof()

    async def read() -> bytes:
        while True:
            try:
                return tls.read(65536)
            except ssl.SSLWantReadError:
                await turn()

    try:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await turn()
        tls.write(f"GET {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
        return (await _read_http1(read)).fetched("http/1.1")
    except ssl.SSLError as error:
        raise DriverError(f"TLS inside of the tunnel: {error}") from error


async def _read_http1(read: Callable[[], Awaitable[bytes]]) -> _Page:
    """Read one response that has a Content-Length."""
    data = bytearray()
    while b"\r\n\r\n" not in data:
        more = await read()
        if not more or len(data) > _LARGEST_HEAD:
            raise DriverError("the origin's answer has no head")
        data += more
    head, _, rest = bytes(data).partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    page = _Page(int(lines[0].split(" ")[1]), bytearray(rest))
    size = int(fields.get("content-length", "0"))
    while len(page.content) < size:
        more = await read()
        if not more:
            break
        page.content += more
    return page


async def fetch_http3(
    open_tunnel: OpenPayloads, url: str, ca_file: str, headers: Headers, patience: float = _PATIENCE
) -> Fetched:
    """Fetch a page over HTTP/3 through a UDP tunnel, within `patience` seconds; otherwise as `fetch_http1`."""
    place = urlsplit(url)
    tunnel = await open_tunnel(place.hostname or "", place.port or 443, headers)
    quic = QuicConnection(configuration=_configure(place.hostname, ca_file))
    loop = asyncio.get_running_loop()
    quic.connect(_ADDRESS, now=loop.time())
    http = H3Connection(quic)
    page = _ask_http3(http, quic, place)
    give_up_at = loop.time() + patience
    while not page.is_whole:
        if loop.time() > give_up_at:
            raise DriverTimeout("timeout: no page over HTTP/3 in the tunnel")
        await tunnel.send([payload for payload, _ in quic.datagrams_to_send(now=loop.time())])
        timer = quic.get_timer()
        wait = 0.5 if timer is None else min(0.5, max(0.0, timer - loop.time()))
        for payload in await tunnel.receive(wait):
            quic.receive_datagram(payload, _ADDRESS, now=loop.time())
        if timer is not None and loop.time() >= timer:
            quic.handle_timer(now=loop.time())
        _take_http3(http, quic, page)
    quic.close()
    await tunnel.send([payload for payload, _ in quic.datagrams_to_send(now=loop.time())])
    return page.fetched("h3")


def _configure(host: str | None, ca_file: str) -> QuicConfiguration:
    """Configure the inner client; its packets are the smallest that QUIC allows, so that they fit any tunnel."""
    configuration = QuicConfiguration(
        alpn_protocols=["h3"], server_name=host, max_datagram_size=1200, idle_timeout=_PATIENCE
    )
    configuration.load_verify_locations(cadata=Path(ca_file).read_bytes())
    return configuration


def _ask_http3(http: H3Connection, quic: QuicConnection, place: SplitResult) -> _Page:
    """Send the request; it leaves with the handshake's end."""
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", place.netloc), (":path", place.path)]
    stream_id = quic.get_next_available_stream_id()
    http.send_headers(stream_id, [(name.encode(), value.encode()) for name, value in fields], end_stream=True)
    return _Page()


def _take_http3(http: H3Connection, quic: QuicConnection, page: _Page) -> None:
    """Take what the inner connection received. Raises DriverError when it is over."""
    while (event := quic.next_event()) is not None:
        if isinstance(event, ConnectionTerminated):
            raise DriverError(f"the connection inside of the tunnel ended: {event.reason_phrase or event.error_code}")
        for part in http.handle_event(event):
            if isinstance(part, HeadersReceived):
                page.status = int(dict(part.headers).get(b":status", b"0"))
                page.is_whole = part.stream_ended
            elif isinstance(part, DataReceived):
                page.content += part.data
                page.is_whole = part.stream_ended
