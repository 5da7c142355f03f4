"""The whole round on this machine, checked: `python -m interop.demo`, or `make demo`.

Makes certificates in a temporary folder and starts, each as a process of its own: an origin, a relay that wants a
key, and two forwarders. Then curl downloads and uploads through the forwarded TCP port, and datagrams of several
sizes go through the forwarded UDP port and back. Once with each QUIC library. Every byte is compared. Ends with 0
only if all of it was right, after a minute at most, and leaves no process behind.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

from interop.bench.processes import Child, ChildError
from interop.origin import digest_of_bytes, pieces
from relay.auth import generate_key, preshared_entry
from relay.quic.development import write_certificates
from relay.quic.engine import EngineName

__all__ = ["Row", "main", "render_rows"]

_SECONDS = 60
"The whole demonstration may take so long."
_START_SECONDS = 15.0
_ECHO_SECONDS = 3.0
_SIZES = (0, 1, 100, 1200)
_TRIED_SIZES = (1252, *range(1280, 1360, 2), *range(1301, 1341, 2))
"Payloads sent to find the largest that passes; the first is an inner QUIC handshake's and must."
_BUFFER = 4 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was tried."""

    engine: str
    "The QUIC library on both sides."
    what: str
    "What was done."
    size: int
    "Bytes of payload."
    seconds: float
    "How long it took."
    wrong: str = ""
    "What was wrong; empty when nothing was."


class _Wrong(Exception):
    """Something came out differently. The text says what."""


@dataclass(frozen=True, slots=True)
class _Ports:
    """Where the forwarders listen."""

    tcp: int
    udp: int


def render_rows(rows: list[Row]) -> str:
    """Write the table of what was tried, with a last line for the whole."""
    lines = [f"{'engine':<9}{'what':<22}{'bytes':>10}{'seconds':>10}  checksum"]
    for row in rows:
        verdict = f"WRONG: {row.wrong}" if row.wrong else "ok"
        lines.append(f"{row.engine:<9}{row.what:<22}{row.size:>10}{row.seconds:>10.3f}  {verdict}")
    wrong = sum(bool(row.wrong) for row in rows)
    lines.append(f"{wrong} of {len(rows)} wrong" if wrong or not rows else f"all {len(rows)} right")
    return "\n".join(lines)


class _Demo:
    """One run: its processes, its folder, and what has been tried so far."""

    def __init__(self, stack: ExitStack, folder: Path, size: int, has_wrong_key: bool) -> None:
        self.rows: list[Row] = []
        self._children: list[Child] = []
        self._stack = stack
        self._folder = folder
        self._size = size
        self._curl = shutil.which("curl")
        self._key = generate_key()
        (folder / "key").write_text(generate_key() if has_wrong_key else self._key)
        self._upload = folder / "upload"
        with self._upload.open("wb") as file:
            for piece in pieces(size):
                file.write(piece)
        write_certificates(folder, ["localhost", "127.0.0.1"])
        if self._curl is None:
            print("curl is missing; Python's http.client is used instead")
        origin = self._start("origin", "interop.origin", "--tcp", "0", "--udp", "0")
        line = origin.read_line(_START_SECONDS)
        self._http, self._echo = re.findall(r"127\.0\.0\.1:\d+", line)

    def try_engine(self, engine: str) -> None:
        """Start a relay and its forwarders, and try everything."""
        self._children.clear()
        with ExitStack() as stack:
            try:
                ports = self._open(engine, stack)
            except ChildError as error:
                self.rows.append(Row(engine, "start", 0, 0.0, str(error)))
                return
            self._try(engine, "TCP download", self._size, partial(self._check_download, ports.tcp))
            self._try(engine, "TCP upload", self._size, partial(self._check_upload, ports.tcp))
            self._try_udp(engine, ports.udp)
            if any(row.wrong for row in self.rows if row.engine == engine):
                for child in self._children:
                    print(child.describe("said"), file=sys.stderr)

    def _open(self, engine: str, stack: ExitStack) -> _Ports:
        """Start the relay and both forwarders."""
        folder = self._folder
        settings = {
            "listen.port": "0",
            "tls.certificate": str(folder / "server.pem"),
            "tls.private_key": str(folder / "server.key"),
            "auth.preshared": f'["{preshared_entry(self._key)}"]',
            "policy.allow": '["127.0.0.0/8"]',
            "resolver.upstreams": '["127.0.0.1"]',
            "limits.drain": "1s",
            "quic.engine": engine,
        }
        given = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        relay = self._start(f"relay-{engine}", "relay", "serve", *given, stack=stack)
        address = _find_address(relay)
        ports = []
        for kind, target in (("tcp", self._http), ("udp", self._echo)):
            common = ["--relay", f"https://{address}", "--ca", str(folder / "ca.pem"), "--engine", engine]
            command = ["relay", "forward", kind, target, *common, "--key-file", str(folder / "key")]
            forwarder = self._start(f"forward-{kind}-{engine}", *command, stack=stack)
            ports.append(int(_find_address(forwarder).rpartition(":")[2]))
        return _Ports(*ports)

    def _start(self, name: str, *module: str, stack: ExitStack | None = None) -> Child:
        command = [sys.executable, "-m", *module]
        child = (stack or self._stack).enter_context(Child(name, command, None, self._folder))
        self._children.append(child)
        return child

    def _try(self, engine: str, what: str, size: int, action: Callable[[], None]) -> bool:
        """Do one thing and write down how it went."""
        started = time.monotonic()
        wrong = ""
        try:
            action()
        except (_Wrong, OSError, http.client.HTTPException) as error:
            wrong = str(error) or type(error).__name__
        self.rows.append(Row(engine, what, size, time.monotonic() - started, wrong))
        return not wrong

    def _check_download(self, port: int) -> None:
        path = f"/bytes/{self._size}"
        if self._curl is not None:
            into = self._folder / "download"
            self._run_curl("--output", str(into), f"http://127.0.0.1:{port}{path}")
            with into.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        else:
            found = hashlib.sha256(_request(port, "GET", path)).hexdigest()
        if found != digest_of_bytes(self._size):
            raise _Wrong("other bytes came than the origin sent")

    def _check_upload(self, port: int) -> None:
        if self._curl is not None:
            given = ("--header", "Content-Type: application/octet-stream", "--data-binary", f"@{self._upload}")
            answer = self._run_curl(*given, f"http://127.0.0.1:{port}/")
        else:
            answer = _request(port, "POST", "/", self._upload.read_bytes()).decode()
        if answer != f"size {self._size}\nsha256 {digest_of_bytes(self._size)}\n":
            raise _Wrong("other bytes arrived than were sent")

    def _run_curl(self, *arguments: str) -> str:
        """Run curl without the user's configuration or any proxy, and return what it printed."""
        command = [self._curl or "curl", "--disable", "--silent", "--show-error", "--fail", "--noproxy", "*"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=_SECONDS)
        if done.returncode:
            raise _Wrong(f"curl ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def _try_udp(self, engine: str, port: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            sock.connect(("127.0.0.1", port))
            for size in _SIZES:
                payload = os.urandom(size)
                if not self._try(engine, "UDP echo", size, partial(_check_echo, sock, payload)):
                    return
            started = time.monotonic()
            largest = _find_largest(sock)
            wrong = "" if largest >= _TRIED_SIZES[0] else f"no payload of {_TRIED_SIZES[0]} bytes came back"
            self.rows.append(Row(engine, "UDP echo, the largest", largest, time.monotonic() - started, wrong))


def _find_address(child: Child) -> str:
    """Read the address that a relay or a forwarder prints when it is ready."""
    line = child.read_line(_START_SECONDS)
    found = re.search(r"127\.0\.0\.1:\d+", line)
    if found is None:
        raise ChildError(child.describe(f"said {line!r}"))
    return found[0]


def _request(port: int, method: str, path: str, body: bytes | None = None) -> bytes:
    """Ask the origin without curl."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        if response.status != 200:
            raise _Wrong(f"the origin answered {response.status}")
        return response.read()
    finally:
        connection.close()


def _check_echo(sock: socket.socket, payload: bytes) -> None:
    """Send a payload and see it come back."""
    sock.settimeout(_ECHO_SECONDS)
    sock.send(payload)
    try:
        found = sock.recv(65535)
    except TimeoutError:
        raise _Wrong("nothing came back") from None
    if found != payload:
        raise _Wrong("another payload came back")


def _find_largest(sock: socket.socket) -> int:
    """Send payloads of many sizes at once and return the size of the largest that came back as it was.

    Raises nothing for those that are too big: they are dropped on the way, as UDP's are.
    """
    sent = {size: os.urandom(size) for size in _TRIED_SIZES}
    for payload in sent.values():
        sock.send(payload)
    largest = 0
    for found in _receive_all(sock):
        if sent.get(len(found)) == found:
            largest = max(largest, len(found))
    return largest


def _receive_all(sock: socket.socket) -> Iterator[bytes]:
    """Give payloads until none comes any more."""
    sock.settimeout(_ECHO_SECONDS)
    while True:
        try:
            yield sock.recv(65535)
        except TimeoutError:
            return
        sock.settimeout(0.3)


@contextmanager
def _bounded() -> Iterator[None]:
    """Leave through every `finally` on SIGTERM and when the time is over, so that no process stays behind."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt if number == signal.SIGTERM else ChildError(f"not done in {_SECONDS} seconds")

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGALRM)}
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration and print the table.

    Args:
        arguments: the command line without the program's name, or None for the process's own.

    Returns:
        0 when everything was right, 1 when something was not, 130 when interrupted.
    """
    names = [name.value for name in EngineName]
    parser = argparse.ArgumentParser(prog="python -m interop.demo", description="The whole round, checked.")
    parser.add_argument("--engine", action="append", choices=names, help="only this QUIC library; may be repeated")
    parser.add_argument("--size", type=int, default=10_000_000, metavar="BYTES", help="of each download and upload")
    parser.add_argument("--wrong-key", action="store_true", help="to see it fail: the relay does not know the key")
    options = parser.parse_args(arguments)
    try:
        with _bounded(), ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-demo-")))
            demo = _Demo(stack, folder, options.size, options.wrong_key)
            for engine in options.engine or names:
                demo.try_engine(engine)
            print(render_rows(demo.rows))
            return 1 if any(row.wrong for row in demo.rows) else 0
    except ChildError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
