"""Endpoints on real loopback sockets: routing by connection id, migration, a full send buffer, the end."""

from __future__ import annotations

import asyncio
import socket

import pytest

from relay.quic.engine import CONNECTION_ID_LENGTH, EngineName, TransportLimits, load_factory
from relay.quic.socket import bind_udp
from relay.telemetry import DropReason, Metric
from tests.relay.quic.endpoints import BUFFER, Gate, Narrow, client_to, path_to, serve, settled
from tests.relay.quic.network import Pki
from tests.relay.rig import eventually, open_sockets

pytestmark = pytest.mark.anyio

BODY = bytes(range(256)) * 400


async def test_a_client_connects_and_everything_is_forgotten_afterwards(
    pki: Pki, client_name: EngineName, server_name: EngineName
) -> None:
    before = open_sockets()
    async with serve(pki, server_name) as served:
        with client_to(pki, client_name, served.port) as (peer, _):
            assert await settled(peer, 0, BODY)
            assert peer.alpn == served.peers[0].alpn == ["h3"]
            peer.link.send_datagrams(b"", b"datagram", 8)
            await eventually(lambda: peer.payloads == [b"datagram"])
            assert served.endpoint.connections == 1
            assert served.metrics.value(Metric.CONNECTIONS_ACTIVE) == 1
            assert served.metrics.value(Metric.CONNECTIONS_OPENED) == 1
        await eventually(lambda: served.endpoint.connections == 0)
        assert served.peers[0].codes == [0]
        assert served.endpoint._routes == {}
        assert served.metrics.value(Metric.CONNECTIONS_ACTIVE) == 0
        assert served.metrics.value(Metric.CONNECTIONS_CLOSED) == 1
        assert served.metrics.value(Metric.HANDSHAKES_FAILED) == 0
    assert open_sockets() == before


async def test_many_clients_at_once_are_told_apart(
    pki: Pki, client_name: EngineName, server_name: EngineName
) -> None:
    async with serve(pki, server_name) as served:
        clients = [client_to(pki, client_name, served.port) for _ in range(8)]
        peers = [client.__enter__()[0] for client in clients]
        try:
            bodies = [bytes((number,)) * 20_000 for number in range(8)]
            done = await asyncio.gather(*(settled(peer, 0, body) for peer, body in zip(peers, bodies, strict=True)))
            assert all(done)
            assert served.endpoint.connections == 8
        finally:
            for client in clients:
                client.__exit__(None, None, None)
        await eventually(lambda: served.endpoint.connections == 0)


async def test_a_server_that_closes_ends_its_clients(
    pki: Pki, client_name: EngineName, server_name: EngineName
) -> None:
    async with serve(pki, server_name) as served:
        with client_to(pki, client_name, served.port) as (peer, _):
            assert await settled(peer, 0, b"hello")
            served.peers[0].link.close(0x100, "enough")
            await eventually(lambda: peer.codes == [0x100])
            await served.endpoint.quiet(5)
            assert served.endpoint.connections == 0


async def test_packets_of_several_connections_in_one_buffer(pki: Pki, server_name: EngineName) -> None:
    """One system call can bring packets of many connections, and of none."""
    async with serve(pki, server_name) as served:
        with path_to(served.port) as path:
            path.adds_noise = True
            with client_to(pki, EngineName.QH3, path.port) as (peer, _):
                assert await settled(peer, 0, BODY)
            assert path.noise > 50
            await eventually(
                lambda: served.metrics.value(Metric.DATAGRAMS_DROPPED, DropReason.UNROUTABLE) >= path.noise
            )


async def test_a_client_may_move_to_another_port(pki: Pki, client_name: EngineName, server_name: EngineName) -> None:
    """RFC 9000 §9: the connection is found by its id, so a NAT that forgets its mapping ends nothing."""
    async with serve(pki, server_name) as served:
        with path_to(served.port) as path, client_to(pki, client_name, path.port) as (peer, _):
            assert await settled(peer, 0, BODY)
            for stream_id in (4, 8):
                path.rebind()
                assert await settled(peer, stream_id, BODY)
            served.peers[0].link.send_stream(1, b"the server finds it too", True)
            await eventually(lambda: 1 in peer.ended)
            assert served.endpoint.connections == 1
            assert peer.codes == []


async def test_a_forgotten_connection_is_reset_at_once(pki: Pki, server_name: EngineName) -> None:
    """RFC 9000 §10.3: after a restart of the server its clients need not wait for their idle timeout.

    The client is qh3's: aioquic does not know a stateless reset when it sees one.
    """
    async with serve(pki, server_name) as served:
        with client_to(pki, EngineName.QH3, served.port) as (peer, _):
            assert await settled(peer, 0, b"before")
            served.peers[0].link.abandon()
            assert served.endpoint.connections == 0
            assert not await settled(peer, 4, BODY)
            assert len(peer.codes) == 1


async def test_a_full_send_buffer_delays_and_loses_nothing(
    pki: Pki, client_name: EngineName, server_name: EngineName
) -> None:
    """The client sends through a socket that takes a few packets only, and whose other end rests for a while."""
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    far.setblocking(False)
    outer = bind_udp("127.0.0.1", 0, BUFFER, BUFFER)
    async with serve(pki, server_name) as served:
        server = ("127.0.0.1", served.port)

        def from_client() -> None:
            outer.send([far.recv(65535)], server)

        def from_server() -> None:
            if (found := outer.receive()) is not None:
                data, segment, _ = found
                for at in range(0, len(data), segment):
                    far.send(data[at : at + segment])

        try:
            with client_to(pki, client_name, served.port, sock=Narrow(near, server)) as (peer, endpoint):
                loop.add_reader(far, from_client)
                loop.add_reader(outer.fileno(), from_server)
                assert await settled(peer, 0, b"connected")
                loop.remove_reader(far)
                peer.link.send_stream(4, BODY * 4)
                await eventually(lambda: endpoint.is_blocked)
                peer.link.send_stream(4, b"written while blocked", True)
                await asyncio.sleep(0)
                loop.add_reader(far, from_client)
                assert await settled(peer, 8, b"another stream")
                await eventually(lambda: 4 in served.peers[0].ended)
                assert bytes(served.peers[0].streams[4]) == BODY * 4 + b"written while blocked"
                await eventually(lambda: not endpoint.is_blocked)
        finally:
            loop.remove_reader(far)
            loop.remove_reader(outer.fileno())
            outer.close()
            far.close()


async def test_while_blocked_links_keep_their_data_and_all_are_flushed_afterwards(
    pki: Pki, server_name: EngineName
) -> None:
    gate = Gate()
    async with serve(pki, server_name, sock=gate) as served:
        with (
            client_to(pki, EngineName.QH3, served.port) as (first, _),
            client_to(pki, EngineName.QH3, served.port) as (second, _),
        ):
            assert await settled(first, 0, b"first")
            assert await settled(second, 0, b"second")
            gate.is_shut = True
            links = [peer.link for peer in served.peers]
            links[0].send_stream(1, b"fills the buffer", True)
            await eventually(lambda: served.endpoint.is_blocked)
            links[1].send_stream(1, b"has to wait", True)
            served.poller.drain()
            assert links[1].backlog(1) == len(b"has to wait"), "not made into packets yet"
            gate.is_shut = False
            await eventually(lambda: 1 in first.ended and 1 in second.ended)
            assert not served.endpoint.is_blocked


async def test_bursts_to_several_addresses_wait_in_order(pki: Pki, server_name: EngineName) -> None:
    """One flush has several destinations while a client moves."""
    gate = Gate()
    receivers = [bind_udp("127.0.0.1", 0, BUFFER, BUFFER) for _ in range(2)]
    async with serve(pki, server_name, sock=gate) as served:
        try:
            with client_to(pki, EngineName.QH3, served.port) as (peer, _):
                assert await settled(peer, 0, b"connected")
                link = served.peers[0].link
                gate.is_shut = True
                served.endpoint.send([([b"1", b"2"], receivers[0].address), ([b"3"], receivers[1].address)], link)
                assert served.endpoint.is_blocked
                gate.is_shut = False
                await eventually(lambda: not served.endpoint.is_blocked)
            assert receivers[0].receive() == (b"12", 1, gate.address)
            assert receivers[1].receive() == (b"3", 1, gate.address)
        finally:
            for receiver in receivers:
                receiver.close()


async def test_nobody_at_the_port_ends_a_client_at_once(pki: Pki, client_name: EngineName) -> None:
    gone = bind_udp("127.0.0.1", 0, BUFFER, BUFFER)
    port = gone.address[1]
    gone.close()
    with client_to(pki, client_name, port) as (peer, _):
        await eventually(lambda: len(peer.codes) == 1)
        assert peer.alpn == []


async def test_an_idle_connection_ends_on_both_sides(
    pki: Pki, client_name: EngineName, server_name: EngineName
) -> None:
    limits = TransportLimits(idle=1.0)
    async with serve(pki, server_name, limits=limits) as served:
        with client_to(pki, client_name, served.port, limits=limits) as (peer, _):
            assert await settled(peer, 0, b"hello")
            await eventually(lambda: len(peer.codes) == 1 and len(served.peers[0].codes) == 1)
            await eventually(lambda: served.endpoint.connections == 0)


async def test_close_with_connections_open_leaves_nothing(pki: Pki, server_name: EngineName) -> None:
    before = open_sockets()
    async with serve(pki, server_name) as served:
        with client_to(pki, EngineName.QH3, served.port) as (peer, endpoint):
            assert await settled(peer, 0, b"hello")
            served.endpoint.close()
            served.endpoint.close()
            assert served.endpoint.connections == 0
            assert served.endpoint._routes == {}
            assert len(served.peers[0].codes) == 1
            endpoint.close()
            endpoint.close()
            assert len(peer.codes) == 1
            peer.link.send_stream(4, b"to nobody")
    assert open_sockets() == before


def test_our_ids_are_as_long_as_the_router_reads(pki: Pki, server_name: EngineName) -> None:
    engine = load_factory(server_name, TransportLimits(), pki.certificate).server(b"12345678", b"abcdefgh", None, 1.0)
    assert len(engine.connection_id) == CONNECTION_ID_LENGTH
