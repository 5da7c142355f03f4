"""A server endpoint and packets of strangers: Version Negotiation, Retry, limits, garbage, a library's faults."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import pytest

from relay.quic.engine import EngineFactory, EngineName, TransportLimits, load_factory
from relay.quic.packet import LongHeader, parse_long_header
from relay.telemetry import DropReason, LimitName, Metric
from tests.relay.quic.endpoints import Served, client_to, serve, settled
from tests.relay.quic.network import Network, Pki, library_client
from tests.relay.rig import eventually

pytestmark = pytest.mark.anyio

BODY = bytes(range(256)) * 400


class Raw:
    """A bare UDP socket that talks to a server."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setblocking(False)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, packet: bytes) -> None:
        self._socket.send(packet)

    async def receive(self) -> bytes:
        async with asyncio.timeout(5):
            return await asyncio.get_running_loop().sock_recv(self._socket, 65535)

    def has_answer(self) -> bool:
        """True when a packet waits."""
        try:
            return bool(self._socket.recv(65535, socket.MSG_PEEK))
        except BlockingIOError:
            return False


def first_packet() -> bytes:
    """A real client's first packet."""
    return library_client(EngineName.AIOQUIC).transmit(Network.START)[0][0][0]


async def seen(served: Served) -> None:
    """Wait until the server has read all that was sent before: a packet of nobody is counted after it."""
    before = served.metrics.value(Metric.DATAGRAMS_DROPPED, DropReason.UNROUTABLE)
    with Raw(served.port) as raw:
        raw.send(b"\x40" * 5)
        await eventually(lambda: served.metrics.value(Metric.DATAGRAMS_DROPPED, DropReason.UNROUTABLE) > before)


async def test_an_unknown_version_gets_version_negotiation(pki: Pki, server_name: EngineName) -> None:
    async with serve(pki, server_name) as served:
        with Raw(served.port) as raw:
            packet = b"\xc0\x1a\x2a\x3a\x4a\x08destined\x06source" + bytes(1200)
            raw.send(packet)
            answer = await raw.receive()
            assert parse_long_header(answer) == LongHeader(0, b"source", b"destined", False, b"")
            assert len(answer) < len(packet)
            assert served.metrics.value(Metric.VERSION_NEGOTIATIONS) == 1
            raw.send(packet[:1199])
            raw.send(b"\xc0\x00\x00\x00\x00\x08destined\x06source" + bytes(1200))
            await seen(served)
            assert served.metrics.value(Metric.VERSION_NEGOTIATIONS) == 1
            assert not raw.has_answer(), "no answer to a small packet, nor to Version Negotiation (RFC 9000 §6.1)"
        assert served.endpoint.connections == 0


async def test_clients_answer_a_retry_and_connect(pki: Pki, client_name: EngineName, server_name: EngineName) -> None:
    async with serve(pki, server_name, retry_threshold=0) as served:
        with client_to(pki, client_name, served.port) as (peer, _):
            assert await settled(peer, 0, BODY)
            # qh3's first flight is two packets, and each is answered.
            assert served.metrics.value(Metric.RETRIES_SENT) in (1, 2)
            assert served.endpoint.connections == 1


async def test_a_retry_token_is_of_no_use_elsewhere(pki: Pki, server_name: EngineName) -> None:
    async with serve(pki, server_name, retry_threshold=0) as served:
        client = library_client(EngineName.QH3)
        address = ("127.0.0.1", served.port)
        with Raw(served.port) as raw, Raw(served.port) as thief:
            raw.send(client.transmit(Network.START)[0][0][0])
            retry = await raw.receive()
            client.receive(retry, len(retry), address, Network.START)
            second = client.transmit(Network.START)[0][0][0]
            header = parse_long_header(second)
            assert header is not None
            assert header.token
            thief.send(second)
            answer = await thief.receive()
            assert answer[0] & 0xF0 == 0xF0, "another Retry, not a connection"
            assert served.endpoint.connections == 0
            raw.send(second)
            await eventually(lambda: served.endpoint.connections == 1)
            assert served.metrics.value(Metric.RETRIES_SENT) == 2


async def test_half_open_handshakes_bring_retries_and_are_given_up(pki: Pki, server_name: EngineName) -> None:
    async with serve(pki, server_name, retry_threshold=2, handshake=0.3) as served:
        raws = [Raw(served.port) for _ in range(3)]
        try:
            for raw in raws[:2]:
                raw.send(first_packet())
            await eventually(lambda: served.endpoint.connections == 2)
            raws[2].send(first_packet())
            answer = await raws[2].receive()
            assert answer[0] & 0xF0 == 0xF0
            assert served.endpoint.connections == 2
            await eventually(lambda: served.endpoint.connections == 0)
        finally:
            for raw in raws:
                raw.__exit__()
        assert served.metrics.value(Metric.HANDSHAKES_FAILED) == 2
        assert served.metrics.value(Metric.LIMITS_HIT, LimitName.HANDSHAKE) == 2
        assert served.metrics.value(Metric.CONNECTIONS_ACTIVE) == 0
        assert served.metrics.value(Metric.CONNECTIONS_CLOSED) == 0
        assert served.endpoint._routes == {}
        assert served.endpoint._half_open == {}
        assert [len(peer.codes) for peer in served.peers] == [1, 1]


async def test_an_established_connection_outlives_the_handshake_time(pki: Pki, server_name: EngineName) -> None:
    async with serve(pki, server_name, handshake=0.2) as served:
        with client_to(pki, EngineName.QH3, served.port) as (peer, _):
            assert await settled(peer, 0, b"hello")
            await asyncio.sleep(0.3)  # longer than the handshake's time: that nothing happens is what is tested
            assert await settled(peer, 4, b"still here")


async def test_connections_beyond_the_limit_wait_outside(
    pki: Pki, client_name: EngineName, server_name: EngineName
) -> None:
    async with serve(pki, server_name, max_connections=1) as served:
        with client_to(pki, client_name, served.port) as (first, _):
            assert await settled(first, 0, b"first")
            with client_to(pki, client_name, served.port) as (second, _):
                await eventually(lambda: served.metrics.value(Metric.LIMITS_HIT, LimitName.CONNECTIONS) > 0)
                assert served.endpoint.connections == 1
                assert second.alpn == []
                first.link.close(0)
                await eventually(lambda: first.codes == [0])
                assert await settled(second, 0, b"second"), "its next try finds room"


async def test_nobody_new_is_accepted_while_draining(pki: Pki, server_name: EngineName) -> None:
    async with serve(pki, server_name) as served:
        with client_to(pki, EngineName.QH3, served.port) as (peer, _):
            assert await settled(peer, 0, b"before")
            served.endpoint.is_accepting = False
            with Raw(served.port) as raw:
                raw.send(first_packet())
                await seen(served)
                assert not raw.has_answer()
            assert served.endpoint.connections == 1
            assert await settled(peer, 4, b"meanwhile")


async def test_garbage_is_counted_and_harms_nobody(pki: Pki, server_name: EngineName) -> None:
    async with serve(pki, server_name) as served:
        with client_to(pki, EngineName.QH3, served.port) as (peer, _), Raw(served.port) as raw:
            assert await settled(peer, 0, b"before")
            garbage = [
                b"",
                b"\x00",
                b"\x40" * 8,
                b"\x40" * 9,
                b"\x7f" * 1200,
                b"\x80",
                b"\xc0\x00\x00\x00\x01",
                b"\xff" * 1200,
                b"\xc0\x00\x00\x00\x01\x14" + bytes(20) + b"\x15" + bytes(1300),
                b"\xc0\x00\x00\x00\x01\x02ab\x00\x00\x44\xb0" + bytes(1200),
                b"\xe0\x00\x00\x00\x01\x08destined\x00" + bytes(1200),
            ]
            for packet in garbage:
                raw.send(packet)
            await seen(served)
            assert served.metrics.value(Metric.DATAGRAMS_DROPPED, DropReason.UNROUTABLE) >= 6
            assert served.endpoint.connections == 1
            assert await settled(peer, 4, b"after")


async def test_a_first_packet_that_cannot_be_read_costs_a_handshake_at_most(
    pki: Pki, server_name: EngineName
) -> None:
    async with serve(pki, server_name, handshake=0.1) as served:
        with Raw(served.port) as raw:
            raw.send(b"\xc0\x00\x00\x00\x01\x08destined\x08sourceid\x00\x44\xb0" + bytes(1200))
            await eventually(lambda: served.metrics.value(Metric.HANDSHAKES_FAILED) == 1)
            assert not raw.has_answer()
        assert served.endpoint.connections == 0


class Broken:
    """A factory whose engines, or itself, raise what no library should."""

    def __init__(self, real: EngineFactory, where: str) -> None:
        self._real = real
        self._where = where
        self.is_broken = True

    def server(self, *arguments: Any) -> Any:
        if self.is_broken and self._where == "factory":
            raise ZeroDivisionError
        engine: Any = self._real.server(*arguments)
        if self.is_broken:

            def fail(*_: Any) -> None:
                raise ZeroDivisionError

            setattr(engine, self._where, fail)
        return engine

    def client(self, *arguments: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("where", ["factory", "receive", "transmit"])
async def test_a_fault_of_the_library_costs_one_connection(pki: Pki, server_name: EngineName, where: str) -> None:
    broken = Broken(load_factory(server_name, TransportLimits(), pki.certificate), where)
    async with serve(pki, server_name, factory=cast("EngineFactory", broken)) as served:
        with Raw(served.port) as raw:
            raw.send(first_packet())
            await seen(served)
        await eventually(lambda: served.endpoint.connections == 0)
        assert [len(peer.codes) for peer in served.peers] == ([] if where == "factory" else [1])
        broken.is_broken = False
        with client_to(pki, EngineName.QH3, served.port) as (peer, _):
            assert await settled(peer, 0, b"others are served")
