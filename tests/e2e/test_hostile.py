"""Clients and targets that misbehave: each costs a datagram, a stream or its own connection, never a neighbour."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Any

import psutil
import pytest

from masque.capsule import encode_capsule
from masque.datagram import encode_prefix
from masque.errors import ErrorCode
from masque.varint import encode_varint
from relay.conformance.wire import frame, headers
from relay.quic.engine import TransportLimits
from relay.telemetry import Metric
from tests.e2e.conftest import StartProcess, StartRelay
from tests.e2e.neighbour import neighbour, still_works, udp_tunnel
from tests.e2e.origins import tcp_listener, udp_origin
from tests.e2e.rig import until

pytestmark = pytest.mark.anyio

_STREAM_LIMIT_ERROR = 0x4
_MIB = 1 << 20
_METHOD = (b":method", b"CONNECT")
_AUTHORITY = (b":authority", b"127.0.0.1:80")


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
