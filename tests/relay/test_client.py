"""relay.client: one connection to a relay, how it is made, refused, drained and lost."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from masque.errors import LocalMisuse
from relay.client import ClientError, RelayOptions, TunnelClosed, connect_relay
from relay.hooks import Continue, ExchangeContext, Phase, Reject
from relay.quic.development import write_certificates
from relay.quic.engine import EngineName, TransportLimits
from relay.telemetry import Metric
from tests.relay.hooks_rig import DENIED, application, hooks_at
from tests.relay.rig import PATIENCE, eventually, open_sockets, running_relay, tcp_origin, udp_origin, wire_to

pytestmark = pytest.mark.anyio

ENGINES = list(EngineName)
PIECE = bytes(range(256)) * 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    write_certificates(made, ["127.0.0.1"])
    return made


async def test_a_relay_that_closes_ends_everything(folder: Path) -> None:
    async with (
        tcp_origin() as tcp,
        udp_origin() as udp,
        running_relay(folder, limits__drain="0s") as relay,
        relay.client() as client,
        asyncio.timeout(PATIENCE),
    ):
        stream = await client.open_tcp("127.0.0.1", tcp.port)
        flow = await client.open_udp("127.0.0.1", udp.port)
        relay.server.stop()
        with pytest.raises(TunnelClosed):
            await stream.receive()
        with pytest.raises(TunnelClosed):
            await flow.receive()
        await client.closed.wait()
        assert not client.is_usable
        with pytest.raises(ClientError):
            await client.open_tcp("127.0.0.1", tcp.port)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_relay_that_falls_silent_is_noticed_on_both_sides(folder: Path, engine: EngineName) -> None:
    async with (
        tcp_origin() as tcp,
        running_relay(folder, engine=engine, limits__idle="1s") as relay,
        wire_to(relay.port) as wire,
    ):
        options = replace(relay.options, url=f"https://127.0.0.1:{wire.port}", limits=TransportLimits(idle=1.0))
        async with relay.client(options) as client, asyncio.timeout(PATIENCE):
            stream = await client.open_tcp("127.0.0.1", tcp.port)
            wire.is_cut = True
            with pytest.raises(TunnelClosed):
                await stream.receive()
            assert client.closed.is_set()
            assert not client.is_usable
            await eventually(lambda: relay.server.exchanges == relay.server.connections == 0)


async def test_a_relay_that_drains_keeps_tunnels_and_takes_no_more(folder: Path) -> None:
    async with tcp_origin() as tcp, running_relay(folder) as relay, relay.client() as client:
        async with asyncio.timeout(PATIENCE):
            stream = await client.open_tcp("127.0.0.1", tcp.port)
            relay.server.stop()
            await eventually(lambda: client.is_draining)
            with pytest.raises(ClientError):
                await client.open_tcp("127.0.0.1", tcp.port)
            await stream.send(b"still")
            assert await stream.receive() == b"still"
            await stream.send_eof()
            assert await stream.receive() == b""
            await client.closed.wait()
            assert relay.metrics.value(Metric.LIMITS_HIT) == 0


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_drain_loses_nothing_of_the_last_tunnel(folder: Path, engine: EngineName) -> None:
    start = asyncio.Event()

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await start.wait()
        writer.write(PIECE * 16)
        writer.write_eof()

    async with (
        tcp_origin(send) as tcp,
        running_relay(folder, engine=engine, limits__drain="30s") as relay,
        relay.client() as client,
    ):
        async with asyncio.timeout(PATIENCE):
            stream = await client.open_tcp("127.0.0.1", tcp.port)
            await stream.send_eof()
            relay.server.stop()
            await eventually(lambda: client.is_draining)
            start.set()
            size = 0
            while data := await stream.receive():
                size += len(data)
            assert size == len(PIECE) * 16
            await client.closed.wait()


async def test_a_refusal_while_draining_is_heard(folder: Path) -> None:
    decided = asyncio.Event()

    async def decide(_ctx: ExchangeContext) -> object:
        await decided.wait()
        return Reject(DENIED)

    async with (
        running_relay(folder, application(hooks_at(Phase.AUTHORIZE, decide))) as relay,
        relay.client() as client,
        asyncio.timeout(PATIENCE),
    ):
        opening = asyncio.create_task(client.open_tcp("127.0.0.1", 9))
        await eventually(lambda: relay.server.exchanges == 1)
        relay.server.stop()
        await eventually(lambda: client.is_draining)
        decided.set()
        with pytest.raises(ClientError) as raised:
            await opening
        assert raised.value.status == 403


@contextlib.contextmanager
def soon() -> Iterator[None]:
    """The block takes far less than the client's patience."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < PATIENCE / 3


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_certificate_of_a_stranger_is_refused(folder: Path, tmp_path: Path, engine: EngineName) -> None:
    write_certificates(tmp_path, ["127.0.0.1"])
    async with running_relay(folder, engine=engine) as relay:
        options = replace(relay.options, ca_file=tmp_path / "ca.pem")
        with soon(), pytest.raises(ClientError):
            async with relay.client(options):
                pytest.fail("connected")
        await eventually(lambda: relay.metrics.value(Metric.HANDSHAKES_FAILED) == 1)
        assert relay.server.connections == 0


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_certificate_for_another_name_is_refused(tmp_path: Path, engine: EngineName) -> None:
    write_certificates(tmp_path, ["relay.test", "127.0.0.2"])
    async with running_relay(tmp_path, engine=engine) as relay:
        with soon(), pytest.raises(ClientError):
            async with relay.client():
                pytest.fail("connected")
        async with relay.client(replace(relay.options, is_verified=False)) as client:
            assert client.is_usable


async def test_nobody_listening_is_noticed_at_once() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    before = open_sockets()
    for engine in ENGINES:
        options = RelayOptions(f"https://127.0.0.1:{port}", is_verified=False, engine=engine, timeout=PATIENCE)
        with soon(), pytest.raises(ClientError):
            async with connect_relay(options):
                pytest.fail("connected")
    assert open_sockets() == before


async def test_a_silent_server_is_given_up(folder: Path) -> None:
    before = open_sockets()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        with soon(), pytest.raises(ClientError, match="did not answer"):
            async with connect_relay(RelayOptions(url, ca_file=folder / "ca.pem", timeout=0.2)):
                pytest.fail("connected")
    assert open_sockets() == before


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "https://", "127.0.0.1:1", "https://127.0.0.1:99999", "https://[::1", "https://h:x"]
)
async def test_a_bad_url_is_an_error_of_ours(url: str) -> None:
    with pytest.raises(ClientError):
        async with connect_relay(RelayOptions(url)):
            pytest.fail("connected")


async def test_a_missing_authority_file_is_an_error_of_ours(tmp_path: Path) -> None:
    for engine in ENGINES:
        options = RelayOptions("https://127.0.0.1:1", ca_file=tmp_path / "none.pem", engine=engine)
        with pytest.raises(ClientError):
            async with connect_relay(options):
                pytest.fail("connected")


async def test_a_relay_that_does_not_decide_in_time_is_given_up(folder: Path) -> None:
    async def decide(_ctx: ExchangeContext) -> object:
        await asyncio.Event().wait()
        return Continue()

    async with (
        running_relay(folder, application(hooks_at(Phase.AUTHORIZE, decide))) as relay,
        relay.client(replace(relay.options, timeout=0.2)) as client,
    ):
        with soon(), pytest.raises(ClientError, match="no answer"):
            await client.open_tcp("127.0.0.1", 9)
        assert client.session.exchanges == {}
        assert client.is_usable
        await eventually(lambda: relay.server.exchanges == 0)


async def test_a_target_that_cannot_be_is_not_even_asked_for(folder: Path) -> None:
    async with running_relay(folder) as relay, relay.client() as client:
        for host, port in (("bad host", 1), ("127.0.0.1", 0), ("127.0.0.1", 65536), ("", 1)):
            with pytest.raises(LocalMisuse):
                await client.open_tcp(host, port)
            with pytest.raises(LocalMisuse):
                await client.open_udp(host, port)
        assert client.session.exchanges == {}


def test_options_show_no_secret() -> None:
    shown = repr(RelayOptions("https://relay.test", key="secret-key", authorization="secret-value"))
    assert "secret" not in shown
