"""Which family a tunnel takes: what a TCP tunnel found out, UDP tunnels go by."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from masque.target import Target
from relay.client import ClientError
from relay.errors import Failure, FailureKind, Side
from relay.hooks import (
    Continue,
    EgressBinding,
    ExchangeContext,
    Hooks,
    IPAddress,
    Reject,
    Replace,
    Resolution,
    TunnelKind,
    Verdict,
)
from relay.quic.development import write_certificates
from tests.relay.hooks_rig import application, round_trip
from tests.relay.rig import PATIENCE, black_hole, running_relay, tcp_origin

pytestmark = pytest.mark.anyio

ADDRESSES = (ip_address("::1"), ip_address("127.0.0.1"))


async def resolve(_ctx: ExchangeContext, _target: Target) -> Verdict[Resolution]:
    """Every name has an address of each family."""
    return Replace(Resolution(ADDRESSES))


@contextmanager
def udp_sockets() -> Iterator[tuple[int, dict[socket.AddressFamily, socket.socket]]]:
    """A UDP socket of each family on one port; yields the port and the sockets."""
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as four,
    ):
        six.bind(("::1", 0))
        port = six.getsockname()[1]
        four.bind(("127.0.0.1", port))
        for sock in (six, four):
            sock.setblocking(False)
        yield port, {socket.AF_INET6: six, socket.AF_INET: four}


@pytest.mark.parametrize(("remember", "expected"), [("60s", socket.AF_INET), ("0", socket.AF_INET6)])
async def test_a_udp_tunnel_keeps_off_a_family_that_left_a_tcp_tunnel_waiting(
    tmp_path: Path, remember: str, expected: socket.AddressFamily
) -> None:
    write_certificates(tmp_path, ["127.0.0.1"])
    hooks = application(Hooks(resolve=resolve))
    async with (
        tcp_origin() as origin,
        running_relay(tmp_path, hooks, dial__remember=remember, dial__attempt_delay="0.1") as relay,
        relay.client() as client,
    ):
        with black_hole("::1", origin.port):
            await round_trip(client, TunnelKind.TCP, origin.port, "both.example")
        with udp_sockets() as (port, sockets):
            flow = await client.open_udp("both.example", port)
            flow.send(b"hello")
            async with asyncio.timeout(PATIENCE):
                assert await asyncio.get_running_loop().sock_recv(sockets[expected], 100) == b"hello"
            (other,) = sockets.keys() - {expected}
            with pytest.raises(BlockingIOError):
                sockets[other].recv(100)
            await flow.aclose()


async def test_a_family_without_an_egress_is_skipped(tmp_path: Path) -> None:
    """The other one serves, of UDP tunnels too."""

    async def choose(_ctx: ExchangeContext, address: IPAddress) -> Verdict[EgressBinding]:
        if address.version == 6:
            return Reject(Failure(FailureKind.DESTINATION_IP_UNROUTABLE, Side.RELAY))
        return Continue()

    write_certificates(tmp_path, ["127.0.0.1"])
    async with (
        running_relay(tmp_path, application(Hooks(resolve=resolve, choose_egress=choose))) as relay,
        relay.client() as client,
    ):
        with udp_sockets() as (port, sockets):
            flow = await client.open_udp("both.example", port)
            flow.send(b"hello")
            async with asyncio.timeout(PATIENCE):
                assert await asyncio.get_running_loop().sock_recv(sockets[socket.AF_INET], 100) == b"hello"
            await flow.aclose()


async def test_an_egress_that_is_never_chosen_ends_the_wait(tmp_path: Path) -> None:
    async def choose(_ctx: ExchangeContext, _address: IPAddress) -> Verdict[EgressBinding]:
        await asyncio.Event().wait()
        return Continue()

    write_certificates(tmp_path, ["127.0.0.1"])
    hooks = application(Hooks(resolve=resolve, choose_egress=choose))
    async with running_relay(tmp_path, hooks, limits__connect="0.1") as relay, relay.client() as client:
        with pytest.raises(ClientError) as refused:
            await client.open_udp("both.example", 9)
        assert refused.value.status == 500
