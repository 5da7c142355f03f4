"""Web pages as targets: HTTPS over TCP with HTTP/1.1 (RFC 9112), and HTTP/3 on aioquic's own stack (RFC 9114).

    /page       a page with a style sheet, a script and a picture
    /bytes/N    N bytes of the pattern

Both servers are as small as they can be: they prove that a browser's or a library's own TLS and QUIC go through a
tunnel unharmed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent

from relay.conformance.driver import pattern
from relay.conformance.listener import listening
from relay.quic.development import write_certificates

__all__ = ["PAGE", "Pages", "answer_path", "serve_pages"]

PAGE = (
    b'<!doctype html><html lang="en"><head><title>origin</title>'
    b'<link rel="stylesheet" href="/style.css"><script src="/script.js"></script></head>'
    b'<body><p>through the relay</p><img src="/picture.svg" alt="a square"></body></html>\n'
)
"The page of `/page`."
_PARTS = {
    "/page": ("text/html; charset=utf-8", PAGE),
    "/style.css": ("text/css", b"p { color: #333; }\n"),
    "/script.js": ("text/javascript", b"document.documentElement.dataset.script = 'ran';\n"),
    "/picture.svg": (
        "image/svg+xml",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>\n',
    ),
}
_LARGEST = 1 << 26
_HEAD_SECONDS = 30.0
_PIECE = 65536


@dataclass(frozen=True, slots=True)
class Pages:
    """Where the pages are."""

    tcp: int
    "Port of HTTPS over TCP."
    udp: int
    "Port of HTTP/3."
    ca_file: Path
    "PEM file with the authority of their certificate."


def answer_path(path: str) -> tuple[int, str, bytes]:
    """Answer a GET.

    Args:
        path: the request's path.

    Returns:
        Status, media type and content.
    """
    if path in _PARTS:
        return 200, *_PARTS[path]
    size = path.removeprefix("/bytes/")
    if size != path and size.isdecimal() and len(size) < 10 and int(size) <= _LARGEST:
        return 200, "application/octet-stream", pattern(int(size))
    return 404, "text/plain", b"try /page or /bytes/1000\n"


class _PageProtocol(QuicConnectionProtocol):
    """One HTTP/3 connection."""

    _http: H3Connection | None = None
    _path: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._path = transport
        super().connection_made(transport)

    def transmit(self) -> None:
        """Send what waits; a timer of a connection may fire after the server has closed."""
        if self._path is not None and not self._path.is_closing():
            super().transmit()

    def quic_event_received(self, event: QuicEvent) -> None:
        """Answer what the event asks for."""
        if isinstance(event, ProtocolNegotiated):
            self._http = H3Connection(self._quic)
        if self._http is not None:
            for http_event in self._http.handle_event(event):
                self._answer(http_event)

    def _answer(self, event: H3Event) -> None:
        if self._http is None or not isinstance(event, HeadersReceived):
            return
        fields = dict(event.headers)
        status, kind, content = answer_path(fields.get(b":path", b"").decode("ascii", "replace"))
        head = [
            (b":status", b"%d" % status),
            (b"content-type", kind.encode()),
            (b"content-length", b"%d" % len(content)),
        ]
        self._http.send_headers(event.stream_id, head)
        self._http.send_data(event.stream_id, content, end_stream=True)
        self.transmit()


async def _serve_http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection over TLS and TCP, kept alive between requests."""
    while True:
        async with asyncio.timeout(_HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        _, path, *_ = head.split(b" ", 2)
        status, kind, content = answer_path(path.decode("ascii", "replace"))
        fields = f"Content-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
        writer.write(f"HTTP/1.1 {status} -\r\n{fields}\r\n".encode())
        for start in range(0, len(content), _PIECE):
            writer.write(content[start : start + _PIECE])
            await writer.drain()


@asynccontextmanager
async def serve_pages(host: str, folder: Path, names: tuple[str, ...]) -> AsyncIterator[Pages]:
    """Serve the pages for the time of the context.

    Args:
        host: the address to listen on.
        folder: an existing folder, for certificate and key.
        names: names and addresses for the certificate.

    Raises:
        OSError: the address or the folder cannot be used.
        ValueError: one of `names` is neither a name nor an address.
    """
    write_certificates(folder, sorted({host, *names}))
    certificate, key = folder / "server.pem", folder / "server.key"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    configuration = QuicConfiguration(alpn_protocols=["h3"], is_client=False, max_datagram_frame_size=65536)
    configuration.load_cert_chain(certificate, key)
    over_quic, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: QuicServer(configuration=configuration, create_protocol=_PageProtocol), local_addr=(host, 0)
    )
    try:
        async with listening(_serve_http1, host, context) as port:
            yield Pages(port, over_quic.get_extra_info("sockname")[1], folder / "ca.pem")
    finally:
        over_quic.close()
