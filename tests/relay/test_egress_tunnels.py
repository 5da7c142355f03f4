"""Egress through a whole relay on loopback: slices of ports, addresses that go, remarks, hooks, and the status."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from stat import S_IMODE

import anyio.to_thread
import pytest

from masque.proxy_status import ProxyErrorType, parse_proxy_status
from masque.target import IPAddress
from relay.client import ClientError, RelayClient
from relay.egress import read_status
from relay.errors import FailureKind
from relay.hooks import EgressBinding, ExchangeContext, Hooks, Replace, TunnelKind
from relay.quic.development import write_certificates
from relay.quic.engine import EngineName
from relay.server import Server, prepare
from relay.settings import load_settings
from relay.source import system_ports
from relay.telemetry import CounterMetrics, Metric
from tests.relay.hooks_rig import KINDS, application, round_trip
from tests.relay.rig import Relay, TcpOrigin, UdpOrigin, eventually, running_relay, tcp_origin, udp_origin

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    write_certificates(made, ["127.0.0.1"])
    return made


@asynccontextmanager
async def origins() -> AsyncIterator[tuple[TcpOrigin, UdpOrigin]]:
    async with tcp_origin() as tcp, udp_origin() as udp:
        yield tcp, udp


@asynccontextmanager
async def hinting(relay: Relay, hint: str) -> AsyncIterator[RelayClient]:
    """A client that says where it is."""
    async with relay.client(replace(relay.options, fields=((b"sec-ch-geohash", hint.encode()),))) as client:
        yield client


def pool(*addresses: str, **more: object) -> dict[str, object]:
    return {"name": more.pop("name", "a"), "addresses": addresses, **more}


def two_ports() -> str:
    system = system_ports()
    assert system is not None
    return f"{system.high - 1}-{system.high}"


@pytest.mark.parametrize("kind", KINDS)
async def test_an_address_without_a_free_port_is_passed_over(kind: TunnelKind, folder: Path) -> None:
    """Three addresses of two ports each, and five tunnels of one session to one target."""
    pools = json.dumps([pool("127.0.0.61", "127.0.0.62", "127.0.0.63", ports=two_ports())])
    async with AsyncExitStack() as stack:
        tcp, udp = await stack.enter_async_context(origins())
        relay = await stack.enter_async_context(running_relay(folder, egress__pools=pools))
        client = await stack.enter_async_context(relay.client())
        for _ in range(5):
            if kind is TunnelKind.TCP:
                stream = await client.open_tcp("127.0.0.1", tcp.port)
                stack.push_async_callback(stream.aclose)
                await stream.send(b"x")
                await stream.receive()
            else:
                flow = await client.open_udp("127.0.0.1", udp.port)
                stack.push_async_callback(flow.aclose)
                flow.send(b"x")
                await flow.receive()
        peers = tcp.peers if kind is TunnelKind.TCP else udp.peers
        assert peers[0] == peers[1] != peers[2] == peers[3] != peers[4] != peers[0]
        assert relay.metrics.value(Metric.EGRESS_PORTS_EXHAUSTED) > 0
        assert relay.metrics.value(Metric.EGRESS_SOURCES_LOST) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_addresses_that_cannot_be_bound_leave_and_the_tunnel_comes_to_be(
    kind: TunnelKind, folder: Path
) -> None:
    pools = json.dumps([pool("198.51.100.1", "198.51.100.2", "127.0.0.64")])
    async with origins() as (tcp, udp), running_relay(folder, egress__pools=pools) as relay:
        for _ in range(8):
            async with relay.client() as client:
                await round_trip(client, kind, tcp.port if kind is TunnelKind.TCP else udp.port)
        assert set(tcp.peers + udp.peers) == {"127.0.0.64"}
        assert relay.metrics.value(Metric.EGRESS_SOURCES_LOST) == 2
        assert relay.metrics.value(Metric.EGRESS_PORTS_EXHAUSTED) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_no_usable_address_is_a_refusal_and_never_the_systems_choice(kind: TunnelKind, folder: Path) -> None:
    pools = json.dumps([pool("198.51.100.1")])
    async with (
        origins() as (tcp, udp),
        running_relay(folder, egress__pools=pools) as relay,
        relay.client() as client,
    ):
        for _ in range(2):
            with pytest.raises(ClientError) as refused:
                await round_trip(client, kind, tcp.port if kind is TunnelKind.TCP else udp.port)
            assert refused.value.status == 503
            (status,) = parse_proxy_status((refused.value.proxy_status or "").encode())
            assert status.error is ProxyErrorType.CONNECTION_LIMIT_REACHED
            assert status.details == "egress_unavailable"
        assert tcp.peers + udp.peers == []


async def test_proxy_status_says_why_a_location_is_not_honoured(folder: Path) -> None:
    pools = json.dumps(
        [
            pool("127.0.0.65", country="DE"),
            pool("127.0.0.66", name="b", country="DE", city="Berlin", geohash="u33d"),
        ]
    )
    async with origins() as (tcp, udp), running_relay(folder, egress__pools=pools) as relay:
        for hint, code, error, details in (
            ("u33d-FR", 503, ProxyErrorType.PROXY_CONFIGURATION_ERROR, "location_unavailable"),
            ("Berlin", 400, ProxyErrorType.HTTP_REQUEST_ERROR, "location_invalid"),
        ):
            async with hinting(relay, hint) as client:
                with pytest.raises(ClientError) as refused:
                    await client.open_udp("127.0.0.1", udp.port)
            (status,) = parse_proxy_status((refused.value.proxy_status or "").encode())
            assert (refused.value.status, status.error) == (code, error)
            assert status.details == details
        assert relay.metrics.value(Metric.REQUESTS_REFUSED, FailureKind.LOCATION_UNAVAILABLE) == 1
        async with hinting(relay, "u33d-DE") as client:
            assert await remarks(client, tcp.port) == []
        async with hinting(relay, "u281-DE") as client:
            assert await remarks(client, tcp.port) == ["location_coarser"]
        assert tcp.peers == ["127.0.0.66", "127.0.0.65"]


async def remarks(client: RelayClient, port: int) -> list[str | None]:
    """What Proxy-Status of a 200 says."""
    exchange = await client.open_tcp_exchange("127.0.0.1", port)
    assert exchange.response is not None
    values = [value for name, value in exchange.response.fields if name == b"proxy-status"]
    exchange.abort(0x10C)
    return [status.details for value in values for status in parse_proxy_status(value)]


async def test_an_applications_hook_goes_before_pools_and_locations(folder: Path) -> None:
    async def choose(_ctx: ExchangeContext, _address: IPAddress) -> Replace[EgressBinding]:
        return Replace(EgressBinding(ip_address("127.0.0.67")))

    pools = json.dumps([pool("127.0.0.65", country="DE")])
    hooks = application(Hooks(choose_egress=choose))
    async with (
        origins() as (tcp, udp),
        running_relay(folder, hooks, egress__pools=pools) as relay,
        hinting(relay, "u33d-US") as client,
    ):
        await round_trip(client, TunnelKind.TCP, tcp.port)
        await round_trip(client, TunnelKind.UDP, udp.port)
    assert tcp.peers + udp.peers == ["127.0.0.67", "127.0.0.67"]


async def test_egress_addresses_are_no_targets_after_a_reload_too(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "pools.json"
    allow = '["198.51.100.0/24", "127.0.0.0/8"]'
    file.write_text(json.dumps({"pools": [pool("127.0.0.69", "198.51.100.9")]}))
    async with (
        running_relay(folder, egress__file=str(file), policy__allow=allow) as relay,
        relay.client() as client,
    ):
        for reloaded, own in ((False, "198.51.100.9"), (True, "198.51.100.10")):
            if reloaded:
                file.write_text(json.dumps({"pools": [pool("127.0.0.69", "198.51.100.10")]}))
                await relay.server.reload_egress()
            with pytest.raises(ClientError) as refused:
                await client.open_udp(own, 9)
            (status,) = parse_proxy_status((refused.value.proxy_status or "").encode())
            assert status.error is ProxyErrorType.DESTINATION_IP_PROHIBITED


async def test_the_status_counts_tunnels_and_only_its_owner_may_ask(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "status"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    pools = json.dumps([pool("127.0.0.68")])
    async with tcp_origin() as tcp, running_relay(folder, egress__pools=pools, egress__status=str(path)) as relay:
        assert S_IMODE(path.stat().st_mode) == 0o600
        async with relay.client() as client:
            stream = await client.open_tcp("127.0.0.1", tcp.port)
            assert await status_of(path) == [("127.0.0.68/32", "in service", 1, 1)]
            await stream.aclose()
        await eventually(lambda: not relay.server.exchanges)
        assert await status_of(path) == [("127.0.0.68/32", "in service", 0, 1)]
    assert not path.exists()
    assert read_status(path) is None


async def status_of(path: Path) -> list[tuple[object, ...]]:
    status = await anyio.to_thread.run_sync(read_status, path)
    assert status is not None
    sources = [source for its in status["pools"] for source in its["sources"]]
    return [tuple(source[name] for name in ("network", "state", "tunnels", "opened")) for source in sources]


async def test_the_configuration_of_the_document_runs_as_printed(folder: Path, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/egress.md").read_text(encoding="utf-8")
    block = text.partition("```toml\n")[2].partition("```")[0]
    key = text.partition("The key that goes with it is `")[2].partition("`")[0]
    (tmp_path / "egress-demo.toml").write_text(block)
    settings = load_settings(
        tmp_path / "egress-demo.toml",
        {},
        {
            "listen.port": "0",
            "tls.certificate": str(folder / "server.pem"),
            "tls.private_key": str(folder / "server.key"),
            "egress.status": str(tmp_path / "egress-demo.sock"),
        },
    )
    async with tcp_origin() as tcp, asyncio.TaskGroup() as tasks:
        server = Server(prepare(settings), CounterMetrics())
        tasks.create_task(server.run())
        await server.is_ready.wait()
        relay = Relay(server, CounterMetrics(), key, folder, EngineName.QH3)
        for hint in ("u33d-DE", "u281-DE", "u09t-FR"):
            async with hinting(relay, hint) as client:
                with suppress(ClientError):
                    await round_trip(client, TunnelKind.TCP, tcp.port)
        async with relay.client() as client:
            await round_trip(client, TunnelKind.TCP, tcp.port)
        server.stop()
    assert [peer.rpartition(".")[0] for peer in tcp.peers] == ["127.0.3", "127.0.2", "127.0.1"]
