"""All connections of a load on one epoll, and what every load begins with: connecting and opening tunnels."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

from interop.bench.batches import Address
from interop.bench.client import Client

__all__ = ["NoAnswerError", "Pool"]

_PATIENCE = 10.0
"Seconds that a handshake or an answer may take."
_AT_A_TIME = 8
"Handshakes under way while connections are opened in bulk."
_RARELY = 0.05


class NoAnswerError(Exception):
    """The server did not do in time what the load waits for, or refused it."""


class Pool:
    """All connections of a load, moved on together."""

    def __init__(self) -> None:
        self._clients: dict[int, Client] = {}
        self._epoll = select.epoll()

    def connect(self, server: Address) -> Client:
        """Begin a connection.

        Args:
            server: the server's address.

        Returns:
            The connection, whose handshake goes on with every `step`.
        """
        client = Client(server)
        self._clients[client.socket.fileno()] = client
        self._epoll.register(client.socket.fileno(), select.EPOLLIN)
        client.flush()
        return client

    def forget(self, client: Client) -> None:
        """Close a connection.

        Args:
            client: a connection of this pool.
        """
        self._epoll.unregister(client.socket.fileno())
        del self._clients[client.socket.fileno()]
        client.close()

    def step(self, seconds: float = _RARELY) -> None:
        """Wait for packets or a deadline, and handle what has come.

        Args:
            seconds: how long to wait at most.
        """
        now = time.monotonic()
        due = [(client.deadline, client) for client in self._clients.values()]
        nearest = min((deadline for deadline, _ in due if deadline is not None), default=now + seconds)
        for fileno, _ in self._epoll.poll(max(0.0, min(seconds, nearest - now))):
            client = self._clients[fileno]
            client.receive()
            client.flush()
        now = time.monotonic()
        for deadline, client in due:
            if deadline is not None and deadline <= now:
                client.on_deadline(now)
                client.flush()

    def wait_until(self, is_done: Callable[[], bool], seconds: float, what: str) -> None:
        """Step until something is true.

        Args:
            is_done: what to wait for.
            seconds: how long to wait at most.
            what: what to say when it did not come.

        Raises:
            NoAnswerError: it did not come in time, or a connection is over.
        """
        deadline = time.monotonic() + seconds
        while not is_done():
            if time.monotonic() > deadline:
                raise NoAnswerError(f"no {what} within {seconds:g} s")
            if any(client.is_closed for client in self._clients.values()):
                raise NoAnswerError(f"the server closed a connection before {what}")
            self.step()

    def close(self) -> None:
        """Close every connection."""
        for client in list(self._clients.values()):
            self.forget(client)
        self._epoll.close()

    def connect_many(self, server: Address, count: int) -> list[Client]:
        """Open connections and wait for their handshakes.

        Args:
            server: the server's address.
            count: how many.

        Returns:
            The connections, all confirmed.

        Raises:
            NoAnswerError: a handshake took too long.
        """
        clients: list[Client] = []
        while len(clients) < count:
            clients += [self.connect(server) for _ in range(min(_AT_A_TIME, count - len(clients)))]
            self._wait_connected(clients)
        return clients

    def _wait_connected(self, clients: list[Client]) -> None:
        """Wait until the handshakes of these connections are confirmed."""
        self.wait_until(lambda: all(client.is_connected for client in clients), _PATIENCE, "handshake")

    def open_tunnels(self, client: Client, head: bytes, count: int) -> list[int]:
        """Open tunnels on one connection and wait until all are accepted.

        Args:
            client: a connection of this pool.
            head: the request's HEADERS frame, the same for all.
            count: how many.

        Returns:
            The ids of their streams.

        Raises:
            NoAnswerError: the server refused one, or did not answer in time.
        """
        opened = [client.open_request(head) for _ in range(count)]
        client.flush()
        streams = [client.streams[stream_id] for stream_id in opened]
        self.wait_until(lambda: all(s.status is not None or s.is_ended for s in streams), _PATIENCE, "answer")
        refused = [stream.status for stream in streams if stream.status != 200 or stream.is_ended]
        if refused:
            raise NoAnswerError(f"{len(refused)} of {count} tunnels refused, the first with status {refused[0]}")
        return opened
