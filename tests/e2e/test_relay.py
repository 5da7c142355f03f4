"""Tunnels through a running relay over real sockets, TCP and UDP, on both engines."""

from __future__ import annotations

import asyncio
import hashlib
import os

import pytest

from masque.capsule import encode_capsule
from masque.datagram import encode_prefix
from masque.errors import ErrorCode
from relay.client import RelayClient, TunnelClosed, TunnelStream
from relay.telemetry import DropReason, LimitName, Metric
from tests.e2e.conftest import StartRelay
from tests.e2e.origins import tcp_echo, tcp_listener, udp_origin
from tests.e2e.rig import resolving, until
from tests.relay.dns_server import records, running_server

pytestmark = pytest.mark.anyio

CLIENTS = ["qh3", "aioquic"]


async def read_all(stream: TunnelStream) -> bytes:
    """All bytes up to the target's end."""
    data = bytearray()
    while more := await stream.receive():
        data += more
    return bytes(data)


async def next_payload(flow: object, within: float = 5.0) -> bytes:
    """The next UDP payload."""
    async with asyncio.timeout(within):
        payload: bytes = await flow.receive()  # type: ignore[attr-defined]
        return payload


class TestTcp:
    @pytest.mark.parametrize("library", CLIENTS)
    async def test_megabyte_echoes_unharmed(self, start_relay: StartRelay, library: str) -> None:
        blob = os.urandom(1_000_000)
        async with tcp_echo() as port, start_relay() as relay, relay.client(library) as client:
            stream = await client.open_tcp("127.0.0.1", port)
            async with asyncio.TaskGroup() as tasks:
                echoed = tasks.create_task(read_all(stream))
                await stream.send(blob)
                await stream.send_eof()
            assert hashlib.sha256(echoed.result()).digest() == hashlib.sha256(blob).digest()
            await relay.idle()
            assert relay.count(Metric.BYTES_TO_TARGET) == relay.count(Metric.BYTES_TO_CLIENT) == len(blob)
            assert relay.metrics.snapshot()["tunnels_closed", ("tcp", "closed")] == 1

    async def test_client_ends_first(self, start_relay: StartRelay) -> None:
        async with tcp_listener() as origin, start_relay() as relay, relay.client() as client:
            stream = await client.open_tcp("127.0.0.1", origin.port)
            peer = await origin.accept()
            await stream.send(b"question")
            await stream.send_eof()
            assert await peer.receive_all() == b"question"
            await peer.send(b"answer")
            peer.end()
            assert await read_all(stream) == b"answer"
            await relay.idle()
            assert relay.metrics.snapshot()["tunnels_closed", ("tcp", "closed")] == 1

    async def test_target_ends_first(self, start_relay: StartRelay) -> None:
        async with tcp_listener() as origin, start_relay() as relay, relay.client() as client:
            stream = await client.open_tcp("127.0.0.1", origin.port)
            peer = await origin.accept()
            await peer.send(b"banner")
            peer.end()
            assert await read_all(stream) == b"banner"
            await stream.send(b"still there")
            await stream.send_eof()
            assert await peer.receive_all() == b"still there"
            await relay.idle()
            assert relay.metrics.snapshot()["tunnels_closed", ("tcp", "closed")] == 1

    async def test_target_reset_reaches_client(self, start_relay: StartRelay) -> None:
        async with tcp_listener() as origin, start_relay() as relay, relay.wire() as client:
            stream = await client.answered(client.connect("127.0.0.1", origin.port))
            assert stream.status == 200
            peer = await origin.accept()
            await peer.send(b"part")
            await client.until(lambda: stream.data == b"part")
            peer.reset()
            assert await client.cut(stream) == ErrorCode.H3_CONNECT_ERROR
            await client.until(lambda: stream.stopped == ErrorCode.H3_CONNECT_ERROR)
            await relay.idle()
            assert relay.metrics.snapshot()["tunnels_closed", ("tcp", "connection_terminated")] == 1

    async def test_target_reset_after_its_end_reaches_client(self, start_relay: StartRelay) -> None:
        async with tcp_listener() as origin, start_relay() as relay, relay.wire() as client:
            stream = await client.answered(client.connect("127.0.0.1", origin.port))
            peer = await origin.accept()
            peer.end()
            await client.ended(stream)
            peer.reset()
            await client.until(lambda: stream.stopped is not None)
            await relay.idle()
            assert relay.metrics.snapshot()["tunnels_closed", ("tcp", "connection_terminated")] == 1

    async def test_client_reset_reaches_target(self, start_relay: StartRelay) -> None:
        async with tcp_listener() as origin, start_relay() as relay, relay.wire() as client:
            stream = await client.answered(client.connect("127.0.0.1", origin.port))
            peer = await origin.accept()
            client.send_content(stream, b"part")
            assert await peer.receive() == b"part"
            client.reset(stream, ErrorCode.H3_REQUEST_CANCELLED)
            with pytest.raises(ConnectionResetError):
                await peer.receive()
            await relay.idle()
            assert relay.metrics.snapshot()["tunnels_closed", ("tcp", "client_aborted")] == 1

    async def test_connection_end_resets_targets(self, start_relay: StartRelay) -> None:
        async with tcp_listener() as origin, start_relay() as relay:
            async with relay.client() as client:
                await client.open_tcp("127.0.0.1", origin.port)
                peer = await origin.accept()
            with pytest.raises(ConnectionResetError):
                await peer.receive()
            await relay.idle()

    async def test_early_data_arrives_first(self, start_relay: StartRelay) -> None:
        async with tcp_listener() as origin, start_relay() as relay, relay.wire() as client:
            stream = client.connect("127.0.0.1", origin.port)
            client.send_content(stream, b"early ")
            client.send_content(stream, b"bytes", fin=True)
            peer = await origin.accept()
            assert await peer.receive_all() == b"early bytes"
            peer.end()
            await client.ended(stream)
            assert stream.status == 200

    async def test_more_early_data_than_is_kept_is_not_lost(self, start_relay: StartRelay) -> None:
        blob = os.urandom(200_000)
        async with running_server() as dns_server, tcp_listener() as origin:
            gate = dns_server.gate = asyncio.Event()
            dns_server.answer("late.example", records("late.example. 60 IN A 127.0.0.1"))
            settings = resolving(dns_server, **{"limits.early_data": "16KiB"})
            async with start_relay(settings) as relay, relay.wire() as client:
                stream = client.connect("late.example", origin.port)
                client.send_content(stream, blob, fin=True)
                other = await client.answered(client.connect("127.0.0.1", 1))
                assert other.reset is None
                gate.set()
                peer = await origin.accept()
                assert await peer.receive_all() == blob
                peer.end()
                await client.ended(stream)

    async def test_idle_tunnel_is_closed(self, start_relay: StartRelay) -> None:
        async with tcp_listener() as origin, start_relay({"limits.tcp_idle": "1"}) as relay, relay.wire() as client:
            stream = await client.answered(client.connect("127.0.0.1", origin.port))
            peer = await origin.accept()
            assert await client.cut(stream) == ErrorCode.H3_NO_ERROR
            with pytest.raises(ConnectionResetError):
                await peer.receive()
            await relay.idle()
            assert relay.count(Metric.LIMITS_HIT, LimitName.TCP_IDLE) == 1

    async def test_ipv6_target(self, start_relay: StartRelay) -> None:
        async with tcp_echo("::1") as port, start_relay() as relay, relay.client() as client:
            stream = await client.open_tcp("::1", port)
            await stream.send(b"six")
            await stream.send_eof()
            assert await read_all(stream) == b"six"

    async def test_ipv6_relay(self, start_relay: StartRelay) -> None:
        async with tcp_echo() as port, start_relay({"listen.host": "::1"}) as relay, relay.client() as client:
            stream = await client.open_tcp("127.0.0.1", port)
            await stream.send(b"by way of six")
            await stream.send_eof()
            assert await read_all(stream) == b"by way of six"


class TestManyTunnels:
    async def test_more_than_the_limit_wait_their_turn(self, start_relay: StartRelay) -> None:
        async def one(client: RelayClient, port: int, number: int) -> None:
            stream = await client.open_tcp("127.0.0.1", port)
            text = f"tunnel {number}".encode()
            await stream.send(text)
            await gate.wait()
            await stream.send_eof()
            assert await read_all(stream) == text

        async with tcp_echo() as port, start_relay({"limits.streams": "200"}) as relay, relay.client() as client:
            streams = [await client.open_tcp("127.0.0.1", port) for _ in range(150)]
            gate = asyncio.Event()
            assert relay.count(Metric.TUNNELS_ACTIVE) == 150
            async with asyncio.TaskGroup() as tasks:
                for number in range(150):
                    tasks.create_task(one(client, port, number))
                await until(lambda: relay.count(Metric.TUNNELS_ACTIVE) == 200)
                gate.set()
                for stream in streams:
                    await stream.send_eof()
                    assert await read_all(stream) == b""
            await relay.idle()
            assert relay.count(Metric.TUNNELS_OPENED) == 300


class TestUdp:
    @pytest.mark.parametrize("library", CLIENTS)
    async def test_every_size_echoes(self, start_relay: StartRelay, library: str) -> None:
        async with udp_origin(echoes=True) as origin, start_relay() as relay, relay.client(library) as client:
            flow = await client.open_udp("127.0.0.1", origin.port)
            largest = client.session.max_datagram_payload - 2
            assert largest >= 1252, "an inner QUIC Initial must fit"
            for size in (0, 1, 2, 100, 1200, 1252, largest):
                payload = os.urandom(size)
                assert flow.send(payload)
                assert await next_payload(flow) == payload
            assert not flow.send(bytes(largest + 1))
            flow.send(b"after")
            assert await next_payload(flow) == b"after"

    async def test_target_payload_too_big_is_dropped_alone(self, start_relay: StartRelay) -> None:
        async with udp_origin() as origin, start_relay() as relay, relay.client() as client:
            flow = await client.open_udp("127.0.0.1", origin.port)
            flow.send(b"hello")
            _, address = await origin.receive()
            for payload in (b"before", bytes(1400), bytes(9000), b"", b"after"):
                origin.send(payload, address)
            assert [await next_payload(flow) for _ in range(3)] == [b"before", b"", b"after"]
            await flow.aclose()
            await relay.idle()
            assert relay.count(Metric.DATAGRAMS_DROPPED, DropReason.TOO_BIG) == 2

    async def test_nobody_there_closes_the_tunnel(self, start_relay: StartRelay) -> None:
        async with udp_origin() as origin:
            port = origin.port
        async with start_relay() as relay, relay.wire() as client:
            stream = await client.answered(client.connect_udp("127.0.0.1", port))
            assert stream.status == 200
            client.send_datagram(stream, b"anybody?")
            assert await client.cut(stream) == ErrorCode.H3_CONNECT_ERROR
            await relay.idle()
            assert relay.metrics.snapshot()["tunnels_closed", ("udp", "connection_refused")] == 1

    async def test_unknown_contexts_are_dropped(self, start_relay: StartRelay) -> None:
        async with udp_origin(echoes=True) as origin, start_relay() as relay, relay.wire() as client:
            stream = await client.answered(client.connect_udp("127.0.0.1", origin.port))
            for context in (1, 2, 64, 1 << 20):
                client.send_datagram(stream, b"dropped", context)
            client.link.send_datagrams(encode_prefix(stream.stream_id)[:-1], b"", 1)  # not even a context id
            client.send_datagram(stream, b"kept")
            await client.until(lambda: stream.datagrams)
            assert stream.datagrams == [b"\0kept"]

    @pytest.mark.parametrize("library", CLIENTS)
    async def test_early_datagrams_are_kept(self, start_relay: StartRelay, library: str) -> None:
        async with running_server() as server, udp_origin() as origin:
            gate = server.gate = asyncio.Event()
            server.answer("late.example", records("late.example. 60 IN A 127.0.0.1"))
            async with start_relay(resolving(server)) as relay, relay.wire(library) as client:
                stream = client.connect_udp("late.example", origin.port)
                for number in range(3):
                    client.send_datagram(stream, b"early %d" % number)
                await until(lambda: server.asked)
                gate.set()
                received = [(await origin.receive())[0] for _ in range(3)]
                assert received == [b"early 0", b"early 1", b"early 2"]
                assert (await client.answered(stream)).status == 200

    async def test_more_early_datagrams_than_are_kept(self, start_relay: StartRelay) -> None:
        async with running_server() as server, udp_origin() as origin:
            gate = server.gate = asyncio.Event()
            server.answer("late.example", records("late.example. 60 IN A 127.0.0.1"))
            settings = resolving(server, **{"limits.early_datagrams": "4"})
            async with start_relay(settings) as relay, relay.wire() as client:
                stream = client.connect_udp("late.example", origin.port)
                await until(lambda: relay.server.exchanges)
                for number in range(10):
                    client.send_datagram(stream, b"%d" % number)
                await until(lambda: relay.count(Metric.DATAGRAMS_DROPPED, DropReason.EARLY_FULL) == 6)
                gate.set()
                assert [(await origin.receive())[0] for _ in range(4)] == [b"0", b"1", b"2", b"3"]

    async def test_datagrams_before_their_request(self, start_relay: StartRelay) -> None:
        async with udp_origin() as origin, start_relay() as relay, relay.wire() as client:
            first = await client.answered(client.connect_udp("127.0.0.1", origin.port))
            client.link.send_datagrams(encode_prefix(4), b"ahead", 5)
            client.send_datagram(first, b"marker")
            assert (await origin.receive())[0] == b"marker"
            await client.answered(client.connect_udp("127.0.0.1", origin.port))
            assert (await origin.receive())[0] == b"ahead"

    @pytest.mark.parametrize("library", CLIENTS)
    async def test_capsules_instead_of_frames(self, start_relay: StartRelay, library: str) -> None:
        async with (
            udp_origin(echoes=True) as origin,
            start_relay() as relay,
            relay.client(library, wants_datagrams=False) as client,
        ):
            flow = await client.open_udp("127.0.0.1", origin.port)
            for size in (0, 1, 1200, 1500, 9000):
                payload = os.urandom(size)
                assert flow.send(payload)
                assert await next_payload(flow) == payload

    async def test_capsules_are_read_whatever_else_is_announced(self, start_relay: StartRelay) -> None:
        async with udp_origin(echoes=True) as origin, start_relay() as relay, relay.wire() as client:
            stream = await client.answered(client.connect_udp("127.0.0.1", origin.port))
            capsules = encode_capsule(0x1234, bytes(5000)) + encode_capsule(0, b"\0in a capsule")
            for start in range(0, len(capsules), 7):
                client.send_content(stream, capsules[start : start + 7])
            await client.until(lambda: stream.datagrams)
            assert stream.datagrams == [b"\0in a capsule"]

    async def test_end_of_stream_ends_the_tunnel(self, start_relay: StartRelay) -> None:
        async with udp_origin(echoes=True) as origin, start_relay() as relay, relay.wire() as client:
            stream = await client.answered(client.connect_udp("127.0.0.1", origin.port))
            client.send(stream, b"", fin=True)
            await client.ended(stream)
            assert stream.reset is None
            await relay.idle()
            assert relay.metrics.snapshot()["tunnels_closed", ("udp", "closed")] == 1

    async def test_end_inside_a_capsule_is_malformed(self, start_relay: StartRelay) -> None:
        async with udp_origin() as origin, start_relay() as relay, relay.wire() as client:
            stream = await client.answered(client.connect_udp("127.0.0.1", origin.port))
            client.send_content(stream, encode_capsule(0, b"\0cut off")[:-3], fin=True)
            assert await client.cut(stream) == ErrorCode.H3_MESSAGE_ERROR

    async def test_idle_tunnel_is_closed(self, start_relay: StartRelay) -> None:
        async with udp_origin() as origin, start_relay({"limits.udp_idle": "1"}) as relay, relay.wire() as client:
            stream = await client.answered(client.connect_udp("127.0.0.1", origin.port))
            await client.until(lambda: stream.reset is not None or stream.is_ended)
            await relay.idle()
            assert relay.count(Metric.LIMITS_HIT, LimitName.UDP_IDLE) == 1

    async def test_other_senders_are_not_heard(self, start_relay: StartRelay) -> None:
        async with udp_origin() as origin, udp_origin() as stranger, start_relay() as relay, relay.client() as client:
            flow = await client.open_udp("127.0.0.1", origin.port)
            flow.send(b"hello")
            _, address = await origin.receive()
            stranger.send(b"I am the target", address)
            origin.send(b"real", address)
            assert await next_payload(flow) == b"real"

    async def test_ipv6_target(self, start_relay: StartRelay) -> None:
        async with udp_origin("::1", echoes=True) as origin, start_relay() as relay, relay.client() as client:
            flow = await client.open_udp("::1", origin.port)
            flow.send(b"six")
            assert await next_payload(flow) == b"six"

    async def test_close_of_the_relay_ends_a_flow(self, start_relay: StartRelay) -> None:
        async with udp_origin() as origin, start_relay({"limits.drain": "0"}) as relay, relay.client() as client:
            flow = await client.open_udp("127.0.0.1", origin.port)
            relay.server.stop()
            with pytest.raises(TunnelClosed):
                await next_payload(flow)
