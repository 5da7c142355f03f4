"""Targets on loopback for end-to-end tests: raw sockets, so that a test decides when one reads, ends or resets."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["TcpListener", "TcpPeer", "UdpOrigin", "closed_port", "tcp_echo", "tcp_listener", "udp_origin"]


class TcpPeer:
    """A target's end of one TCP connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._loop = asyncio.get_running_loop()

    async def receive(self, size: int = 65536) -> bytes:
        """The next bytes; b"" at the end. Raises ConnectionResetError after a reset."""
        return await self._loop.sock_recv(self.sock, size)

    async def receive_exactly(self, size: int) -> bytes:
        """Exactly so many bytes, or fewer when the stream ends before."""
        data = bytearray()
        while len(data) < size and (more := await self.receive(min(65536, size - len(data)))):
            data += more
        return bytes(data)

    async def receive_all(self) -> bytes:
        """All bytes up to the end."""
        data = bytearray()
        while more := await self.receive():
            data += more
        return bytes(data)

    async def send(self, data: bytes) -> None:
        """Send all."""
        await self._loop.sock_sendall(self.sock, data)

    def end(self) -> None:
        """Send FIN; receiving goes on."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Close."""
        self.sock.close()


class TcpListener:
    """A listening target; a test takes its connections with `accept`."""

    def __init__(self, host: str, port: int, *, receive_buffer: int | None = None) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.bind((host, port))
        self.sock.listen(512)
        self.sock.setblocking(False)
        self.port: int = self.sock.getsockname()[1]
        self.peers: list[TcpPeer] = []

    async def accept(self, within: float | None = 10.0) -> TcpPeer:
        """The next connection; TimeoutError when none comes, None waits for ever."""
        async with asyncio.timeout(within):
            sock, _ = await asyncio.get_running_loop().sock_accept(self.sock)
        peer = TcpPeer(sock)
        self.peers.append(peer)
        return peer

    def has_waiting(self) -> bool:
        """True when somebody connected and was not accepted."""
        try:
            sock, _ = self.sock.accept()
        except BlockingIOError:
            return False
        sock.close()
        return True

    def close(self) -> None:
        """Close the listener and all it accepted."""
        self.sock.close()
        for peer in self.peers:
            peer.close()


@asynccontextmanager
async def tcp_listener(
    host: str = "127.0.0.1", port: int = 0, *, receive_buffer: int | None = None
) -> AsyncIterator[TcpListener]:
    """A listener for the time of the context."""
    listener = TcpListener(host, port, receive_buffer=receive_buffer)
    try:
        yield listener
    finally:
        listener.close()


@asynccontextmanager
async def tcp_echo(host: str = "127.0.0.1") -> AsyncIterator[int]:
    """A target that sends everything back and ends when its peer ends; yields its port."""
    async with tcp_listener(host) as listener, asyncio.TaskGroup() as tasks:
        running: set[asyncio.Task[None]] = set()

        async def echo(peer: TcpPeer) -> None:
            try:
                while data := await peer.receive():
                    await peer.send(data)
            except OSError:
                pass  # a reset ends an echo too
            finally:
                peer.close()
                listener.peers.remove(peer)

        async def serve() -> None:
            while True:
                task = tasks.create_task(echo(await listener.accept(within=None)))
                running.add(task)
                task.add_done_callback(running.discard)

        server = tasks.create_task(serve())
        try:
            yield listener.port
        finally:
            server.cancel()
            for task in running:
                task.cancel()


class UdpOrigin:
    """A UDP target. asyncio's transport drops empty datagrams unseen, so it is a raw socket."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.sock.bind((host, 0))
        self.sock.setblocking(False)
        self.port: int = self.sock.getsockname()[1]
        self.senders: set[int] = set()
        self._loop = asyncio.get_running_loop()
        self._is_echoing = False

    async def receive(self) -> tuple[bytes, tuple[str, int]]:
        """The next payload and its sender; TimeoutError when none comes."""
        async with asyncio.timeout(10):
            return await self._loop.sock_recvfrom(self.sock, 65535)

    def send(self, payload: bytes, address: tuple[str, int]) -> None:
        """Send one payload."""
        self.sock.sendto(payload, address)

    def echo(self) -> None:
        """Send everything back from now on."""
        self._is_echoing = True
        self._loop.add_reader(self.sock, self._echo)

    def _echo(self) -> None:
        while True:
            try:
                payload, address = self.sock.recvfrom(65535)
                self.senders.add(address[1])
                self.sock.sendto(payload, address)
            except (BlockingIOError, ConnectionRefusedError):
                return

    def close(self) -> None:
        """Close the socket."""
        if self._is_echoing:
            self._loop.remove_reader(self.sock)
        self.sock.close()


@asynccontextmanager
async def udp_origin(host: str = "127.0.0.1", *, echoes: bool = False) -> AsyncIterator[UdpOrigin]:
    """A UDP target for the time of the context."""
    origin = UdpOrigin(host)
    if echoes:
        origin.echo()
    try:
        yield origin
    finally:
        origin.close()


@asynccontextmanager
async def closed_port(kind: int = socket.SOCK_STREAM) -> AsyncIterator[int]:
    """A port of 127.0.0.1 that nobody listens at and nobody else can take."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]
