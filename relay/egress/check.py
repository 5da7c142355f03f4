"""Looks at every egress address from this machine: can it be bound, is there a way out, does an answer come back?

Binding and looking for a route send nothing. Whether the world sends packets for an address here can only be told by
somebody outside who answers: that is what `via` is for, any TCP server of the operator's.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Network
from pathlib import Path
from secrets import token_bytes

from masque.target import IPAddress
from relay.egress.sources import KEY_SIZE, Source, can_bind
from relay.source import bind_source

__all__ = ["Finding", "check_sources"]

_OUTSIDE = {4: ("198.41.0.4", 53), 6: ("2001:503:ba3e::2:30", 53)}
"A root server's addresses, to ask the kernel for the way to the internet. Nothing is sent there."
_ROUTES = Path("/proc/net/ipv6_route")
_RTF_LOCAL = 0x80000000
"Linux: the route delivers to this machine (`linux/ipv6_route.h`)."
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a source."""

    source: Source
    "The source."
    problem: str
    "In words for the operator; with the command that helps, where there is one."


async def check_sources(
    sources: Iterable[Source], via: Sequence[tuple[IPAddress, int]] = (), timeout: float = 3.0
) -> list[Finding]:
    """Check sources, many at a time.

    Args:
        sources: to be checked; of a network, one address that is drawn at random.
        via: TCP servers outside; each source connects to those of its family.
        timeout: seconds for each to answer.

    Returns:
        The first thing that is wrong with each source that has something wrong, in the order given.
    """
    local = local_networks()
    turns = asyncio.Semaphore(_AT_ONCE)

    async def check(source: Source) -> Finding | None:
        async with turns:
            mine = [server for server in via if server[0].version == source.network.version]
            problem = _problem_here(source, local, looks_out=not mine)
            problem = problem or await _problem_outside(source, mine, timeout)
            return None if problem is None else Finding(source, problem)

    async with asyncio.TaskGroup() as tasks:
        checks = [tasks.create_task(check(source)) for source in sources]
    return [finding for finding in (task.result() for task in checks) if finding is not None]


def local_networks(routes: Path = _ROUTES) -> tuple[IPv6Network, ...]:
    """Return the IPv6 networks whose packets the kernel takes for its own; none where it does not say.

    Args:
        routes: the kernel's table, as Linux shows it.
    """
    try:
        lines = routes.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return ()
    found = []
    for line in lines:
        fields = line.split()
        if len(fields) == 10 and int(fields[8], 16) & _RTF_LOCAL:
            found.append(IPv6Network((int(fields[0], 16), int(fields[1], 16))))
    return tuple(found)


def _problem_here(source: Source, local: Sequence[IPv6Network], *, looks_out: bool) -> str | None:
    """What this machine itself can say; about the way out only when nobody outside is going to show it."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        error = can_bind(source, kind)
        if error is not None and error.errno == errno.EADDRNOTAVAIL:
            return "no interface of this machine has it"
        if error is not None:
            return f"cannot be bound: {error.strerror}"
    network = source.network
    if source.is_drawn_from and isinstance(network, IPv6Network) and not any(map(network.subnet_of, local)):
        return f"answers would not be taken: ip -6 route add local {network} dev lo"
    if not looks_out:
        return None
    try:
        with _bound(source, socket.SOCK_DGRAM) as sock:
            sock.connect(_OUTSIDE[network.version])
    except OSError as error:
        return f"no route out: {error.strerror}"
    return None


async def _problem_outside(source: Source, via: Sequence[tuple[IPAddress, int]], timeout: float) -> str | None:
    """What a server outside can show: a TCP handshake is there and back."""
    for address, port in via:
        try:
            with _bound(source, socket.SOCK_STREAM) as sock:
                async with asyncio.timeout(timeout):
                    await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
        except TimeoutError:
            return f"no answer from {address} port {port}: is the address routed to this machine?"
        except OSError as error:
            return f"{address} port {port} cannot be reached from it: {error.strerror}"
    return None


def _bound(source: Source, kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if source.network.version == 6 else socket.AF_INET, kind)
    try:
        sock.setblocking(False)
        address = source.address_for(token_bytes(KEY_SIZE))
        if address is not None:
            bind_source(sock, address, source.ports, is_free=source.is_drawn_from)
    except OSError:
        sock.close()
        raise
    return sock
