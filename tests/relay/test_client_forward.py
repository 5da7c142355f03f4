"""relay.client.forward: local ports whose connections and datagrams go through a relay, and outlive it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from relay.auth import generate_key
from relay.client import ClientError, RelayOptions, TcpForwarder, UdpForwarder
from relay.hooks import TunnelKind
from relay.quic.development import write_certificates
from relay.quic.engine import Address, TransportLimits
from relay.telemetry import Metric
from tests.relay.hooks_rig import KINDS
from tests.relay.rig import PATIENCE, eventually, open_sockets, running_relay, tcp_origin, udp_origin, wire_to

pytestmark = pytest.mark.anyio

LOCAL = ("127.0.0.1", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    write_certificates(made, ["127.0.0.1"])
    return made


class Forwarding:
    """A forwarder at work."""

    def __init__(self, kind: TunnelKind) -> None:
        self.kind = kind
        self.address: Address = LOCAL
        self.refusals: list[ClientError] = []

    async def round_trip(self, payload: bytes) -> None:
        """Send and receive through the local port."""
        async with asyncio.timeout(PATIENCE):
            if self.kind is TunnelKind.TCP:
                assert await self.whole(payload) == payload
            else:
                with local_sender(self.address) as sock:
                    await self.ask(sock, payload)

    async def whole(self, payload: bytes) -> bytes:
        """Send over a TCP connection, end it, and return all that comes."""
        reader, writer = await asyncio.open_connection(*self.address[:2])
        try:
            writer.write(payload)
            writer.write_eof()
            return await reader.read()
        finally:
            writer.close()

    async def is_refused(self) -> bool:
        """Whether a TCP connection ends without an answer."""
        try:
            return await self.whole(b"ping") == b""
        except ConnectionResetError:
            return True

    async def ask(self, sock: socket.socket, payload: bytes) -> None:
        """Send a datagram from this socket and wait for its echo."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, payload)
        assert await loop.sock_recv(sock, 65535) == payload


def local_sender(address: Address) -> socket.socket:
    """A UDP socket connected to the forwarder."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.connect(address)
    return sock


@asynccontextmanager
async def forwarding(options: RelayOptions, kind: TunnelKind, port: int) -> AsyncIterator[Forwarding]:
    """A forwarder to a target on loopback."""
    result = Forwarding(kind)
    ready = asyncio.Event()

    def on_ready(address: Address) -> None:
        result.address = address
        ready.set()

    make = TcpForwarder if kind is TunnelKind.TCP else UdpForwarder
    forwarder = make(options, "127.0.0.1", port, result.refusals.append)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(forwarder.run(LOCAL, on_ready))
        async with asyncio.timeout(PATIENCE):
            await ready.wait()
        yield result
        running.cancel()


@pytest.mark.parametrize("kind", KINDS)
async def test_bytes_and_datagrams_go_through(folder: Path, kind: TunnelKind) -> None:
    async with tcp_origin() as tcp, udp_origin() as udp, running_relay(folder) as relay:
        port = tcp.port if kind is TunnelKind.TCP else udp.port
        async with forwarding(relay.options, kind, port) as forward:
            for number in range(5):
                await forward.round_trip(b"payload %d" % number)
            assert forward.refusals == []
            assert relay.metrics.value(Metric.TUNNELS_OPENED, kind) == 5
            assert relay.metrics.value(Metric.CONNECTIONS_OPENED) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_stays_open_behind_a_forwarder(folder: Path, kind: TunnelKind) -> None:
    async with tcp_origin() as tcp, udp_origin() as udp, running_relay(folder) as relay:
        port = tcp.port if kind is TunnelKind.TCP else udp.port
        before = open_sockets()
        async with forwarding(relay.options, kind, port) as forward:
            await forward.round_trip(b"ping")
        await eventually(lambda: relay.server.exchanges == 0)
        await eventually(lambda: open_sockets() <= before)


async def test_one_local_sender_is_one_tunnel(folder: Path) -> None:
    async with (
        udp_origin() as udp,
        running_relay(folder) as relay,
        forwarding(relay.options, TunnelKind.UDP, udp.port) as forward,
        asyncio.timeout(PATIENCE),
    ):
        with local_sender(forward.address) as first, local_sender(forward.address) as second:
            for payload in (b"a", b"b", b""):
                await forward.ask(first, payload)
                await forward.ask(second, payload * 2)
        assert relay.metrics.value(Metric.TUNNELS_OPENED, TunnelKind.UDP) == 2


async def test_large_answers_arrive_whole(folder: Path) -> None:
    payload = bytes(range(256)) * 16384

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(payload)
        writer.write_eof()

    async with (
        tcp_origin(send) as tcp,
        running_relay(folder) as relay,
        forwarding(relay.options, TunnelKind.TCP, tcp.port) as forward,
        asyncio.timeout(PATIENCE),
    ):
        assert await forward.whole(b"") == payload


async def test_a_refused_tunnel_closes_the_local_connection_and_is_told(folder: Path) -> None:
    with socket.create_server(LOCAL) as gone:
        port = gone.getsockname()[1]
    async with running_relay(folder) as relay, forwarding(relay.options, TunnelKind.TCP, port) as forward:
        assert await forward.is_refused()
        assert await forward.is_refused()
        await eventually(lambda: len(forward.refusals) == 2)
        assert [error.status for error in forward.refusals] == [502, 502]
        assert relay.metrics.value(Metric.CONNECTIONS_OPENED) == 1


async def test_no_relay_at_the_start_is_an_error(folder: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(LOCAL)
        port = probe.getsockname()[1]
    before = open_sockets()
    forwarder = TcpForwarder(
        RelayOptions(f"https://127.0.0.1:{port}", ca_file=folder / "ca.pem"), "127.0.0.1", 9, lambda error: None
    )
    with pytest.raises(ClientError):
        async with asyncio.timeout(PATIENCE):
            await forwarder.run(LOCAL, lambda address: None)
    assert open_sockets() == before


@pytest.mark.parametrize("kind", KINDS)
async def test_a_restarted_relay_is_found_again(folder: Path, kind: TunnelKind) -> None:
    key = generate_key()
    async with tcp_origin() as tcp, udp_origin() as udp, AsyncExitStack() as stack:
        port = tcp.port if kind is TunnelKind.TCP else udp.port
        async with running_relay(folder, key=key, limits__drain="0s") as first:
            forward = await stack.enter_async_context(forwarding(first.options, kind, port))
            await forward.round_trip(b"before")
            relay_port = str(first.port)
        async with running_relay(folder, key=key, listen__port=relay_port) as second:
            for number in range(3):
                await forward.round_trip(b"after %d" % number)
            assert second.metrics.value(Metric.CONNECTIONS_OPENED) == 1
            assert forward.refusals == []
            await stack.aclose()


async def test_a_local_sender_outlives_its_relay(folder: Path) -> None:
    key = generate_key()
    async with udp_origin() as udp, AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        async with running_relay(folder, key=key, limits__drain="0s") as first:
            forward = await stack.enter_async_context(forwarding(first.options, TunnelKind.UDP, udp.port))
            sender = stack.enter_context(local_sender(forward.address))
            await forward.ask(sender, b"before")
            relay_port = str(first.port)
        async with running_relay(folder, key=key, listen__port=relay_port) as second:
            await forward.ask(sender, b"after")
            assert second.metrics.value(Metric.TUNNELS_OPENED, TunnelKind.UDP) == 1
            await stack.aclose()


async def test_a_relay_that_is_away_refuses_and_comes_back(folder: Path) -> None:
    key = generate_key()
    async with tcp_origin() as tcp, AsyncExitStack() as stack:
        async with running_relay(folder, key=key, limits__drain="0s") as first:
            forward = await stack.enter_async_context(forwarding(first.options, TunnelKind.TCP, tcp.port))
            relay_port = str(first.port)
        assert await forward.is_refused()
        await eventually(lambda: len(forward.refusals) == 1)
        async with running_relay(folder, key=key, listen__port=relay_port):
            await forward.round_trip(b"after")
            await stack.aclose()


@pytest.mark.slow
async def test_a_path_that_falls_silent_cuts_and_is_tried_anew(folder: Path) -> None:
    async with (
        tcp_origin() as tcp,
        running_relay(folder) as relay,
        wire_to(relay.port) as wire,
        asyncio.timeout(PATIENCE),
    ):
        options = replace(relay.options, url=f"https://127.0.0.1:{wire.port}", limits=TransportLimits(idle=1.0))
        async with forwarding(options, TunnelKind.TCP, tcp.port) as forward:
            reader, writer = await asyncio.open_connection(*forward.address[:2])
            writer.write(b"ping")
            assert await reader.read(100) == b"ping"
            wire.is_cut = True
            with pytest.raises(ConnectionResetError):
                await reader.read(100)
            writer.close()
            wire.is_cut = False
            await forward.round_trip(b"again")
            assert relay.metrics.value(Metric.CONNECTIONS_OPENED) == 2
