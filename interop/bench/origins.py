"""The origins behind the relay, each in a process of its own.

    python -m interop.bench.origins udp    echoes datagrams, in batches
    python -m interop.bench.origins tcp    sends zeros, or counts what it receives

Each prints its port and serves until its standard input ends. A TCP connection begins with nine bytes: `D` and
how many zeros to send, or `U` and anything; after an upload's end the origin answers with the count, eight bytes.
"""

from __future__ import annotations

import selectors
import socket
import sys

from interop.bench.batches import open_socket, receive_batch, send_segments

__all__ = ["COMMAND_BYTES", "DOWNLOAD", "UPLOAD", "encode_command", "serve_tcp", "serve_udp"]

COMMAND_BYTES = 9
"Bytes of a command."
DOWNLOAD = b"D"
"Send as many zeros as the command says, then end."
UPLOAD = b"U"
"Count until the end, then answer with the count."

_CHUNK = 256 << 10
_READS = 64


def encode_command(kind: bytes, size: int) -> bytes:
    """Encode what a TCP origin shall do.

    Args:
        kind: DOWNLOAD or UPLOAD.
        size: how many bytes.

    Returns:
        The first bytes of the connection.
    """
    return kind + size.to_bytes(COMMAND_BYTES - 1, "big")


def serve_udp() -> None:
    """Echo datagrams until standard input ends. Prints the port first."""
    sock = open_socket()
    print(sock.getsockname()[1], flush=True)
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while all(key.fileobj is sock for key, _ in selector.select()):
            for _ in range(_READS):
                try:
                    batch = receive_batch(sock)
                    if batch is None:
                        break
                    payload, segment, sender = batch
                    send_segments(sock, payload, segment, sender)
                except OSError:
                    continue


class _Exchange:
    """One TCP connection: its command, and how far it has got."""

    _zeros = memoryview(bytes(_CHUNK))
    _sink = bytearray(_CHUNK)

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._command = b""
        self._left = 0
        self._counted = 0

    def on_ready(self) -> int:
        """Do what the socket allows now.

        Returns:
            The events to wait for next, or 0 at the end.
        """
        if len(self._command) < COMMAND_BYTES:
            data = self._socket.recv(COMMAND_BYTES - len(self._command))
            self._command += data
            self._left = int.from_bytes(self._command[1:], "big")
            return selectors.EVENT_READ if data else 0
        if self._command.startswith(DOWNLOAD):
            return self._send_zeros()
        return self._count()

    def _send_zeros(self) -> int:
        """Send zeros until the kernel takes no more."""
        if self._left:
            self._left -= self._socket.send(self._zeros[: min(self._left, _CHUNK)])
        return selectors.EVENT_WRITE if self._left else 0

    def _count(self) -> int:
        """Count what has come; answer at the end."""
        size = self._socket.recv_into(self._sink)
        self._counted += size
        if size:
            return selectors.EVENT_READ
        self._socket.sendall(self._counted.to_bytes(8, "big"))
        return 0

    def wanted(self) -> int:
        """Tell which event moves a connection on that has just read its command."""
        is_download = len(self._command) == COMMAND_BYTES and self._command.startswith(DOWNLOAD)
        return selectors.EVENT_WRITE if is_download else selectors.EVENT_READ


def serve_tcp() -> None:
    """Serve downloads and uploads until standard input ends. Prints the port first."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    print(listener.getsockname()[1], flush=True)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    return
                if key.data is None:
                    sock, _ = listener.accept()
                    sock.setblocking(False)
                    selector.register(sock, selectors.EVENT_READ, _Exchange(sock))
                else:
                    _serve_ready(selector, key)


def _serve_ready(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    """Move one connection on, and close it at its end."""
    exchange: _Exchange = key.data
    sock = key.fileobj
    assert isinstance(sock, socket.socket)
    try:
        wanted = exchange.on_ready() and exchange.wanted()
    except BlockingIOError:
        return
    except OSError:
        wanted = 0
    if not wanted:
        selector.unregister(sock)
        sock.close()
    elif wanted != key.events:
        selector.modify(sock, wanted, exchange)


if __name__ == "__main__":
    serve_udp() if sys.argv[1:] == ["udp"] else serve_tcp()
