"""TCP connections to targets by Happy Eyeballs (RFC 8305 §4, §5): staggered attempts, families in turn.

The first connection wins; the others are cancelled and their sockets closed. Every address tried has passed policy.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from relay.errors import Failure, FailureKind, RelayError, Side, failure_from_os_error
from relay.hooks import IPAddress
from relay.tunnels.leave import ChooseBinding, connect_tcp

__all__ = ["ATTEMPT_DELAY", "dial_tcp", "interleave"]

ATTEMPT_DELAY = 0.25
"Seconds between the starts of two attempts (RFC 8305 §8)."


def interleave(addresses: Sequence[IPAddress]) -> list[IPAddress]:
    """Order addresses for attempts: families in turn, the first address's family first (RFC 8305 §4)."""
    first = [address for address in addresses if address.version == addresses[0].version]
    second = [address for address in addresses if address.version != addresses[0].version]
    ordered = []
    for index in range(max(len(first), len(second))):
        ordered += first[index : index + 1] + second[index : index + 1]
    return ordered


async def dial_tcp(
    addresses: Sequence[IPAddress],
    port: int,
    choose: ChooseBinding,
    timeout: float,
    attempt_delay: float = ATTEMPT_DELAY,
) -> socket.socket:
    """Connect to the first address that answers.

    Args:
        addresses: at least one, in order of preference.
        port: TCP port.
        choose: chooses the egress for each attempt.
        timeout: seconds for all attempts together.
        attempt_delay: seconds after which the next attempt starts while the last is pending.

    Returns:
        A connected, non-blocking socket with Nagle's delay off. The caller owns it.

    Raises:
        RelayError: no attempt succeeded; the failure of the one that came furthest.
    """
    race = _Race(port, choose)
    try:
        async with asyncio.timeout(timeout):
            return await race.run(interleave(addresses), attempt_delay)
    except TimeoutError:
        raise RelayError(Failure(FailureKind.CONNECTION_TIMEOUT, Side.TARGET)) from None


class _Race:
    """Attempts of one dial."""

    def __init__(self, port: int, choose: ChooseBinding) -> None:
        self._port = port
        self._choose = choose
        self._winner: socket.socket | None = None
        self._failures: list[Failure] = []

    async def run(self, addresses: list[IPAddress], delay: float) -> socket.socket:
        """Start attempts until one wins or all failed."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks: set[asyncio.Task[None]] = set()
                for address in addresses:
                    failed = asyncio.Event()
                    tasks.add(group.create_task(self._attempt(address, failed)))
                    try:
                        async with asyncio.timeout(delay):
                            await failed.wait()  # set on success too: then there is nothing more to start
                    except TimeoutError:
                        pass
                    if self._winner is not None:
                        break
                while self._winner is None and any(not task.done() for task in tasks):
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    tasks = {task for task in tasks if not task.done()}
                for task in tasks:
                    task.cancel()
        except BaseException:
            if self._winner is not None:
                self._winner.close()
            raise
        if self._winner is None:
            raise RelayError(min(self._failures, key=_rank))
        return self._winner

    async def _attempt(self, address: IPAddress, finished: asyncio.Event) -> None:
        sock: socket.socket | None = None
        try:
            sock = await connect_tcp(address, self._port, self._choose)
            if self._winner is None:
                self._winner, sock = sock, None
        except RelayError as error:
            self._failures.append(error.failure)
        except OSError as error:
            self._failures.append(failure_from_os_error(error))
        finally:
            if sock is not None:
                sock.close()
            finished.set()


_RANKS = (
    FailureKind.CONNECTION_REFUSED,
    FailureKind.CONNECTION_TERMINATED,
    FailureKind.CONNECTION_TIMEOUT,
    FailureKind.DESTINATION_IP_UNROUTABLE,
)
"Which of several failures is told: the one that came nearest to a connection."


def _rank(failure: Failure) -> int:
    return _RANKS.index(failure.kind) if failure.kind in _RANKS else len(_RANKS)
