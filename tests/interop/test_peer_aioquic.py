"""The aioquic peer's driver: it speaks the protocol of interop/peers/README.md, and what it says of a relay is so."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.conformance.driver import Feature, pattern
from relay.quic.development import write_certificates
from tests.e2e.origins import closed_port, tcp_echo, tcp_listener, udp_origin
from tests.e2e.rig import KEY, Relay, running_relay

pytestmark = pytest.mark.anyio

_FOLDER = Path(__file__).parents[2] / "interop" / "peers" / "aioquic"
_CREDENTIALS = [["proxy-authorization", f"Preshared {KEY}"]]
_HOST = "127.0.0.1"

Values = dict[str, Any]


class DriverProcess:
    """The driver, and requests to it that can overlap."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.stdin = process.stdin
        self.stdout = process.stdout
        self._answers: dict[int, asyncio.Future[Values]] = {}
        self._last_id = 0

    async def read_answers(self) -> None:
        """Give answers to those who asked, until the driver ends."""
        while line := await self.stdout.readline():
            answer = json.loads(line)
            self._answers.pop(answer.pop("id")).set_result(answer)

    def ask(self, verb: str, **arguments: Any) -> asyncio.Future[Values]:
        """Send a request; the future is its answer."""
        self._last_id += 1
        self.stdin.write(json.dumps({"id": self._last_id, "verb": verb, **arguments}).encode() + b"\n")
        future = self._answers[self._last_id] = asyncio.get_running_loop().create_future()
        return future

    async def ok(self, verb: str, **arguments: Any) -> Values:
        """Send a request that must work."""
        async with asyncio.timeout(20):
            answer = await self.ask(verb, **arguments)
        assert answer.keys() == {"ok"}, answer
        ok: Values = answer["ok"]
        return ok

    async def error(self, verb: str, **arguments: Any) -> str:
        """Send a request that must not work."""
        async with asyncio.timeout(20):
            answer = await self.ask(verb, **arguments)
        assert answer.keys() == {"error"}, answer
        return str(answer["error"])

    async def connect(self, relay: Relay, **arguments: Any) -> Values:
        """Connect to the relay; returns its settings."""
        ca_file = str(relay.certificates / "ca.pem")
        template = "/.well-known/masque/udp/{target_host}/{target_port}/"
        ok = await self.ok("connect", url=relay.url, ca=ca_file, template=template, **arguments)
        return dict(ok["settings"])

    async def open(self, kind: str, port: int, **arguments: Any) -> int:
        """Open a tunnel that must be admitted; returns its number."""
        ok = await self.ok("open", kind=kind, host=_HOST, port=port, headers=_CREDENTIALS, **arguments)
        assert ok["status"] == 200, ok
        return int(ok["tunnel"])

    async def echo(self, tunnel: int, payload: bytes) -> None:
        """See a UDP payload come back."""
        assert await self.ok("send_datagrams", tunnel=tunnel, payloads=[_encode(payload)]) == {"sent": 1}
        came = await self.ok("receive_datagrams", tunnel=tunnel, count=1, timeout=5)
        assert came == {"payloads": [_encode(payload)]}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, server.pem and server.key."""
    folder = tmp_path_factory.mktemp("certificates")
    write_certificates(folder, ["localhost", _HOST])
    return folder


@asynccontextmanager
async def running_driver() -> AsyncIterator[tuple[DriverProcess, Values]]:
    """The driver and its greeting. At the end its input ends, and it must follow on its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "driver",
        cwd=_FOLDER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    driver = DriverProcess(process)
    try:
        async with asyncio.timeout(20):
            greeting = json.loads(await driver.stdout.readline())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(driver.read_answers())
            yield driver, greeting
            driver.stdin.close()
            async with asyncio.timeout(10):
                assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def driven_relay(certificates: Path) -> AsyncIterator[tuple[DriverProcess, Relay]]:
    """A relay, and the driver connected to it."""
    async with running_relay(certificates, "qh3") as relay, running_driver() as (driver, _):
        settings = await driver.connect(relay)
        assert settings["8"] == settings["51"] == 1  # extended CONNECT (RFC 9220 §5), H3_DATAGRAM (RFC 9297 §5.1)
        yield driver, relay


def _encode(data: bytes) -> str:
    return b64encode(data).decode()


def _read_traces(folder: Path) -> list[Any]:
    return [trace for path in folder.glob("*.qlog") for trace in json.loads(path.read_text())["traces"]]


async def test_it_greets_with_features_that_exist() -> None:
    async with running_driver() as (_, greeting):
        assert greeting.keys() == {"peer", "version", "features"}
        assert greeting["peer"] == _FOLDER.name
        assert greeting["version"].startswith("aioquic 1.")
        assert set(greeting["features"]) == set(Feature) - {"goaway", "hidden-status", "pages", "tokens", "wire"}


async def test_what_it_cannot_do_is_an_answer_and_the_next_request_is_taken() -> None:
    async with running_driver() as (driver, _):
        assert "unknown verb" in await driver.error("dance")
        assert "not connected" in await driver.error("open", kind="tcp", host=_HOST, port=1)
        assert "url" in await driver.error("connect")
        assert "not connected" in await driver.error("send", tunnel=0, data="")


async def test_tcp(certificates: Path) -> None:
    async with driven_relay(certificates) as (driver, _), tcp_echo() as port:
        tunnel = await driver.open("tcp", port, early=_encode(b"early"))
        assert await driver.ok("receive", tunnel=tunnel, size=5) == {"data": _encode(b"early"), "end": False}
        await driver.ok("send", tunnel=tunnel, pattern=300_000)
        await driver.ok("send", tunnel=tunnel, data=_encode(b"last"), end=True)
        received = await driver.ok("receive_all", tunnel=tunnel)
        content = pattern(300_000) + b"last"
        digest = hashlib.sha256(content).hexdigest()
        assert received == {"size": len(content), "sha256": digest, "end": "fin", "code": None}


async def test_a_reset_has_its_code(certificates: Path) -> None:
    async with driven_relay(certificates) as (driver, _), tcp_listener() as origin:
        tunnel = await driver.open("tcp", origin.port)
        (await origin.accept()).reset()
        assert await driver.ok("wait_end", tunnel=tunnel) == {"end": "reset", "code": 0x10F}
        tunnel = await driver.open("tcp", origin.port)
        peer = await origin.accept()
        await driver.ok("reset", tunnel=tunnel, code=0x10C)
        with pytest.raises(ConnectionResetError):
            await peer.receive()


async def test_udp(certificates: Path) -> None:
    async with driven_relay(certificates) as (driver, relay), udp_origin(echoes=True) as origin:
        tunnel = await driver.open("udp", origin.port, early=_encode(b"early"))
        assert await driver.ok("receive_datagrams", tunnel=tunnel, count=1) == {"payloads": [_encode(b"early")]}
        largest = (await driver.ok("max_payload", tunnel=tunnel))["size"]
        for size in (0, 1, 1200, largest):
            await driver.echo(tunnel, bytes(size))
        too_large = await driver.ok("send_datagrams", tunnel=tunnel, payloads=[_encode(bytes(largest + 1))])
        assert too_large == {"sent": 0}
        unknown = await driver.ok("send_datagrams", tunnel=tunnel, payloads=[_encode(b"context")], context=2)
        assert unknown == {"sent": 1}
        await driver.ok("migrate")
        await driver.echo(tunnel, b"nothing came before this")
        assert await driver.connect(relay, datagrams=False)
        tunnel = await driver.open("udp", origin.port)
        await driver.echo(tunnel, bytes(3000))


async def test_a_refusal_has_its_status_and_headers(certificates: Path) -> None:
    async with driven_relay(certificates) as (driver, _), closed_port() as port:
        refused = await driver.ok("open", kind="tcp", host=_HOST, port=port, headers=_CREDENTIALS)
        assert refused.keys() == {"status", "headers"}
        assert refused["status"] == 502
        assert ["proxy-status", "masque-relay;error=connection_refused"] in refused["headers"]
        unknown = await driver.ok("open", kind="udp", host=_HOST, port=port)
        assert unknown["status"] == 407
        assert "tunnel" not in unknown


async def test_requests_overlap(certificates: Path) -> None:
    async with driven_relay(certificates) as (driver, _), tcp_echo() as port:
        tunnel = await driver.open("tcp", port)
        waiting = driver.ask("receive", tunnel=tunnel, size=4)
        nothing = driver.ask("wait_closed", timeout=0.1)
        others = await asyncio.gather(*(driver.open("tcp", port) for _ in range(20)))
        assert len({tunnel, *others}) == 21
        assert not waiting.done()
        await driver.ok("send", tunnel=tunnel, data=_encode(b"ping"))
        async with asyncio.timeout(5):
            assert b64decode((await waiting)["ok"]["data"]) == b"ping"
            assert (await nothing)["error"].startswith("timeout")


async def test_it_ends_with_its_input_whatever_is_going_on(certificates: Path, tmp_path: Path) -> None:
    async with running_relay(certificates, "qh3") as relay, tcp_echo() as port:
        async with running_driver() as (driver, _):
            await driver.connect(relay, qlog=str(tmp_path))
            tunnel = await driver.open("tcp", port)
            never = driver.ask("receive", tunnel=tunnel, size=1, timeout=60)
        assert not never.done()
        assert driver.process.returncode == 0
        assert _read_traces(tmp_path)
