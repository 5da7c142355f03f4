"""A path with delay and loss, in user space: where the kernel has no netem, or we may not use it.

    python -m interop.bench.peers.link PORT DELAY LOSS SEED

A UDP forwarder in front of the server at PORT on loopback. It holds every datagram back for DELAY seconds, each way,
keeps their order, and loses the share LOSS of them, each on its own. It takes GSO batches apart, as a network card
would. It prints its port and serves until its standard input ends.
"""

from __future__ import annotations

import random
import selectors
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field

from interop.bench.batches import Address, open_socket, receive_batch

__all__ = ["Queue", "serve"]

_READS = 64
_MAX_WAITING = 20_000
_MAX_CLIENTS = 64


@dataclass(slots=True)
class Queue:
    """What is under way in one direction, or in both: the delay is one and the same, so it leaves as it came."""

    delay: float
    "Seconds that a datagram is held back."
    loss: float
    "The share that is lost."
    draw: random.Random
    "Decides which."
    limit: int = _MAX_WAITING
    "How many may wait; one more is lost."
    _waiting: deque[tuple[float, socket.socket, Address | None, bytes]] = field(default_factory=deque)

    def add(self, now: float, way: tuple[socket.socket, Address | None], payload: memoryview, segment: int) -> None:
        """Take a batch.

        Args:
            now: the time.
            way: the socket to send from, and where to unless it is connected.
            payload: the datagrams, joined.
            segment: the size of each but the last.
        """
        due = now + self.delay
        for start in range(0, len(payload), segment):
            if self.draw.random() >= self.loss and len(self._waiting) < self.limit:
                self._waiting.append((due, *way, bytes(payload[start : start + segment])))

    def wait_seconds(self, now: float) -> float | None:
        """Tell how long until the next datagram is due; None when nothing is under way.

        Args:
            now: the time.
        """
        return max(0.0, self._waiting[0][0] - now) if self._waiting else None

    def send_due(self, now: float) -> None:
        """Send what has waited long enough. What the kernel refuses is lost, as anywhere.

        Args:
            now: the time.
        """
        waiting = self._waiting
        while waiting and waiting[0][0] <= now:
            _, sock, peer, payload = waiting.popleft()
            try:
                sock.send(payload) if peer is None else sock.sendto(payload, peer)
            except OSError:
                continue


def serve(server: Address, queue: Queue) -> None:
    """Forward between any clients and one server until standard input ends. Prints the port first.

    Args:
        server: the server's address.
        queue: the path.

    Raises:
        OSError: the kernel refuses a socket.
    """
    front = open_socket()
    print(front.getsockname()[1], flush=True)
    backs: dict[Address, socket.socket] = {}
    # Unlike epoll, select has more than milliseconds; the sockets are few and their numbers small.
    with selectors.SelectSelector() as selector:
        selector.register(front, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select(queue.wait_seconds(time.monotonic())):
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is not front:
                    _take(key.fileobj, (front, key.data), queue)  # type: ignore[arg-type]
                    continue
                _take_front(front, server, selector, backs, queue)
            queue.send_due(time.monotonic())


def _take(source: socket.socket, way: tuple[socket.socket, Address | None], queue: Queue) -> None:
    """Read what the server sent to one client."""
    for _ in range(_READS):
        try:
            batch = receive_batch(source)
        except OSError:
            continue
        if batch is None:
            return
        queue.add(time.monotonic(), way, batch[0], batch[1])


def _take_front(
    front: socket.socket,
    server: Address,
    selector: selectors.BaseSelector,
    backs: dict[Address, socket.socket],
    queue: Queue,
) -> None:
    """Read what clients sent; each has a socket of its own towards the server."""
    for _ in range(_READS):
        try:
            batch = receive_batch(front)
        except OSError:
            continue
        if batch is None:
            return
        payload, segment, client = batch
        if client not in backs:
            if len(backs) == _MAX_CLIENTS:
                oldest = next(iter(backs))
                selector.unregister(backs[oldest])
                backs.pop(oldest).close()
            backs[client] = open_socket(peer=server)
            selector.register(backs[client], selectors.EVENT_READ, client)
        queue.add(time.monotonic(), (backs[client], None), payload, segment)


def main(arguments: list[str]) -> None:
    """Run the link.

    Args:
        arguments: PORT, DELAY, LOSS and SEED.
    """
    port, delay, loss, seed = arguments
    serve(("127.0.0.1", int(port)), Queue(float(delay), float(loss), random.Random(int(seed))))


if __name__ == "__main__":
    main(sys.argv[1:])
