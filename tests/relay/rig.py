"""A relay in this process, origins on loopback, and what tests of both need: all real sockets, no fixed port."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from relay.auth import generate_key, preshared_entry
from relay.client import RelayClient, RelayOptions, connect_relay
from relay.hooks import Application
from relay.quic.engine import EngineName
from relay.server import Server, prepare
from relay.settings import load_settings
from relay.telemetry import CounterMetrics

__all__ = [
    "PATIENCE",
    "Relay",
    "TcpOrigin",
    "UdpOrigin",
    "Wire",
    "black_hole",
    "echo",
    "eventually",
    "open_sockets",
    "running_relay",
    "tcp_origin",
    "udp_origin",
    "wire_to",
]

PATIENCE = 10.0
"Seconds after which a test gives up on what must happen."

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def eventually(condition: Callable[[], bool]) -> None:
    """Let the loop run until `condition` holds. Raises TimeoutError when it does not come to hold."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.001)


def open_sockets() -> set[str]:
    """The sockets this process has open, by inode."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if link.startswith("socket:"):
            found.add(link)
    return found


@dataclass
class Relay:
    """A relay that serves."""

    server: Server
    metrics: CounterMetrics
    key: str
    folder: Path
    engine: EngineName

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.address[1]

    @property
    def options(self) -> RelayOptions:
        """Options of a client that this relay accepts."""
        return RelayOptions(
            f"https://127.0.0.1:{self.port}",
            key=self.key,
            ca_file=self.folder / "ca.pem",
            engine=self.engine,
            timeout=PATIENCE,
        )

    @asynccontextmanager
    async def client(self, options: RelayOptions | None = None) -> AsyncIterator[RelayClient]:
        """A connected client."""
        async with connect_relay(options or self.options) as client:
            yield client


@asynccontextmanager
async def running_relay(
    folder: Path,
    *applications: Application,
    key: str | None = None,
    engine: EngineName = EngineName.QH3,
    **changes: str,
) -> AsyncIterator[Relay]:
    """A relay on a free port; `folder` holds its certificate. Settings as `limits__drain="1s"`."""
    key = key or generate_key()
    values = {
        "tls.certificate": str(folder / "server.pem"),
        "tls.private_key": str(folder / "server.key"),
        "listen.port": "0",
        "auth.preshared": f'["{preshared_entry(key)}"]',
        "policy.allow": '["127.0.0.0/8", "::1/128"]',
        "resolver.upstreams": '["127.0.0.1"]',
        "quic.engine": engine.value,
        "limits.drain": "5s",
    }
    values |= {name.replace("__", "."): value for name, value in changes.items()}
    metrics = CounterMetrics()
    server = Server(prepare(load_settings(None, {}, values)), metrics, applications)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(server.run())
        await server.is_ready.wait()
        yield Relay(server, metrics, key, folder, engine)
        server.stop()
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([running])


@dataclass
class TcpOrigin:
    """A TCP server and who came."""

    port: int
    peers: list[str] = field(default_factory=list)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, and its end."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


@asynccontextmanager
async def tcp_origin(handler: Handler = echo, *, has_small_buffers: bool = False) -> AsyncIterator[TcpOrigin]:
    """A TCP origin; handlers left over at the end are cancelled."""
    tasks: set[asyncio.Task[None]] = set()
    origin = TcpOrigin(0)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(cast("asyncio.Task[None]", asyncio.current_task()))
        origin.peers.append(writer.get_extra_info("peername")[0])
        try:
            await handler(reader, writer)
        except OSError:
            writer.transport.abort()
        finally:
            writer.close()

    listener = socket.create_server(("127.0.0.1", 0))
    if has_small_buffers:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
    server = await asyncio.start_server(accept, sock=listener, limit=4096 if has_small_buffers else 1 << 16)
    try:
        origin.port = server.sockets[0].getsockname()[1]
        yield origin
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class UdpOrigin:
    """A UDP server that sends back what comes, empty datagrams too."""

    def __init__(self, sock: socket.socket) -> None:
        self.port: int = sock.getsockname()[1]
        self.peers: list[str] = []
        self._socket = sock

    def ready(self) -> None:
        """A datagram is there."""
        data, sender = self._socket.recvfrom(65535)
        self.peers.append(sender[0])
        self._socket.sendto(data, sender)


@asynccontextmanager
async def udp_origin() -> AsyncIterator[UdpOrigin]:
    """A UDP origin."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        origin = UdpOrigin(sock)
        loop.add_reader(sock, origin.ready)
        try:
            yield origin
        finally:
            loop.remove_reader(sock)


@contextmanager
def black_hole(host: str, port: int = 0) -> Iterator[int]:
    """A port that answers no new connection: its queue of accepted ones is full. Yields the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener, socket.socket(family, socket.SOCK_STREAM) as filler:
        listener.bind((host, port))
        listener.listen(0)
        filler.connect(listener.getsockname())
        yield listener.getsockname()[1]


class Wire:
    """A path between clients and a relay that can be cut: a UDP port that passes packets on, both ways."""

    def __init__(self, outer: socket.socket, inner: socket.socket) -> None:
        self.port: int = outer.getsockname()[1]
        self.is_cut = False
        self._outer = outer
        self._inner = inner
        self._client: tuple[str, int] | None = None

    def from_client(self) -> None:
        """A packet for the relay."""
        data, self._client = self._outer.recvfrom(65535)
        if not self.is_cut:
            self._inner.send(data)

    def from_relay(self) -> None:
        """A packet for the client."""
        data = self._inner.recv(65535)
        if self._client is not None and not self.is_cut:
            self._outer.sendto(data, self._client)


@asynccontextmanager
async def wire_to(port: int) -> AsyncIterator[Wire]:
    """A path to a relay on this port, for one client."""
    loop = asyncio.get_running_loop()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outer,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inner,
    ):
        outer.bind(("127.0.0.1", 0))
        inner.connect(("127.0.0.1", port))
        outer.setblocking(False)
        inner.setblocking(False)
        wire = Wire(outer, inner)
        loop.add_reader(outer, wire.from_client)
        loop.add_reader(inner, wire.from_relay)
        try:
            yield wire
        finally:
            loop.remove_reader(outer)
            loop.remove_reader(inner)
