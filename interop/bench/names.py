"""What resolving names costs: look-ups that the cache answers, and what is added to an upstream's own latency.

The upstream is a process of its own that answers every A and AAAA question at once: `python -m interop.bench.names`.
Its latency is that of a bare socket that asks the same two questions, one after the other turn, in the same rounds.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import dns.message
import dns.rdatatype

from interop.bench.plan import Answer, Pace
from interop.bench.processes import Child
from interop.bench.report import Line
from relay.resolver import Resolver
from relay.settings import ResolverSettings, Upstream

__all__ = ["main", "run_names"]

_NAME = "names"
_NAMES = 1000
_QUESTIONS = 400
_SOON = 10.0
_ANSWERS = {
    dns.rdatatype.A: b"\xc0\x0c\0\1\0\1\0\0\1\x2c\0\4" + ip_address("192.0.2.1").packed,
    dns.rdatatype.AAAA: b"\xc0\x0c\0\x1c\0\1\0\0\1\x2c\0\x10" + ip_address("2001:db8::1").packed,
}


def main() -> int:
    """Answer questions on a free port, which is printed, until killed; returns 0."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        print(sock.getsockname()[1], flush=True)
        while True:
            query, address = sock.recvfrom(4096)
            end = query.index(0, 12) + 5
            rdtype = int.from_bytes(query[end - 4 : end - 2], "big")
            head = query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
            sock.sendto(head + query[12:end] + _ANSWERS[dns.rdatatype.RdataType(rdtype)], address)


def run_names(folder: Path, pace: Pace) -> list[Line]:
    """Measure the rows.

    Args:
        folder: where the upstream's log is kept.
        pace: how long.

    Raises:
        ChildError: the upstream did not start.
    """
    cached = Line(_NAME, "names/cached", "per CPU s")
    direct, added = (Line(_NAME, f"names/{what}", "us") for what in ("upstream", "uncached/added"))
    with Child("upstream", [sys.executable, "-m", "interop.bench.names"], None, folder) as child:
        upstream = Upstream(ip_address("127.0.0.1"), int(child.read_line(_SOON)))
        for _ in range(pace.rounds):
            answer = asyncio.run(_measure(upstream, pace.seconds))
            cached.add(answer, lambda one: float(one["cached"]))
            direct.add(answer, lambda one: float(one["direct"] * 1e6))
            added.add(answer, lambda one: float((one["uncached"] - one["direct"]) * 1e6))
    return [cached, direct, added]


async def _measure(upstream: Upstream, seconds: float) -> Answer:
    async with Resolver(ResolverSettings(), [upstream]) as resolver:
        direct: list[float] = []
        uncached: list[float] = []
        for number in range(_QUESTIONS):
            started = time.perf_counter()
            await resolver.resolve(f"u{number}.example")
            uncached.append(time.perf_counter() - started)
            started = time.perf_counter()
            await _ask(upstream, f"d{number}.example")
            direct.append(time.perf_counter() - started)
        return {
            "cached": await _cached(resolver, seconds),
            "direct": statistics.median(direct),
            "uncached": statistics.median(uncached),
        }


async def _ask(upstream: Upstream, name: str) -> None:
    """Ask for both families at once by a bare socket, as the resolver does, and read nothing of the answers."""
    loop = asyncio.get_running_loop()
    queries = [dns.message.make_query(name, rdtype).to_wire() for rdtype in _ANSWERS]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((str(upstream.address), upstream.port))
        for query in queries:
            sock.send(query)
        for _ in queries:
            await loop.sock_recv(sock, 4096)


async def _cached(resolver: Resolver, seconds: float) -> float:
    """Count look-ups in a second of CPU, over many names."""
    names = [f"c{number}.example" for number in range(_NAMES)]
    for name in names:
        await resolver.resolve(name)
    started = time.process_time()
    done = 0
    while (taken := time.process_time() - started) < seconds:
        for name in names:
            await resolver.resolve(name)
        done += len(names)
    return done / taken


if __name__ == "__main__":
    sys.exit(main())
