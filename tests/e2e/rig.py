"""A relay for end-to-end tests: in this process's loop, or as a real one of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import structlog.testing

from relay.auth import generate_key, preshared_entry
from relay.client import RelayClient, RelayOptions, connect_relay
from relay.conformance.wire import WireClient, WireOptions, connect_wire
from relay.quic.engine import EngineName
from relay.server import Server, prepare
from relay.settings import load_settings
from relay.telemetry import CounterMetrics, Metric
from tests.relay.dns_server import DnsServer

__all__ = [
    "ENGINES",
    "KEY",
    "Relay",
    "RelayProcess",
    "command_environment",
    "resolving",
    "running_process",
    "running_relay",
    "settings_of",
    "start_command",
    "until",
]

ENGINES = [name.value for name in EngineName]
KEY = generate_key()
"The key that every relay of these tests admits."

_FOLDER = Path(__file__).parents[2]
_SERVING = re.compile(r"relay: serving HTTP/3 on \[?([0-9a-f.:]+?)\]?:(\d+) with (\w+)\n")


def settings_of(certificates: Path, engine: str, overrides: Mapping[str, str]) -> dict[str, str]:
    """The settings of a relay that reaches loopback targets and asks no real resolver."""
    return {
        "tls.certificate": str(certificates / "server.pem"),
        "tls.private_key": str(certificates / "server.key"),
        "listen.port": "0",
        "quic.engine": engine,
        "auth.preshared": json.dumps([preshared_entry(KEY)]),
        "policy.allow": '["127.0.0.0/8", "::1/128"]',
        "resolver.upstreams": '["127.0.0.1:9"]',
        "limits.drain": "2",
        **overrides,
    }


def resolving(server: DnsServer, **more: str) -> dict[str, str]:
    """Settings of a relay that asks this server."""
    upstream = f"{server.upstream.address}:{server.upstream.port}"
    return {"resolver.upstreams": json.dumps([upstream]), **more}


async def until(fact: Callable[[], object], *, within: float = 5.0) -> None:
    """Wait until `fact()` is true of something that cannot be awaited, such as a count."""
    async with asyncio.timeout(within):
        while not fact():  # noqa: ASYNC110 - a count or a process's memory tells nobody that it changed
            await asyncio.sleep(0.01)


class _Reachable:
    """What both kinds of relay offer: their address, and clients."""

    def __init__(self, certificates: Path, port: int, host: str = "127.0.0.1") -> None:
        self.certificates = certificates
        self.locate(host, port)

    def locate(self, host: str, port: int) -> None:
        """Set where the relay listens."""
        self.host = host
        self.port = port
        self.url = f"https://{f'[{host}]' if ':' in host else host}:{port}"

    def client(
        self, engine: str = "qh3", key: str | None = KEY, **options: Any
    ) -> AbstractAsyncContextManager[RelayClient]:
        """Connect the client library."""
        ca_file = self.certificates / "ca.pem"
        return connect_relay(RelayOptions(self.url, key=key, ca_file=ca_file, engine=EngineName(engine), **options))

    def wire(self, engine: str = "qh3", **options: Any) -> AbstractAsyncContextManager[WireClient]:
        """Connect a client that shows and sends everything as it is on the wire."""
        ca_file, credentials = self.certificates / "ca.pem", ((b"proxy-authorization", b"Preshared " + KEY.encode()),)
        return connect_wire(
            WireOptions(self.host, self.port, EngineName(engine), ca_file=ca_file, credentials=credentials, **options)
        )


class Relay(_Reachable):
    """A relay in this process."""

    def __init__(self, certificates: Path, server: Server, metrics: CounterMetrics) -> None:
        super().__init__(certificates, server.address[1], server.address[0])
        self.server = server
        self.metrics = metrics

    def count(self, metric: Metric, *labels: Any) -> int:
        """A metric's value now."""
        return self.metrics.value(metric, *labels)

    async def idle(self) -> None:
        """Wait until no exchange and no tunnel is left."""
        await until(lambda: not self.server.exchanges and not self.count(Metric.TUNNELS_ACTIVE))


@asynccontextmanager
async def running_relay(
    certificates: Path, engine: str, overrides: Mapping[str, str] | None = None
) -> AsyncIterator[Relay]:
    """Run a relay; afterwards drain it and check that nothing is left open and nothing went wrong inside."""
    settings = load_settings(None, {}, settings_of(certificates, engine, overrides or {}))
    metrics = CounterMetrics()
    with structlog.testing.capture_logs() as lines:
        async with asyncio.TaskGroup() as tasks:
            server = Server(prepare(settings), metrics)
            serving = tasks.create_task(server.run())
            await server.is_ready.wait()
            try:
                yield Relay(certificates, server, metrics)
            finally:
                server.stop()
                async with asyncio.timeout(10):
                    await serving
    faults = [line for line in lines if line["log_level"] in ("error", "critical")]
    assert not faults, f"the relay logged faults: {faults}"
    for gauge in (Metric.TUNNELS_ACTIVE, Metric.CONNECTIONS_ACTIVE):
        assert metrics.value(gauge) == 0, f"{gauge.metric_name} is {metrics.value(gauge)} after the end"
    opened, closed = metrics.value(Metric.TUNNELS_OPENED), metrics.value(Metric.TUNNELS_CLOSED)
    assert opened == closed, f"{opened} tunnels opened, {closed} closed"


class RelayProcess(_Reachable):
    """A relay in a process of its own."""

    def __init__(self, certificates: Path, process: asyncio.subprocess.Process) -> None:
        super().__init__(certificates, 0)
        self.process = process
        self._lines: list[str] = []

    @property
    def output(self) -> str:
        """Standard output and error so far; all of it once the process has ended."""
        return "".join(self._lines)

    @property
    def is_serving(self) -> bool:
        """True once the relay has said where it listens."""
        return self.port != 0

    async def read(self, stream: asyncio.StreamReader) -> None:
        """Collect output until it ends."""
        while line := (await stream.readline()).decode():
            self._lines.append(line)
            match = _SERVING.fullmatch(line)
            if match is not None:
                self.locate(match[1], int(match[2]))

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the process and wait for its end; returns its exit code."""
        self.process.send_signal(number)
        async with asyncio.timeout(15):
            return await self.process.wait()


@asynccontextmanager
async def running_process(
    certificates: Path,
    engine: str,
    overrides: Mapping[str, str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    module: Sequence[str] = ("relay",),
) -> AsyncIterator[RelayProcess]:
    """Run `python -m relay serve`; at the end it is stopped, if the test did not, and all its output is there."""
    options = [f"--set={name}={value}" for name, value in settings_of(certificates, engine, overrides or {}).items()]
    process = await start_command("serve", *options, *arguments, environ=environ, module=module)
    assert process.stdout is not None
    relay = RelayProcess(certificates, process)
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(relay.read(process.stdout))
        try:
            await until(lambda: relay.is_serving or reading.done(), within=15)
            assert relay.is_serving, f"the relay did not start: {relay.output}"
            yield relay
        finally:
            if process.returncode is None:
                process.terminate()
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            await reading


async def start_command(
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    stderr: int = asyncio.subprocess.STDOUT,
    module: Sequence[str] = ("relay",),
) -> asyncio.subprocess.Process:
    """Start `python -m relay` with these arguments, its output piped, and no setting from our environment.

    `module` is another module to run, and what it is given before the arguments.
    """
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *module,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        cwd=_FOLDER,
        env=command_environment(environ),
    )


def command_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment without settings of a relay, and with these variables."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}, **(environ or {})}
