"""Clients and targets that misbehave: each costs a datagram, a stream or its own connection, never a neighbour."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest

from masque.capsule import encode_capsule
from masque.datagram import encode_prefix
from masque.errors import ErrorCode
from masque.varint import encode_varint
from relay.client import ClientError, RelayClient, TunnelStream, UdpFlow
from relay.quic.engine import TransportLimits
from relay.telemetry import LimitName, Metric
from tests.e2e.conftest import StartProcess, StartRelay
from tests.e2e.origins import TcpPeer, tcp_echo, tcp_listener, udp_origin
from tests.e2e.rig import Relay, RelayProcess, until
from tests.e2e.wire import WireClient, WireStream, frame, headers
from tests.relay.dns_server import running_server, silent

pytestmark = pytest.mark.anyio

_STREAM_LIMIT_ERROR = 0x4
_MIB = 1 << 20
_METHOD = (b":method", b"CONNECT")
_AUTHORITY = (b":authority", b"127.0.0.1:80")


class Neighbour:
    """A client that behaves, with a TCP and a UDP tunnel to echoes."""

    def __init__(self, stream: TunnelStream, flow: UdpFlow) -> None:
        self.stream = stream
        self.flow = flow

    async def echoes(self, within: float = 2.0) -> None:
        """Both tunnels carry something there and back, soon."""
        async with asyncio.timeout(within):
            text = os.urandom(16)
            await self.stream.send(text)
            data = b""
            while len(data) < len(text):
                more = await self.stream.receive()
                assert more, "the neighbour's tunnel ended"
                data += more
            assert data == text
            for size in (0, 1200):
                payload = os.urandom(size)
                assert self.flow.send(payload)
                assert await self.flow.receive() == payload


@asynccontextmanager
async def neighbour(relay: Relay | RelayProcess) -> AsyncIterator[Neighbour]:
    """A neighbour on a connection of its own."""
    async with tcp_echo() as port, udp_origin(echoes=True) as origin, relay.client() as client:
        tunnels = await client.open_tcp("127.0.0.1", port), await client.open_udp("127.0.0.1", origin.port)
        yield Neighbour(*tunnels)


async def udp_tunnel(client: WireClient, port: int) -> WireStream:
    """An open UDP tunnel."""
    stream = await client.answered(client.connect_udp("127.0.0.1", port))
    assert stream.status == 200
    return stream


async def still_works(client: WireClient, stream: WireStream) -> None:
    """An echoing UDP tunnel of this very connection carries a payload there and back."""
    text = b"\0" + os.urandom(8)
    client.send_datagram(stream, text[1:])
    await client.until(lambda: text in stream.datagrams)


class TestDatagrams:
    @pytest.mark.parametrize(
        "datagram",
        [b"", b"\x40", b"\xff" * 8, encode_varint(1 << 60)],
        ids=["empty", "half a varint", "too high", "2^60"],
    )
    async def test_impossible_stream_closes_the_connection(self, start_relay: StartRelay, datagram: bytes) -> None:
        async with start_relay() as relay, neighbour(relay) as other, relay.wire() as client:
            client.link.send_datagrams(datagram, b"", 1)
            await client.until(lambda: client.end_code is not None)
            assert client.end_code == ErrorCode.H3_DATAGRAM_ERROR
            await other.echoes()

    async def test_datagram_for_a_byte_stream_costs_the_stream(self, start_relay: StartRelay) -> None:
        async with (
            udp_origin(echoes=True) as origin,
            tcp_listener() as target,
            start_relay() as relay,
            relay.wire() as client,
        ):
            tunnel = await udp_tunnel(client, origin.port)
            stream = await client.answered(client.connect("127.0.0.1", target.port))
            client.send_datagram(stream, b"no such thing")
            assert await client.cut(stream) == ErrorCode.H3_DATAGRAM_ERROR
            await still_works(client, tunnel)

    async def test_packets_larger_than_ours(self, start_relay: StartRelay) -> None:
        """A client may send larger packets than the relay does; the payload is the kernel's business then."""
        limits = TransportLimits(max_datagram_size=4000)
        async with udp_origin() as origin, start_relay() as relay, relay.wire("aioquic", limits=limits) as client:
            stream = await udp_tunnel(client, origin.port)
            for size in (3500, 100):
                assert client.send_datagram(stream, bytes(size)) == 1
                async with asyncio.timeout(5):
                    assert len((await origin.receive())[0]) == size

    async def test_flood_for_no_tunnel(self, start_relay: StartRelay) -> None:
        async with start_relay() as relay, neighbour(relay) as other, relay.wire() as client:
            for number in range(2000):
                client.link.send_datagrams(encode_prefix(4 * (number + 1000)), bytes(500), 500)
            await other.echoes()
            assert client.end_code is None


class TestRequests:
    MALFORMED = (
        ("no authority", headers(_METHOD)),
        ("method twice", headers(_METHOD, _METHOD, _AUTHORITY)),
        ("upper case", headers(_METHOD, _AUTHORITY, (b"X-Name", b"value"))),
        ("connection field", headers(_METHOD, _AUTHORITY, (b"connection", b"close"))),
        ("pseudo-header last", headers(_METHOD, (b"name", b"value"), _AUTHORITY)),
        ("line feed", headers(_METHOD, _AUTHORITY, (b"name", b"a\nb"))),
        ("unknown pseudo-header", headers(_METHOD, _AUTHORITY, (b":scheme2", b"https"))),
        ("protocol without path", headers(_METHOD, _AUTHORITY, (b":protocol", b"connect-udp"))),
        ("status", headers((b":status", b"200"))),
    )

    async def test_malformed_request_costs_its_stream(self, start_relay: StartRelay) -> None:
        async with udp_origin(echoes=True) as origin, start_relay() as relay, relay.wire() as client:
            tunnel = await udp_tunnel(client, origin.port)
            for name, data in self.MALFORMED:
                stream = client.open_stream()
                client.send(stream, data)
                assert await client.cut(stream) == ErrorCode.H3_MESSAGE_ERROR, name
                await still_works(client, tunnel)

    async def test_endless_header_section_costs_its_stream(self, start_relay: StartRelay) -> None:
        async with udp_origin(echoes=True) as origin, start_relay() as relay, relay.wire() as client:
            tunnel = await udp_tunnel(client, origin.port)
            stream = client.open_stream()
            client.send(stream, encode_varint(1) + encode_varint(1 << 30) + bytes(100_000))
            assert await client.cut(stream) == ErrorCode.H3_EXCESSIVE_LOAD
            await still_works(client, tunnel)

    async def test_compressed_bomb_costs_its_stream(self, start_relay: StartRelay) -> None:
        async with udp_origin(echoes=True) as origin, start_relay() as relay, relay.wire() as client:
            tunnel = await udp_tunnel(client, origin.port)
            stream = client.open_stream()
            client.send(stream, headers(_METHOD, _AUTHORITY, *((b"cookie", b"") for _ in range(2000))))
            await client.until(lambda: stream.reset is not None or stream.response is not None)
            assert stream.reset == ErrorCode.H3_EXCESSIVE_LOAD or stream.status == 431
            await still_works(client, tunnel)

    async def test_data_before_headers_closes_the_connection(self, start_relay: StartRelay) -> None:
        async with start_relay() as relay, neighbour(relay) as other, relay.wire() as client:
            client.send(client.open_stream(), frame(0, b"no request yet"))
            await client.until(lambda: client.end_code is not None)
            assert client.end_code == ErrorCode.H3_FRAME_UNEXPECTED
            await other.echoes()

    async def test_end_of_the_control_stream_closes_the_connection(self, start_relay: StartRelay) -> None:
        async with start_relay() as relay, neighbour(relay) as other, relay.wire() as client:
            client.send(2, b"", fin=True)
            await client.until(lambda: client.end_code is not None)
            assert client.end_code == ErrorCode.H3_CLOSED_CRITICAL_STREAM
            await other.echoes()


class TestStreams:
    async def test_more_streams_than_allowed(self, start_relay: StartRelay) -> None:
        """A client that does not keep to the stream limit loses its connection (RFC 9000 §4.6)."""
        async with start_relay({"limits.streams": "20"}) as relay, neighbour(relay) as other:
            async with relay.wire("aioquic") as client:
                quic: Any = client.link.engine
                quic._connection._remote_max_streams_bidi = 10_000
                for _ in range(60):
                    client.send(client.open_stream(), b"\x01")
                await client.until(lambda: client.end_code is not None)
                assert client.end_code == _STREAM_LIMIT_ERROR
                await other.echoes()
            await until(lambda: relay.server.connections == 1)

    async def test_rapid_resets(self, start_relay: StartRelay) -> None:
        async with (
            start_relay() as relay,
            neighbour(relay) as other,
            tcp_listener() as target,
            relay.wire() as client,
        ):
            for number in range(1000):
                stream = client.connect("127.0.0.1", target.port)
                client.reset(stream, ErrorCode.H3_REQUEST_CANCELLED)
                if number % 100 == 99:
                    await other.echoes()
            await until(lambda: relay.count(Metric.TUNNELS_ACTIVE) == 2 and relay.server.exchanges == 2)
            assert client.end_code is None

    async def test_capsule_that_claims_a_gigabyte(self, start_relay: StartRelay) -> None:
        async with udp_origin(echoes=True) as origin, start_relay() as relay, relay.wire() as client:
            tunnel = await udp_tunnel(client, origin.port)
            for kind in (0, 0x1234):
                stream = await udp_tunnel(client, origin.port)
                client.send_content(stream, encode_varint(kind) + encode_varint(1 << 30))
                for _ in range(40):
                    client.send_content(stream, bytes(50_000))
                    await still_works(client, tunnel)
                await still_works(client, stream)
                assert stream.reset is None

    async def test_payload_longer_than_udp_allows(self, start_relay: StartRelay) -> None:
        async with udp_origin(echoes=True) as origin, start_relay() as relay, relay.wire() as client:
            tunnel = await udp_tunnel(client, origin.port)
            stream = await udp_tunnel(client, origin.port)
            client.send_content(stream, encode_capsule(0, b"\0" + bytes(65528)))
            assert await client.cut(stream) == ErrorCode.H3_MESSAGE_ERROR
            await still_works(client, tunnel)


class TestResets:
    """A client that gives up, in every state of a tunnel. Nothing may be left behind."""

    @pytest.mark.parametrize("udp", [False, True])
    async def test_while_resolving(self, start_relay: StartRelay, udp: bool) -> None:
        async with running_server() as server:
            server.answer("slow.example", silent, silent)
            upstream = f"{server.upstream.address}:{server.upstream.port}"
            settings = {"resolver.upstreams": json.dumps([upstream])}
            async with start_relay(settings) as relay, relay.wire() as client, nothing_left(relay):
                stream = client.connect_udp("slow.example", 80) if udp else client.connect("slow.example", 80)
                if udp:
                    client.send_datagram(stream, b"early")
                else:
                    client.send_content(stream, bytes(30_000))
                await until(lambda: server.asked)
                client.reset(stream, ErrorCode.H3_REQUEST_CANCELLED)
                await relay.idle()
                assert relay.metrics.snapshot()["requests_refused", ("client_aborted",)] == 1

    async def test_while_connecting(self, start_relay: StartRelay) -> None:
        async with tcp_listener() as origin, start_relay() as relay, relay.wire() as client:
            origin.sock.listen(0)
            with socket.create_connection(("127.0.0.1", origin.port)):  # the backlog is full: SYNs get no answer
                async with nothing_left(relay):
                    stream = client.connect("127.0.0.1", origin.port)
                    await until(lambda: relay.server.exchanges)
                    client.reset(stream, ErrorCode.H3_REQUEST_CANCELLED)
                    await relay.idle()
                    assert relay.metrics.snapshot()["requests_refused", ("client_aborted",)] == 1

    @pytest.mark.parametrize("udp", [False, True])
    async def test_right_after_the_answer(self, start_relay: StartRelay, udp: bool) -> None:
        async with (
            udp_origin() as flow,
            tcp_listener() as origin,
            start_relay() as relay,
            relay.wire() as client,
            nothing_left(relay),
        ):
            for _ in range(20):
                stream = (
                    client.connect_udp("127.0.0.1", flow.port) if udp else client.connect("127.0.0.1", origin.port)
                )
                await client.answered(stream)
                client.reset(stream, ErrorCode.H3_REQUEST_CANCELLED)

    @pytest.mark.parametrize("how", ["reset", "stop"])
    async def test_mid_transfer(self, start_relay: StartRelay, how: str) -> None:
        async with tcp_listener() as origin, start_relay() as relay, relay.wire() as client, nothing_left(relay):
            stream = await client.answered(client.connect("127.0.0.1", origin.port))
            peer = await origin.accept()
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(send_for_ever(peer))
                client.send_content(stream, bytes(300_000))
                await client.until(lambda: len(stream.data) > 500_000)
                if how == "reset":
                    client.link.reset_stream(stream.stream_id, ErrorCode.H3_REQUEST_CANCELLED)
                else:
                    client.link.stop_sending(stream.stream_id, ErrorCode.H3_REQUEST_CANCELLED)
                await sending
            await client.cut(stream)
            peer.close()

    async def test_connection_cut_mid_transfer(self, start_relay: StartRelay) -> None:
        async with tcp_listener() as origin, start_relay() as relay:
            async with relay.wire() as client:
                stream = await client.answered(client.connect("127.0.0.1", origin.port))
                peer = await origin.accept()
                async with asyncio.TaskGroup() as tasks:
                    sending = tasks.create_task(send_for_ever(peer))
                    await client.until(lambda: len(stream.data) > 500_000)
                    client.link.close(ErrorCode.H3_NO_ERROR)
                    await sending
            await relay.idle()


@asynccontextmanager
async def nothing_left(relay: Relay) -> AsyncIterator[None]:
    """Check that the body leaves neither descriptors nor tasks nor exchanges of the relay behind."""
    process = psutil.Process()
    descriptors, tasks = process.num_fds(), len(asyncio.all_tasks())
    yield
    await relay.idle()
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    assert relay.server.exchanges == 0
    assert process.num_fds() <= descriptors


async def send_for_ever(peer: TcpPeer) -> int:
    """Send zeros until the connection is cut; returns how many went out."""
    sent = 0
    try:
        while True:
            await peer.send(bytes(65536))
            sent += 65536
    except OSError:
        return sent


class Pump:
    """Sends as fast as it may and counts."""

    def __init__(self) -> None:
        self.sent = 0

    async def into_peer(self, peer: TcpPeer) -> None:
        """From a target."""
        try:
            while True:
                await peer.send(bytes(65536))
                self.sent += 65536
        except OSError:
            return

    async def into_stream(self, stream: TunnelStream) -> None:
        """From a client."""
        while True:
            await stream.send(bytes(65536))
            self.sent += 65536

    async def stalled(self, quiet: float = 0.5) -> int:
        """Wait until nothing more goes out for a while; returns how much went."""
        loop = asyncio.get_running_loop()
        seen, since = self.sent, loop.time()
        async with asyncio.timeout(20):
            while not self.sent or loop.time() - since < quiet:
                await asyncio.sleep(0.05)
                if self.sent != seen:
                    seen, since = self.sent, loop.time()
        return self.sent


class TestBackpressure:
    async def test_reader_that_stops(self, start_process: StartProcess) -> None:
        async with start_process() as relay, neighbour(relay) as other, tcp_listener() as origin:
            await other.echoes()
            memory = psutil.Process(relay.process.pid).memory_info
            before = memory().rss
            pump = Pump()
            async with relay.client() as client, asyncio.TaskGroup() as tasks:
                await client.open_tcp("127.0.0.1", origin.port)  # and never received from
                pumping = tasks.create_task(pump.into_peer(await origin.accept()))
                sent = await pump.stalled()
                grown = memory().rss - before
                await other.echoes()
                pumping.cancel()
            assert sent < 24 * _MIB, f"{sent} bytes were taken of a target that nobody listens to"
            assert grown < 24 * _MIB, f"the relay grew by {grown} bytes"

    async def test_target_that_stops(self, start_process: StartProcess) -> None:
        async with start_process({"limits.write_stall": "60"}) as relay, neighbour(relay) as other:
            async with tcp_listener(receive_buffer=4096) as origin:
                await other.echoes()
                memory = psutil.Process(relay.process.pid).memory_info
                before = memory().rss
                pump = Pump()
                async with relay.client() as client, asyncio.TaskGroup() as tasks:
                    stream = await client.open_tcp("127.0.0.1", origin.port)
                    await origin.accept()  # and never received from
                    pumping = tasks.create_task(pump.into_stream(stream))
                    sent = await pump.stalled()
                    grown = memory().rss - before
                    await other.echoes()
                    pumping.cancel()
            assert sent < 40 * _MIB, f"{sent} bytes were taken for a target that reads nothing"
            assert grown < 40 * _MIB, f"the relay grew by {grown} bytes"

    async def test_many_targets_that_stop(self, start_process: StartProcess) -> None:
        """The connection's own bound holds, however many of its tunnels are stuck."""
        settings = {
            "limits.write_stall": "60",
            "limits.tunnel_buffer": "2MiB",
            "limits.connection_buffer": "4MiB",
        }
        async with (
            start_process(settings) as relay,
            neighbour(relay) as other,
            tcp_listener(receive_buffer=4096) as origin,
            relay.client() as client,
        ):
            streams = [await client.open_tcp("127.0.0.1", origin.port) for _ in range(60)]
            await other.echoes()
            memory = psutil.Process(relay.process.pid).memory_info
            before = memory().rss
            pump = Pump()
            async with asyncio.TaskGroup() as tasks:
                pumping = [tasks.create_task(pump.into_stream(stream)) for stream in streams]
                await pump.stalled()
                grown = memory().rss - before
                await other.echoes()
                for task in pumping:
                    task.cancel()
        assert grown < 28 * _MIB, f"the relay grew by {grown} bytes"

    async def test_all_bytes_arrive_after_the_stop(self, start_relay: StartRelay) -> None:
        blob = os.urandom(12 * _MIB)
        async with start_relay() as relay, tcp_listener(receive_buffer=4096) as origin, relay.client() as client:
            stream = await client.open_tcp("127.0.0.1", origin.port)
            peer = await origin.accept()
            async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(stream.send(blob))
                await until(lambda: relay.server.exchanges == 1)
                received = bytearray(await peer.receive_exactly(1000))
                await asyncio.wait([sending], timeout=0.3)
                received += await peer.receive_exactly(len(blob) - 1000)
            assert received == blob

    async def test_stuck_target_does_not_hold_the_connection(self, start_relay: StartRelay, engine: str) -> None:
        """Where holding one stream holds the connection, a target that takes nothing is cut off in time."""
        async with (
            tcp_echo() as port,
            tcp_listener(receive_buffer=4096) as stuck,
            start_relay({"limits.write_stall": "1"}) as relay,
            relay.client() as client,
        ):
            pump = Pump()
            good = await client.open_tcp("127.0.0.1", port)
            bad = await client.open_tcp("127.0.0.1", stuck.port)
            await stuck.accept()

            async def pump_until_cut() -> None:
                with pytest.raises(Exception, match="tunnel") as caught:
                    await pump.into_stream(bad)
                assert caught.typename == "TunnelClosed"

            async with asyncio.TaskGroup() as tasks:
                pumping = tasks.create_task(pump_until_cut())
                await until(lambda: pump.sent > 4 * _MIB)
                await good.send(b"still there?")
                async with asyncio.timeout(8):
                    assert await good.receive() == b"still there?"
                    if engine == "qh3":
                        await pumping
                    else:
                        await bad.aclose()
            if engine == "qh3":
                assert relay.count(Metric.LIMITS_HIT, LimitName.WRITE_STALL) == 1
                assert relay.metrics.snapshot()["tunnels_closed", ("tcp", "connection_write_timeout")] == 1
            else:
                assert relay.count(Metric.LIMITS_HIT, LimitName.WRITE_STALL) == 0

    async def test_early_data_of_many_waiting_requests(self, start_process: StartProcess) -> None:
        """Requests that wait for their names keep a bounded amount each, and do not stop a neighbour."""
        async with running_server() as server:
            server.answer("slow.example", silent, silent)
            settings = {"resolver.upstreams": json.dumps([f"127.0.0.1:{server.upstream.port}"])}
            async with start_process(settings) as relay, neighbour(relay) as other, relay.wire() as client:
                await other.echoes()
                memory = psutil.Process(relay.process.pid).memory_info
                before = memory().rss
                for _ in range(50):
                    client.send_content(client.connect("slow.example", 80), bytes(2 * _MIB))
                await until(lambda: server.asked)
                for _ in range(10):
                    await other.echoes()
                    await asyncio.sleep(0.05)
                grown = memory().rss - before
            assert grown < 40 * _MIB, f"the relay grew by {grown} bytes"


class TestTargets:
    async def test_target_process_is_killed(self, start_relay: StartRelay) -> None:
        source = (
            "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)\n"
            "c, _ = s.accept()\nwhile True: c.sendall(bytes(65536))"
        )
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", source, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        async with start_relay() as relay, neighbour(relay) as other, relay.wire() as client:
            stream = await client.answered(client.connect("127.0.0.1", port))
            await client.until(lambda: len(stream.data) > 1_000_000)
            process.kill()
            await process.communicate()
            await client.until(lambda: stream.is_ended or stream.reset is not None)
            client.send_content(stream, b"anybody?")
            await client.until(lambda: stream.stopped is not None or stream.reset is not None)
            await until(lambda: relay.server.exchanges == 2)
            await other.echoes()

    async def test_flood_from_a_target(self, start_process: StartProcess) -> None:
        """More datagrams than the client's path takes: the oldest are dropped, memory stays, neighbours go on."""
        async with start_process() as relay, neighbour(relay) as other, udp_origin() as origin:
            async with relay.client() as client:
                memory = psutil.Process(relay.process.pid).memory_info
                before = memory().rss
                flow = await client.open_udp("127.0.0.1", origin.port)
                flow.send(b"go")
                _, address = await origin.receive()
                for _ in range(20):
                    for _ in range(500):
                        origin.send(bytes(1200), address)
                    await other.echoes()
                grown = memory().rss - before
            assert grown < 24 * _MIB, f"the relay grew by {grown} bytes"


class TestGarbage:
    async def test_garbage_at_the_port(self, start_relay: StartRelay) -> None:
        async with start_relay() as relay, neighbour(relay) as other:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.connect((relay.host, relay.port))
                for number in range(1500):
                    sock.send(garbage(number))
                    if number % 100 == 99:
                        await other.echoes()
            await other.echoes()

    async def test_handshakes_that_never_end(self, start_relay: StartRelay) -> None:
        """Initial packets that lead nowhere: above the threshold they cost a Retry, and all are given up in time."""
        settings = {"limits.handshake": "1", "quic.retry_threshold": "8"}
        async with start_relay(settings) as relay, neighbour(relay) as other:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.connect((relay.host, relay.port))
                for _ in range(100):
                    sock.send(initial())
                await until(lambda: relay.count(Metric.RETRIES_SENT) >= 92 - 8)
            await other.echoes()
            assert relay.server.connections <= 10
            await until(lambda: relay.server.connections == 1)
            await other.echoes()


def initial(version: int = 1) -> bytes:
    """An Initial packet's form with random ids and a payload that no key opens."""
    payload = os.urandom(1200 - 30)
    return (
        bytes([0xC3])
        + version.to_bytes(4)
        + bytes([8])
        + os.urandom(8)
        + bytes([8])
        + os.urandom(8)
        + b"\0"
        + encode_varint(len(payload))
        + payload
    ).ljust(1200, b"\0")


def garbage(number: int) -> bytes:
    """A packet that no client sends; each number has its form."""
    match number % 6:
        case 0:
            return os.urandom(number % 1400)
        case 1:
            return bytes([0x40 | os.urandom(1)[0] & 0x3F]) + os.urandom(number % 200 + 8)
        case 2:
            return initial()
        case 3:
            return initial(0x1A2A3A4A)
        case 4:
            return initial()[: number % 1200 + 1]
        case _:
            return bytes([0xC0 | os.urandom(1)[0]]) + b"\0\0\0\1" + os.urandom(1300)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_ten_thousand_tunnels_leave_nothing(start_process: StartProcess) -> None:
    """Tunnels of both kinds, ended in order and by reset: descriptors and memory are as before."""
    async with tcp_echo() as port, udp_origin(echoes=True) as origin, start_process() as relay:
        process = psutil.Process(relay.process.pid)
        async with relay.client(timeout=30.0) as client:
            await open_and_close(client, port, origin.port, 1000)
            await quiet(process)
            descriptors, memory = process.num_fds(), process.memory_info().rss
            await open_and_close(client, port, origin.port, 10_000)
            await quiet(process)
            more, grown = process.num_fds() - descriptors, process.memory_info().rss - memory
    report = f"after 10,000 tunnels: {more:+} descriptors, {grown / 1024:+.0f} KiB"
    print(report)
    assert more <= 0, report
    assert grown < 8 * _MIB, report


async def open_and_close(client: RelayClient, tcp_port: int, udp_port: int, count: int) -> None:
    """Open, use and close so many tunnels, forty at a time, half of them UDP, a third cut off."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            if number % 2:
                stream = await client.open_tcp("127.0.0.1", tcp_port)
                await stream.send(b"x")
                if number % 3:
                    await stream.send_eof()
                    while await stream.receive():
                        pass
                await stream.aclose()
            else:
                flow = await client.open_udp("127.0.0.1", udp_port)
                flow.send(b"x")
                if number % 3:
                    await flow.receive()
                await flow.aclose()

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(40):
                tasks.create_task(work())
    except* ClientError as group:
        raise group.exceptions[0] from None


async def quiet(process: psutil.Process) -> None:
    """Wait until the relay has closed what it closes: its descriptors stay the same for a while."""
    loop = asyncio.get_running_loop()
    seen, since = process.num_fds(), loop.time()
    async with asyncio.timeout(10):
        while loop.time() - since < 0.3:
            await asyncio.sleep(0.05)
            if process.num_fds() != seen:
                seen, since = process.num_fds(), loop.time()
