"""relay.client: tunnels as a library user has them, against a relay in this process."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from certs.generate import write_certificates
from masque.errors import LocalMisuse
from relay.client import ClientError, RelayOptions, TunnelClosed, TunnelStream, UdpFlow, connect_relay
from relay.hooks import Continue, ExchangeContext, Phase, Reject, TunnelKind
from relay.quic.engine import EngineName, TransportLimits
from relay.telemetry import Metric
from tests.relay.hooks_rig import DENIED, application, hooks_at, round_trip
from tests.relay.rig import PATIENCE, Relay, eventually, open_sockets, running_relay, tcp_origin, udp_origin, wire_to

pytestmark = pytest.mark.anyio

ENGINES = list(EngineName)
LARGE = 12 << 20
"More than all buffers between a sender and a stalled reader hold."
PIECE = bytes(range(256)) * 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    write_certificates(made, ["127.0.0.1"])
    return made


def is_held(relay: Relay) -> bool:
    """Whether the relay gives some stream no more credit."""
    ingress = relay.server._ingress
    return ingress is not None and any(session._held for session in ingress.sessions)


# Byte streams.


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_target_that_does_not_read_stops_the_sender(folder: Path, engine: EngineName) -> None:
    gate, done = asyncio.Event(), asyncio.Event()
    digest = hashlib.sha256()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        while data := await reader.read(1 << 20):
            digest.update(data)
        done.set()

    sent = 0

    async def send(stream: TunnelStream) -> None:
        nonlocal sent
        while sent < LARGE:
            await stream.send(PIECE)
            sent += len(PIECE)
        await stream.send_eof()

    async with (
        tcp_origin(slow, has_small_buffers=True) as tcp,
        running_relay(folder, engine=engine, limits__tunnel_buffer="64KiB") as relay,
        relay.client() as client,
        asyncio.timeout(30),
        asyncio.TaskGroup() as tasks,
    ):
        stream = await client.open_tcp("127.0.0.1", tcp.port)
        sending = tasks.create_task(send(stream))
        await eventually(lambda: is_held(relay) and stream._is_full())
        assert not sending.done()
        assert sent < LARGE
        assert stream._exchange.backlog < 1 << 20
        gate.set()
        await done.wait()
        await sending
        assert digest.digest() == hashlib.sha256(PIECE * (LARGE // len(PIECE))).digest()
        assert not is_held(relay)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_client_that_does_not_read_stops_the_target(folder: Path, engine: EngineName) -> None:
    sent = 0

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while sent < LARGE:
            writer.write(PIECE)
            await writer.drain()
            sent += len(PIECE)
        writer.write_eof()

    async with (
        tcp_origin(send, has_small_buffers=True) as tcp,
        running_relay(folder, engine=engine, limits__tunnel_buffer="64KiB") as relay,
        relay.client() as client,
        asyncio.timeout(30),
    ):
        stream = await client.open_tcp("127.0.0.1", tcp.port)
        await eventually(lambda: stream._is_held)
        digest, size = hashlib.sha256(), 0
        assert sent < LARGE
        while data := await stream.receive():
            assert stream._size < 4 << 20
            digest.update(data)
            size += len(data)
        assert size == LARGE
        assert digest.digest() == hashlib.sha256(PIECE * (LARGE // len(PIECE))).digest()
        assert client.session._held == set()


@pytest.mark.parametrize("engine", ENGINES)
async def test_closing_a_held_stream_frees_its_neighbours(folder: Path, engine: EngineName) -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(PIECE)
            await writer.drain()

    async with (
        tcp_origin(flood) as flooding,
        tcp_origin() as echoing,
        running_relay(folder, engine=engine) as relay,
        relay.client() as client,
    ):
        stream = await client.open_tcp("127.0.0.1", flooding.port)
        await eventually(lambda: stream._is_held)
        await stream.aclose()
        await round_trip(client, TunnelKind.TCP, echoing.port)
        assert client.session._held == set()
        await eventually(lambda: relay.server.exchanges == 0)


@pytest.mark.parametrize("max_bytes", [1, 3, 100])
async def test_receive_gives_at_most_max_bytes(folder: Path, max_bytes: int) -> None:
    async with tcp_origin() as tcp, running_relay(folder) as relay, relay.client() as client:
        stream = await client.open_tcp("127.0.0.1", tcp.port)
        await stream.send(b"0123456789")
        await stream.send_eof()
        pieces = []
        while piece := await stream.receive(max_bytes):
            pieces.append(piece)
        assert b"".join(pieces) == b"0123456789"
        assert max(map(len, pieces)) <= max_bytes
        assert await stream.receive(max_bytes) == b""


async def test_the_answer_to_the_end_still_arrives(folder: Path) -> None:
    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"%d bytes" % len(await reader.read()))

    async with tcp_origin(count) as tcp, running_relay(folder) as relay, relay.client() as client:
        stream = await client.open_tcp("127.0.0.1", tcp.port)
        await stream.send(b"x" * 1000)
        await stream.send_eof()
        await stream.send_eof()
        with pytest.raises(TunnelClosed):
            await stream.send(b"more")
        assert await stream.receive() == b"1000 bytes"
        assert await stream.receive() == b""
        assert client.session.exchanges == {}
        await eventually(lambda: relay.server.exchanges == 0)


async def test_a_target_that_ends_first_still_hears_us(folder: Path) -> None:
    heard = asyncio.get_running_loop().create_future()

    async def half_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write_eof()
        heard.set_result(await reader.read())

    async with tcp_origin(half_close) as tcp, running_relay(folder) as relay, relay.client() as client:
        stream = await client.open_tcp("127.0.0.1", tcp.port)
        async with asyncio.timeout(PATIENCE):
            assert await stream.receive() == b""
            await stream.send(b"late")
            await stream.send_eof()
            assert await heard == b"late"


async def test_closing_resets_the_target_and_wakes_who_waits(folder: Path) -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        except ConnectionResetError:
            ended.set_result("reset")
        else:
            ended.set_result("end")

    async with tcp_origin(listen) as tcp, running_relay(folder) as relay, relay.client() as client:
        stream = await client.open_tcp("127.0.0.1", tcp.port)
        receiving = asyncio.create_task(stream.receive())
        await asyncio.sleep(0)
        await stream.aclose()
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(TunnelClosed):
                await receiving
            assert await ended == "reset"
        with pytest.raises(TunnelClosed):
            await stream.send(b"x")
        await stream.send_eof()
        await stream.aclose()
        assert client.session.exchanges == {}


async def test_a_send_that_waits_is_told_that_the_tunnel_was_cut(folder: Path) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with (
        tcp_origin(never, has_small_buffers=True) as tcp,
        running_relay(folder) as relay,
        relay.client() as client,
    ):
        stream = await client.open_tcp("127.0.0.1", tcp.port)

        sending = asyncio.create_task(stream.send(bytes(LARGE)))
        await eventually(lambda: stream._writable._future is not None)
        await stream.aclose()
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(TunnelClosed):
                await sending


async def test_a_last_piece_that_waits_is_told_too(folder: Path) -> None:
    async with tcp_origin() as tcp, running_relay(folder) as relay, relay.client() as client:
        stream = await client.open_tcp("127.0.0.1", tcp.port)
        sending = asyncio.create_task(stream.send(bytes(512 << 10)))
        await asyncio.sleep(0)
        assert stream._writable._future is not None
        await stream.aclose()
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(TunnelClosed):
                await sending


async def test_many_tunnels_leave_nothing(folder: Path) -> None:
    async with (
        tcp_origin() as tcp,
        udp_origin() as udp,
        running_relay(folder) as relay,
        relay.client() as client,
    ):
        for _ in range(100):
            await round_trip(client, TunnelKind.TCP, tcp.port)
            await round_trip(client, TunnelKind.UDP, udp.port)
        await eventually(lambda: relay.server.exchanges == 0)
        assert client.session.exchanges == {}
        await eventually(lambda: client.session.machine.open_requests == 0)


# Datagrams.


async def test_a_flow_keeps_its_newest_payloads(folder: Path) -> None:
    async with udp_origin() as udp, running_relay(folder) as relay, relay.client() as client:
        flow = UdpFlow(await client.open_udp_exchange("127.0.0.1", udp.port), queue=3)
        for number in range(10):
            flow.send(b"%d" % number)
        await eventually(lambda: bool(flow._queue) and flow._queue[-1] == b"9")
        assert [await flow.receive() for _ in range(3)] == [b"7", b"8", b"9"]


@pytest.mark.parametrize("engine", ENGINES)
async def test_payloads_of_every_size_pass_or_are_refused(folder: Path, engine: EngineName) -> None:
    async with udp_origin() as udp, running_relay(folder, engine=engine) as relay, relay.client() as client:
        flow = await client.open_udp("127.0.0.1", udp.port)
        async with asyncio.timeout(PATIENCE):
            for size in (1, 1200, 1252, 0):
                assert flow.send(bytes(size))
                assert await flow.receive() == bytes(size)
        assert not flow.send(bytes(2000))


@pytest.mark.parametrize("engine", ENGINES)
async def test_capsules_carry_what_no_datagram_can(folder: Path, engine: EngineName) -> None:
    async with udp_origin() as udp, running_relay(folder, engine=engine) as relay:
        options = replace(relay.options, wants_datagrams=False)
        async with relay.client(options) as client, asyncio.timeout(PATIENCE):
            flow = await client.open_udp("127.0.0.1", udp.port)
            for size in (1, 1252, 9000, 0):
                assert flow.send(bytes(size))
                assert await flow.receive() == bytes(size)


async def test_a_closed_flow_says_so(folder: Path) -> None:
    async with udp_origin() as udp, running_relay(folder) as relay, relay.client() as client:
        flow = await client.open_udp("127.0.0.1", udp.port)
        receiving = asyncio.create_task(flow.receive())
        await asyncio.sleep(0)
        await flow.aclose()
        await flow.aclose()
        with pytest.raises(TunnelClosed):
            await receiving
        with pytest.raises(TunnelClosed):
            flow.send(b"x")
        await eventually(lambda: relay.server.exchanges == 0)


# The connection.


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
        writer.write(PIECE * 60)
        writer.write_eof()

    async with tcp_origin(send) as tcp, running_relay(folder, engine=engine) as relay, relay.client() as client:
        async with asyncio.timeout(PATIENCE):
            stream = await client.open_tcp("127.0.0.1", tcp.port)
            await stream.send_eof()
            relay.server.stop()
            await eventually(lambda: client.is_draining)
            start.set()
            size = 0
            while data := await stream.receive():
                size += len(data)
            assert size == len(PIECE) * 60
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
