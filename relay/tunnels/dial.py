"""TCP connections to targets by Happy Eyeballs (RFC 8305 §4, §5): staggered attempts, families in turn.

The first connection wins; the others are cancelled and their sockets closed. Every address tried has passed policy.
How long each attempt was left waiting is remembered for the next time, in `relay.tunnels.reach`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from relay.errors import Failure, FailureKind, RelayError, Side, failure_from_os_error
from relay.hooks import EgressBinding, IPAddress
from relay.quic.socket import UdpSocket
from relay.settings import DialSettings
from relay.tunnels.leave import ChooseBinding, connect_tcp, open_udp
from relay.tunnels.reach import ReachMemory, Standing, interleave

__all__ = ["ATTEMPT_DELAY", "Dialer", "dial_tcp"]

ATTEMPT_DELAY = 0.25
"Seconds between the starts of two attempts (RFC 8305 §8)."


class Dialer:
    """Connects to targets, and remembers how that went. One for each worker."""

    def __init__(self, memory: ReachMemory, attempt_delay: float = ATTEMPT_DELAY) -> None:
        """Make a dialer.

        Args:
            memory: what is known of destinations.
            attempt_delay: seconds after which the next attempt starts while the last is pending.
        """
        self._memory = memory
        self._attempt_delay = attempt_delay

    @classmethod
    def of(cls, settings: DialSettings, clock: Callable[[], float]) -> Dialer:
        """Make a dialer from the settings, with the loop's clock."""
        memory = ReachMemory(
            settings.remember.total_seconds(), settings.remember_entries, clock, settings.first_family_count
        )
        return cls(memory, settings.attempt_delay.total_seconds())

    async def open(self, addresses: Sequence[IPAddress], port: int, choose: ChooseBinding) -> UdpSocket:
        """Make a UDP socket connected to the first address that has a route and an egress.

        Args:
            addresses: at least one, in order of preference.
            port: UDP port.
            choose: chooses the egress for each.

        Raises:
            RelayError: none has; the failure of the one that came furthest.
        """
        failures: list[Failure] = []
        for address in addresses if len(addresses) == 1 else self._memory.order(addresses):
            try:
                return await open_udp(address, port, choose)
            except RelayError as error:
                failures.append(error.failure)
            except OSError as error:
                failures.append(failure_from_os_error(error))
        raise RelayError(min(failures, key=_rank))

    async def connect(
        self, addresses: Sequence[IPAddress], port: int, choose: ChooseBinding, timeout: float
    ) -> socket.socket:
        """Connect to the first address that answers, as `dial_tcp` does. Raises RelayError."""
        return await dial_tcp(addresses, port, choose, timeout, self._attempt_delay, self._memory)


async def dial_tcp(
    addresses: Sequence[IPAddress],
    port: int,
    choose: ChooseBinding,
    timeout: float,
    attempt_delay: float = ATTEMPT_DELAY,
    memory: ReachMemory | None = None,
) -> socket.socket:
    """Connect to the first address that answers.

    Args:
        addresses: at least one, in order of preference.
        port: TCP port.
        choose: chooses the egress for each attempt.
        timeout: seconds for all attempts together.
        attempt_delay: seconds after which the next attempt starts while the last is pending.
        memory: orders the attempts and learns from them; without it families take turns.

    Returns:
        A connected, non-blocking socket with Nagle's delay off. The caller owns it.

    Raises:
        RelayError: no attempt succeeded; the failure of the one that came furthest.
    """
    race = _Race(port, choose)
    ordered = interleave(addresses) if memory is None else memory.order(addresses)
    try:
        async with asyncio.timeout(timeout):
            sock = await race.run(ordered, attempt_delay)
    except TimeoutError:
        raise RelayError(Failure(FailureKind.CONNECTION_TIMEOUT, Side.TARGET)) from None
    if memory is not None:
        race.teach(memory, attempt_delay)
    return sock


class _Race:
    """Attempts of one dial."""

    def __init__(self, port: int, choose: ChooseBinding) -> None:
        self._port = port
        self._choose = choose
        self._winner: socket.socket | None = None
        self._failures: list[Failure] = []
        self._waiting: dict[IPAddress, float] = {}
        self._learned: dict[IPAddress, Standing] = {}

    async def run(self, addresses: list[IPAddress], delay: float) -> socket.socket:
        """Start attempts until one wins or all failed. A failed one makes room for the next at once."""
        try:
            async with asyncio.TaskGroup() as group:
                pending: set[asyncio.Task[None]] = set()
                for address in addresses:
                    pending.add(group.create_task(self._attempt(address)))
                    _, pending = await asyncio.wait(pending, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
                    if self._winner is not None:
                        break
                while self._winner is None and pending:
                    _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in pending:
                    task.cancel()
        except BaseException:
            if self._winner is not None:
                self._winner.close()
            raise
        if self._winner is None:
            raise RelayError(min(self._failures, key=_rank))
        return self._winner

    def teach(self, memory: ReachMemory, patience: float) -> None:
        """Hand on what a won race says: of attempts that ended by themselves, and those that waited a delay or more.

        One that was cut off earlier says nothing. Nor does a race without a winner: a port that swallows packets on
        every address is the port's doing, and whoever dials one must not make a whole prefix look broken.
        """
        now = asyncio.get_running_loop().time()
        for address, since in self._waiting.items():
            if now - since >= patience:
                memory.learn(address, Standing.SILENT)
        for address, standing in self._learned.items():
            memory.learn(address, standing)

    async def _attempt(self, address: IPAddress) -> None:
        sock: socket.socket | None = None
        loop = asyncio.get_running_loop()

        async def choose(address: IPAddress) -> EgressBinding:
            binding = await self._choose(address)
            self._waiting[address] = loop.time()  # until it ends by itself
            return binding

        try:
            sock = await connect_tcp(address, self._port, choose)
            self._waiting.pop(address, None)
            self._learned[address] = Standing.ANSWERED
            if self._winner is None:
                self._winner, sock = sock, None
        except RelayError as error:
            self._waiting.pop(address, None)  # it was our own lack of a source, and says nothing of the address
            self._failures.append(error.failure)
        except OSError as error:
            failure = failure_from_os_error(error)
            self._failures.append(failure)
            if self._waiting.pop(address, None) is not None and failure.kind in _SILENT:
                self._learned[address] = Standing.SILENT
        finally:
            if sock is not None:
                sock.close()


_SILENT = frozenset({FailureKind.CONNECTION_TIMEOUT, FailureKind.DESTINATION_IP_UNROUTABLE})
"Failures that are the way's. Whoever refuses a port has answered, and may have others."

_RANKS = (
    FailureKind.CONNECTION_REFUSED,
    FailureKind.CONNECTION_TERMINATED,
    FailureKind.CONNECTION_TIMEOUT,
    FailureKind.CONNECTION_LIMIT_REACHED,
    FailureKind.DESTINATION_IP_UNROUTABLE,
)
"Which of several failures is told: the one that came nearest to a connection."


def _rank(failure: Failure) -> int:
    return _RANKS.index(failure.kind) if failure.kind in _RANKS else len(_RANKS)
