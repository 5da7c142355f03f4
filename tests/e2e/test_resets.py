"""A client that gives up, in every state of a tunnel: descriptors, tasks and exchanges are as before."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest

from masque.errors import ErrorCode
from tests.e2e.conftest import StartRelay
from tests.e2e.origins import TcpPeer, tcp_listener, udp_origin
from tests.e2e.rig import Relay, resolving, until
from tests.relay.dns_server import running_server, silent

pytestmark = pytest.mark.anyio


class TestResets:
    """A client that gives up, in every state of a tunnel. Nothing may be left behind."""

    @pytest.mark.parametrize("udp", [False, True])
    async def test_while_resolving(self, start_relay: StartRelay, udp: bool) -> None:
        async with running_server() as server:
            server.answer("slow.example", silent, silent)
            async with start_relay(resolving(server)) as relay, relay.wire() as client, nothing_left(relay):
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
