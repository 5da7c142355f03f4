"""Loads of datagrams: echoes through CONNECT-UDP tunnels, and bare ones through the floor's forwarder."""

from __future__ import annotations

import select
import time

from interop.bench.batches import Address, open_socket, receive_batch, send_segments
from interop.bench.client import Client
from interop.bench.http3 import encode_connect_udp
from interop.bench.measure import Cost, Meter
from interop.bench.pool import NoAnswerError, Pool

__all__ = ["run_datagrams", "run_floor"]

_STALL = 0.05
"Seconds without an echo after which everything that is under way counts as lost."


class _EchoLoop:
    """Keeps a window of datagrams under way in each tunnel and counts the echoes.

    A payload begins with its number. The number of the newest echo tells how many are still under way, so a lost
    datagram leaves its place to another at once.
    """

    def __init__(self, client: Client, streams: list[int], size: int, window: int) -> None:
        self.sent_total = 0
        "Datagrams sent."
        self.echoed_total = 0
        "Datagrams that came back."
        self._client = client
        self._window = window
        self._pad = bytes(size - 4)
        self._quarters = [stream_id // 4 for stream_id in streams]
        self._next = dict.fromkeys(self._quarters, 0)
        self._acknowledged = dict.fromkeys(self._quarters, 0)
        self._last_echo = time.monotonic()

    def send(self) -> None:
        """Fill every window."""
        pad, send, window = self._pad, self._client.send_datagram, self._window
        for quarter, number in self._next.items():
            end = self._acknowledged[quarter] + window
            if number < end:
                prefix = bytes((quarter, 0))
                for value in range(number, end):
                    send(prefix + value.to_bytes(4, "big") + pad)
                self._next[quarter] = end
                self.sent_total += end - number
        self._client.flush()

    def receive(self) -> None:
        """Count what has come back."""
        datagrams = self._client.datagrams
        now = time.monotonic()
        if datagrams:
            self._last_echo = now
            self.echoed_total += len(datagrams)
            newest = {datagram[0]: datagram for datagram in datagrams}
            for quarter, datagram in newest.items():
                self._acknowledged[quarter] = int.from_bytes(datagram[2:6], "big") + 1
            datagrams.clear()
        elif now - self._last_echo > _STALL:
            self._acknowledged.update(self._next)
            self._last_echo = now

    def run(self, pool: Pool, seconds: float) -> None:
        """Keep the windows full for a time; raises NoAnswerError when the connection is over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.send()
            pool.step()
            self.receive()
            if self._client.is_closed:
                raise NoAnswerError("the server closed the connection")


def run_datagrams(
    server: Address, pids: list[int], target: int, size: int, tunnels: int, window: int, warmup: float, seconds: float
) -> Cost:
    """Echo datagrams through tunnels of one connection. An echo is two relayed datagrams.

    Args:
        server: the server's address.
        pids: the server's process, then those of the origins.
        target: the UDP origin's port.
        size: bytes of UDP payload, at least 4.
        tunnels: how many, at most 64.
        window: datagrams under way in each.
        warmup: seconds before the measurement.
        seconds: how long to measure.

    Returns:
        What it cost; work is in datagrams relayed.

    Raises:
        NoAnswerError: the server did not answer, or closed the connection.
    """
    pool = Pool()
    try:
        (client,) = pool.connect_many(server, 1)
        streams = pool.open_tunnels(client, encode_connect_udp(target, server), tunnels)
        loop = _EchoLoop(client, streams, size, window)
        loop.run(pool, warmup)
        sent, echoed = loop.sent_total, loop.echoed_total
        meter = Meter(pids)
        loop.run(pool, seconds)
        return meter.stop(2 * (loop.echoed_total - echoed), 2 * (loop.sent_total - sent))
    finally:
        pool.close()


def run_floor(
    server: Address, pids: list[int], size: int, batch: int, window: int, warmup: float, seconds: float
) -> Cost:
    """Echo bare UDP datagrams through the forwarder.

    Args:
        server: the forwarder's address.
        pids: the forwarder's process, then the origin's.
        size: bytes of UDP payload.
        batch: datagrams in a system call.
        window: datagrams under way.
        warmup: seconds before the measurement.
        seconds: how long to measure.

    Returns:
        What it cost; work is in datagrams forwarded.

    Raises:
        OSError: the kernel refuses a socket.
    """
    payload = bytes(size * batch)
    sent = echoed = 0
    meter: Meter | None = None
    with open_socket(peer=server) as sock, select.epoll() as epoll:
        epoll.register(sock.fileno(), select.EPOLLIN)
        start = time.monotonic()
        under_way = 0
        while (now := time.monotonic()) < start + warmup + seconds:
            if meter is None and now >= start + warmup:
                meter, sent, echoed = Meter(pids), 0, 0
            while under_way + batch <= window:
                send_segments(sock, payload, size)
                under_way += batch
                sent += batch
            if not epoll.poll(_STALL):
                under_way = 0
            while (echo := receive_batch(sock)) is not None:
                count = -(-len(echo[0]) // echo[1])
                echoed += count
                under_way = max(0, under_way - count)
    assert meter is not None
    return meter.stop(2 * echoed, 2 * sent)
