"""relay.client: tunnels as a library user has them, against a relay in this process."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from relay.client import TunnelClosed, TunnelStream, UdpFlow
from relay.hooks import TunnelKind
from relay.quic.development import write_certificates
from relay.quic.engine import EngineName
from tests.relay.hooks_rig import round_trip
from tests.relay.rig import PATIENCE, Relay, eventually, running_relay, tcp_origin, udp_origin

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
