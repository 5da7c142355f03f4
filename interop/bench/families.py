"""Time to the first byte of a target one of whose families is broken: `python -m interop.bench.families`.

Client, relay and target are one process on loopback, so that figures are what Happy Eyeballs adds (RFC 8305) and not
a network's. A broken family swallows every SYN, as a firewall does, or refuses it. The target has an address of each.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from masque.target import Target
from relay.client import RelayClient, RelayOptions, connect_relay
from relay.hooks import ExchangeContext, Hooks, Replace, Resolution, Verdict
from relay.quic.development import write_certificates
from relay.server import Server, prepare
from relay.settings import Settings, load_settings
from relay.telemetry import LogLevel, NoMetrics, configure_logging

__all__ = ["CASES", "Case", "main", "measure"]

_ADDRESSES = (ip_address("::1"), ip_address("127.0.0.1"))
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Case:
    """A row: what is wrong with the target, and what the relay remembers."""

    name: str
    "What the row is called."
    serving: tuple[str, ...]
    "Addresses that serve."
    swallowing: tuple[str, ...] = ()
    "Addresses that answer nothing. What neither serves nor swallows refuses."
    remember: str = "0"
    "For how long the relay remembers."


CASES = (
    Case("both families serve", ("::1", "127.0.0.1")),
    Case("IPv6 refuses", ("127.0.0.1",)),
    Case("IPv6 swallows, not remembered", ("127.0.0.1",), ("::1",)),
    Case("IPv6 swallows, remembered", ("127.0.0.1",), ("::1",), "60s"),
    Case("IPv4 swallows", ("::1",), ("127.0.0.1",)),
)


async def measure(case: Case, rounds: int) -> list[float]:
    """Measure one row.

    Args:
        case: which.
        rounds: how many tunnels, one after the other. One more goes ahead, uncounted.

    Returns:
        Milliseconds from asking for the tunnel to the target's first byte, for each.
    """
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as folder:
        write_certificates(Path(folder), ["127.0.0.1"])
        async with _target(case) as port, _relay(Path(folder), case.remember) as client:
            return [await _first_byte(client, port) for _ in range(rounds + 1)][1:]


async def _first_byte(client: RelayClient, port: int) -> float:
    started = time.perf_counter()
    async with asyncio.timeout(_PATIENCE):
        stream = await client.open_tcp("target.example", port)
        await stream.receive()
    taken = time.perf_counter() - started
    await stream.aclose()
    return taken * 1000


async def _resolve(ctx: ExchangeContext, target: Target) -> Verdict[Resolution]:
    return Replace(Resolution(_ADDRESSES))


async def _start(settings: Settings) -> Hooks:
    return Hooks(resolve=_resolve)


@asynccontextmanager
async def _relay(folder: Path, remember: str) -> AsyncIterator[RelayClient]:
    """A relay and a client that is connected to it."""
    values = {
        "listen.host": "127.0.0.1",
        "listen.port": "0",
        "tls.certificate": str(folder / "server.pem"),
        "tls.private_key": str(folder / "server.key"),
        "auth.open": "true",
        "policy.allow": '["127.0.0.0/8", "::1/128"]',
        "resolver.upstreams": '["127.0.0.1"]',
        "dial.remember": remember,
    }
    server = Server(prepare(load_settings(None, {}, values)), NoMetrics(), [_start])
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.run())
        await server.is_ready.wait()
        url = f"https://127.0.0.1:{server.address[1]}"
        async with connect_relay(RelayOptions(url, ca_file=folder / "ca.pem")) as client:
            yield client
        server.stop()


@asynccontextmanager
async def _target(case: Case) -> AsyncIterator[int]:
    """A target that says one byte to everybody. Yields its port, the same on all addresses."""

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"!")
        writer.close()

    server = await asyncio.start_server(greet, case.serving[0], 0)
    port: int = server.sockets[0].getsockname()[1]
    others = [await asyncio.start_server(greet, host, port) for host in case.serving[1:]]
    try:
        with _swallowing(case.swallowing, port):
            yield port
    finally:
        for one in (server, *others):
            one.close()


@contextmanager
def _swallowing(hosts: Sequence[str], port: int) -> Iterator[None]:
    """Let addresses answer no SYN: their queue of connections is full, and nobody takes any out."""
    sockets: list[socket.socket] = []
    try:
        for host in hosts:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener, filler = (socket.socket(family, socket.SOCK_STREAM) for _ in range(2))
            sockets += (listener, filler)
            listener.bind((host, port))
            listener.listen(0)
            filler.connect((host, port))
        yield
    finally:
        for sock in sockets:
            sock.close()


def main(arguments: list[str] | None = None) -> int:
    """Measure every row and print them; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m interop.bench.families", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="tunnels for each row")
    options = parser.parse_args(arguments)
    configure_logging(LogLevel.WARNING)
    print(f"{'milliseconds to the first byte':34} {'median':>8} {'slowest':>8}")
    for case in CASES:
        found = asyncio.run(measure(case, options.rounds))
        print(f"{case.name:34} {statistics.median(found):8.1f} {max(found):8.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
