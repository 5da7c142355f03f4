"""The origin that the relay is tried against: what it answers, and that it ends when told."""

from __future__ import annotations

import hashlib
import http.client
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from interop.origin import digest_of_bytes, main, parse_head, pieces


@pytest.fixture(scope="module")
def origin() -> Iterator[tuple[int, int]]:
    """A running origin's ports, TCP and UDP."""
    command = [sys.executable, "-m", "interop.origin", "--tcp", "0", "--udp", "0", "--size", "70000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            tcp, udp = re.findall(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            yield int(tcp), int(udp)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()


def _ask(port: int, method: str, path: str, body: bytes | None = None, **fields: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in fields.items()})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_the_bytes_are_always_the_same_and_no_piece_repeats() -> None:
    first = list(pieces(200_000))
    assert b"".join(first) == b"".join(pieces(200_000))
    assert sum(map(len, first)) == 200_000
    assert len({piece[:1000] for piece in first}) == len(first) == 4
    assert digest_of_bytes(200_000) == hashlib.sha256(b"".join(first)).hexdigest()
    assert list(pieces(0)) == []


@pytest.mark.parametrize("text", [b"", b"GET /", b"GET / HTTP/2", b"GET / HTTP/1.1\r\nno colon", b"a b c d"])
def test_what_is_no_request_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  its text is for nobody
        parse_head(text)


def test_the_page_says_what_arrived(origin: tuple[int, int]) -> None:
    status, page = _ask(origin[0], "GET", "/", X_Probe="seen")
    assert status == 200
    assert b"GET /\nfrom 127.0.0.1 port " in page
    assert b"  x-probe: seen\n" in page


@pytest.mark.parametrize(
    ("path", "size"), [("/bytes/0", 0), ("/bytes/1", 1), ("/bytes/300000", 300_000), ("/bytes", 70_000)]
)
def test_a_download_has_the_bytes_asked_for(origin: tuple[int, int], path: str, size: int) -> None:
    assert _ask(origin[0], "GET", path) == (200, b"".join(pieces(size)))


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_an_upload_is_counted_and_summed(origin: tuple[int, int], method: str, size: int) -> None:
    body = b"".join(pieces(size))
    answer = f"size {size}\nsha256 {digest_of_bytes(size)}\n".encode()
    assert _ask(origin[0], method, "/", body) == (200, answer)


def test_a_client_that_waits_for_100_gets_it(origin: tuple[int, int]) -> None:
    with socket.create_connection(("127.0.0.1", origin[0]), timeout=10) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"ab")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/bytes/-1", 400), ("GET", "/bytes/x", 400), ("DELETE", "/", 405)],
)
def test_the_rest_is_refused(origin: tuple[int, int], method: str, path: str, status: int) -> None:
    assert _ask(origin[0], method, path)[0] == status


@pytest.mark.parametrize("size", [0, 1, 1200, 9000])
def test_datagrams_come_back(origin: tuple[int, int], size: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.connect(("127.0.0.1", origin[1]))
        sock.send(bytes(size))
        assert sock.recv(65535) == bytes(size)


def test_a_port_in_use_is_one_line(origin: tuple[int, int], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tcp", str(origin[0]), "--udp", "0"]) == 2
    assert capsys.readouterr().err.startswith("origin: cannot listen on 127.0.0.1: ")
