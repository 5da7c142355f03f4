"""A small origin to try the relay against: `python -m interop.origin [--tcp PORT] [--udp PORT] [--size BYTES]`.

On 127.0.0.1 only. Over TCP it speaks just enough HTTP/1.1 (RFC 9112) for a browser or curl, one request to a
connection; over UDP it sends every datagram back. Port 0 takes any free port.

    GET /           a page that says what arrived, and from where
    GET /bytes/N    N bytes that are always the same; without N, as many as --size says
    POST anything   counts the body and answers with its size and SHA-256 (PUT too)
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus

__all__ = ["Request", "digest_of_bytes", "main", "parse_head", "pieces"]

_HOST = "127.0.0.1"
_PIECE = 65536
_MAX_HEAD = 65536
_MAX_BYTES = 1 << 40
_HEAD_SECONDS = 60.0
_LAST_SECONDS = 5.0
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Request:
    """The head of one request."""

    method: str
    "In upper case, as it came."
    path: str
    "The request target."
    fields: dict[str, str]
    "Field values by name in lower case; of a repeated one the last."


def pieces(size: int) -> Iterator[bytes]:
    """Give `size` bytes in pieces. They look random, are always the same, and no piece is like another.

    Args:
        size: how many bytes in all.
    """
    for number, start in enumerate(range(0, size, _PIECE)):
        yield hashlib.shake_128(number.to_bytes(8, "big")).digest(min(_PIECE, size - start))


def digest_of_bytes(size: int) -> str:
    """Return the SHA-256, in hex, of what `GET /bytes/SIZE` gives."""
    digest = hashlib.sha256()
    for piece in pieces(size):
        digest.update(piece)
    return digest.hexdigest()


def parse_head(text: bytes) -> Request:
    """Read a request's head (RFC 9112 §2).

    Args:
        text: everything up to the empty line.

    Raises:
        ValueError: it is no request.
    """
    first, *lines = text.decode("latin-1").split("\r\n")
    method, path, version = first.split(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError("not HTTP/1")
    fields = {}
    for line in filter(None, lines):
        name, separator, value = line.partition(":")
        if not separator:
            raise ValueError("a field line without a colon")
        fields[name.lower()] = value.strip()
    return Request(method, path, fields)


class _Origin:
    """The TCP side."""

    def __init__(self, default_size: int) -> None:
        self._default_size = default_size

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: one request, one answer."""
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            await self._answer(head[:-4], reader, writer)
            writer.write_eof()
            async with asyncio.timeout(_LAST_SECONDS):
                while await reader.read(_PIECE):  # what the peer still sends; closing at once would reset it
                    pass
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = parse_head(head)
            size = self._wanted(request.path)
        except ValueError:
            _send(writer, 400, b"not a request that this origin knows\n")
            return
        if request.method in {"POST", "PUT"}:
            await _count(request, reader, writer)
        elif request.method not in {"GET", "HEAD"}:
            _send(writer, 405, b"GET, POST or PUT\n")
        elif size is not None:
            _send_head(writer, 200, "application/octet-stream", size)
            if request.method == "GET":
                for piece in pieces(size):
                    writer.write(piece)
                    await writer.drain()
        elif request.path == "/":
            _send(writer, 200, _page(request, writer))
        else:
            _send(writer, 404, b"try / or /bytes/1000000\n")

    def _wanted(self, path: str) -> int | None:
        """How many bytes a path asks for; None for a path that is no such question."""
        if path in {"/bytes", "/bytes/"}:
            return self._default_size
        if not path.startswith("/bytes/"):
            return None
        size = int(path.removeprefix("/bytes/"))
        if not 0 <= size <= _MAX_BYTES:
            raise ValueError("out of range")
        return size


def _page(request: Request, writer: asyncio.StreamWriter) -> bytes:
    host, port = writer.get_extra_info("peername")[:2]
    fields = "".join(f"  {name}: {value}\n" for name, value in request.fields.items())
    return f"{request.method} {request.path}\nfrom {host} port {port}\nwith the fields\n{fields}".encode()


async def _count(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read a body and say what came."""
    length = request.fields.get("content-length", "")
    if not length.isdecimal() or "transfer-encoding" in request.fields:
        _send(writer, 411, b"Content-Length is needed\n")
        return
    if request.fields.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    left = int(length)
    digest = hashlib.sha256()
    while left:
        data = await reader.read(min(left, _PIECE))
        if not data:
            raise EOFError
        left -= len(data)
        digest.update(data)
    _send(writer, 200, f"size {length}\nsha256 {digest.hexdigest()}\n".encode())


def _send(writer: asyncio.StreamWriter, status: int, text: bytes) -> None:
    _send_head(writer, status, "text/plain; charset=utf-8", len(text))
    writer.write(text)


def _send_head(writer: asyncio.StreamWriter, status: int, kind: str, size: int) -> None:
    reason = HTTPStatus(status).phrase
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode())


def _echo(sock: socket.socket) -> None:
    """Send back what is waiting, empty datagrams too, which asyncio's own UDP transport does not send."""
    for _ in range(_BATCH):
        try:
            data, sender = sock.recvfrom(65535)
            sock.sendto(data, sender)
        except BlockingIOError:
            return
        except OSError:
            continue  # an earlier sender is gone


async def _run(tcp: int, udp: int, size: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind((_HOST, udp))
        server = await asyncio.start_server(_Origin(size).serve, _HOST, tcp, limit=_MAX_HEAD)
        loop.add_reader(sock.fileno(), _echo, sock)
        try:
            http_port = server.sockets[0].getsockname()[1]
            echo_port = sock.getsockname()[1]
            print(f"origin: HTTP on {_HOST}:{http_port}, UDP echo on {_HOST}:{echo_port}", flush=True)
            await stop.wait()
        finally:
            loop.remove_reader(sock.fileno())
            server.close()


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        arguments: the command line without the program's name, or None for the process's own.

    Returns:
        0, or 2 when a port cannot be used.
    """
    parser = argparse.ArgumentParser(prog="python -m interop.origin", description="A small origin on 127.0.0.1.")
    parser.add_argument("--tcp", type=int, default=8000, metavar="PORT", help="HTTP; 0 takes any")
    parser.add_argument("--udp", type=int, default=8001, metavar="PORT", help="echo; 0 takes any")
    parser.add_argument("--size", type=int, default=1_000_000, metavar="BYTES", help="what GET /bytes gives")
    options = parser.parse_args(arguments)
    try:
        asyncio.run(_run(options.tcp, options.udp, options.size))
    except (OSError, OverflowError) as error:
        print(f"origin: cannot listen on {_HOST}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
