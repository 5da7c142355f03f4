"""The path with delay and loss in user space: what it holds back, what it loses, and that it carries both ways."""

from __future__ import annotations

import random
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.bench.measure import choose_cores
from interop.bench.peers.link import Queue
from interop.bench.processes import Child


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets."""
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, two:
        two.setblocking(False)
        yield one, two


def _received(sock: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(sock.recv(2048))
        except BlockingIOError:
            return found


def test_a_datagram_is_held_back_and_keeps_its_place(pair: tuple[socket.socket, socket.socket]) -> None:
    source, sink = pair
    queue = Queue(0.025, 0.0, random.Random(1))
    assert queue.wait_seconds(0.0) is None
    queue.add(1.0, (source, None), memoryview(b"aabbc"), 2)
    queue.add(1.01, (source, None), memoryview(b"dd"), 2)
    assert queue.wait_seconds(1.0) == pytest.approx(0.025)
    queue.send_due(1.024)
    assert _received(sink) == []
    queue.send_due(1.0251)
    assert _received(sink) == [b"aa", b"bb", b"c"]
    assert queue.wait_seconds(2.0) == 0.0
    queue.send_due(2.0)
    assert _received(sink) == [b"dd"]


def test_the_share_that_is_lost_is_the_one_asked_for(pair: tuple[socket.socket, socket.socket]) -> None:
    source, sink = pair
    queue = Queue(0.0, 0.01, random.Random(1))
    arrived = 0
    for _ in range(10_000):
        queue.add(0.0, (source, None), memoryview(b"x"), 1)
        queue.send_due(0.0)
        arrived += len(_received(sink))
    assert 9850 < arrived < 9950


def test_no_more_than_the_limit_waits(pair: tuple[socket.socket, socket.socket]) -> None:
    source, sink = pair
    queue = Queue(0.0, 0.0, random.Random(1), limit=3)
    queue.add(0.0, (source, None), memoryview(b"abcdef"), 1)
    queue.send_due(0.0)
    assert _received(sink) == [b"a", b"b", b"c"]


def test_the_link_carries_both_ways_for_each_client(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        port = str(server.getsockname()[1])
        command = [sys.executable, "-m", "interop.bench.peers.link", port, "0.02", "0", "1"]
        with Child("link", command, choose_cores().load, tmp_path) as link:
            place = ("127.0.0.1", int(link.read_line(10)))
            clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
            begin = time.monotonic()
            for number, client in enumerate(clients):
                client.settimeout(10)
                client.sendto(b"ask%d" % number, place)
            for _ in clients:
                asked, sender = server.recvfrom(100)
                server.sendto(asked.replace(b"ask", b"answer"), sender)
            answers = [client.recv(100) for client in clients]
            assert time.monotonic() - begin >= 0.04
            for client in clients:
                client.close()
    assert answers == [b"answer0", b"answer1"]
