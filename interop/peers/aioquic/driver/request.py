"""The relay, the connection to it, and the requests for tunnels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.logger import QuicFileLogger

__all__ = ["Lines", "Server", "configure", "connect_lines", "connect_udp_lines"]

_PACKET_SIZE = 1350
"Large enough for an inner QUIC handshake, which needs payloads of 1200 bytes (RFC 9000 §14.1)."
_MAX_DATAGRAM_FRAME = 65536

Lines = list[tuple[bytes, bytes]]
"Field lines as aioquic takes them."


@dataclass(frozen=True, slots=True)
class Server:
    """The relay, and how to connect to it."""

    url: str
    "`https://host:port`."
    ca_file: str
    "PEM file with the authority to trust."
    template: str
    "Of CONNECT-UDP, a path with `{target_host}` and `{target_port}`."
    datagrams: bool = True
    "Announce H3_DATAGRAM, and send DATAGRAM frames; else DATAGRAM capsules."
    qlog: str = ""
    "A folder for qlogs, or empty."


def configure(server: Server) -> QuicConfiguration:
    """Make aioquic's configuration. Raises OSError when the folder for qlogs cannot be made."""
    configuration = QuicConfiguration(
        alpn_protocols=["h3"], max_datagram_size=_PACKET_SIZE, max_datagram_frame_size=_MAX_DATAGRAM_FRAME
    )
    configuration.load_verify_locations(server.ca_file)
    if server.qlog:
        Path(server.qlog).mkdir(parents=True, exist_ok=True)
        configuration.quic_logger = QuicFileLogger(server.qlog)
    return configuration


def connect_lines(host: str, port: int) -> Lines:
    """Make a CONNECT request (RFC 9114 §4.4)."""
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return [(b":method", b"CONNECT"), (b":authority", authority.encode("ascii"))]


def connect_udp_lines(server: Server, host: str, port: int) -> Lines:
    """Make a CONNECT-UDP request (RFC 9298 §3.4)."""
    path = server.template.replace("{target_host}", quote(host, safe="")).replace("{target_port}", str(port))
    return [
        (b":method", b"CONNECT"),
        (b":protocol", b"connect-udp"),
        (b":scheme", b"https"),
        (b":authority", urlsplit(server.url).netloc.encode("ascii")),
        (b":path", path.encode("ascii")),
        (b"capsule-protocol", b"?1"),
    ]
