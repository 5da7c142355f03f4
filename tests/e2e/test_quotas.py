"""Quotas of a running relay: what is refused, what is closed, and that every place comes back."""

from __future__ import annotations

import asyncio
import json
import secrets

import pytest

from masque.errors import ErrorCode
from relay.auth import basic_entry
from relay.client import ClientError, RelayClient, TunnelClosed
from relay.conformance.wire import WireClient, WireStream
from relay.telemetry import Metric, QuotaName
from tests.e2e.conftest import StartRelay
from tests.e2e.origins import closed_port, tcp_echo, tcp_listener, udp_origin
from tests.e2e.rig import Relay, resolving, until
from tests.relay.dns_server import running_server, silent

pytestmark = pytest.mark.anyio

REFUSED = (429, b"masque-relay;error=http_request_error")


def answer(stream: WireStream) -> tuple[int | None, bytes | None]:
    """Status and Proxy-Status."""
    return stream.status, stream.field(b"proxy-status")


async def ask(client: WireClient, port: int, *, udp: bool = False, host: str = "127.0.0.1") -> WireStream:
    """Ask for a tunnel and wait for the answer."""
    return await client.answered(client.connect_udp(host, port) if udp else client.connect(host, port))


async def full(client: WireClient, relay: Relay, stream: WireStream, port: int) -> None:
    """The only place is taken, and comes back when its tunnel is reset."""
    assert answer(await ask(client, port)) == REFUSED
    client.reset(stream, ErrorCode.H3_REQUEST_CANCELLED)
    await relay.idle()


class TestTunnels:
    @pytest.mark.parametrize("udp", [False, True])
    async def test_no_more_at_the_same_time(self, start_relay: StartRelay, udp: bool) -> None:
        async with tcp_listener() as origin, start_relay({"quotas.tunnels": "2"}) as relay, relay.wire() as client:
            first = await ask(client, origin.port, udp=udp)
            async with relay.wire() as another:  # the same principal on another connection
                assert (await ask(another, origin.port)).status == 200
                third = await ask(client, origin.port, udp=udp)
                assert answer(third) == REFUSED
                assert third.field(b"retry-after") == b"5"  # nobody knows when one ends: the same for all
            client.reset(first, ErrorCode.H3_REQUEST_CANCELLED)
            await relay.idle()
            for _ in range(2):
                assert (await ask(client, origin.port, udp=udp)).status == 200
            assert answer(await ask(client, origin.port, udp=udp)) == REFUSED
            assert relay.count(Metric.QUOTAS_HIT, QuotaName.TUNNELS) == 2
        assert relay.count(Metric.PRINCIPALS_TRACKED) == 0

    @pytest.mark.parametrize("udp", [False, True])
    async def test_refused_and_cancelled_ones_give_their_place_back(self, start_relay: StartRelay, udp: bool) -> None:
        async with running_server() as server, tcp_listener() as origin, closed_port() as closed:
            for name in ("slow.example", "slower.example"):
                server.answer(name, silent, silent)
            settings = resolving(server, **{"quotas.tunnels": "1", "resolver.timeout": "0.2"})
            async with start_relay(settings) as relay, relay.wire() as client:
                for host, port, status in (
                    ("10.0.0.1", origin.port, 502),  # an address that is not allowed
                    ("127.0.0.1", 25, 403),  # a port that is denied
                    ("slow.example", 443, 504),  # a name that nobody resolves
                    ("127.0.0.1", closed, 200 if udp else 502),  # nobody there
                ):
                    stream = await ask(client, port, udp=udp, host=host)
                    assert stream.status == status, host
                    if status == 200:
                        client.reset(stream, ErrorCode.H3_REQUEST_CANCELLED)
                    await relay.idle()
                hanging = (client.connect_udp if udp else client.connect)("slower.example", 443)
                await until(lambda: relay.server.exchanges)
                client.reset(hanging, ErrorCode.H3_REQUEST_CANCELLED)
                await relay.idle()
                stream = await ask(client, origin.port, udp=udp)
                assert stream.status == 200
                await full(client, relay, stream, origin.port)
            assert relay.count(Metric.QUOTAS_HIT) == 1
            assert relay.count(Metric.HOOK_FAILURES) == 0
            assert relay.count(Metric.PRINCIPALS_TRACKED) == 0

    async def test_a_storm_of_tunnels_that_are_given_up_leaks_no_place(self, start_relay: StartRelay) -> None:
        async def hurry(client: RelayClient, port: int) -> None:
            try:
                async with asyncio.timeout(secrets.randbelow(4) / 400):
                    stream = await client.open_tcp("127.0.0.1", port)
                    await stream.send(b"x")
                    await stream.receive()
                    await stream.aclose()
            except (TimeoutError, ClientError, TunnelClosed):
                return

        async with tcp_echo() as port, start_relay({"quotas.tunnels": "4"}) as relay, relay.client() as client:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(80):
                    tasks.create_task(hurry(client, port))
                    await asyncio.sleep(0.001)
            for exchange in list(client.session.exchanges.values()):
                exchange.abort(ErrorCode.H3_REQUEST_CANCELLED)
            await relay.idle()
            kept = [await client.open_tcp("127.0.0.1", port) for _ in range(4)]
            with pytest.raises(ClientError) as caught:
                await client.open_tcp("127.0.0.1", port)
            assert caught.value.status == 429
            assert len(kept) == 4
        assert relay.count(Metric.PRINCIPALS_TRACKED) == 0

    async def test_a_relay_that_stops_gives_all_back(self, start_relay: StartRelay) -> None:
        settings = {"quotas.tunnels": "3", "quotas.bytes": "1GiB", "limits.drain": "0"}
        async with tcp_listener() as origin, start_relay(settings) as relay, relay.wire() as client:
            for _ in range(3):
                assert (await ask(client, origin.port)).status == 200
            relay.server.stop()
            await relay.idle()
        assert relay.count(Metric.PRINCIPALS_TRACKED) == 0  # none moved a byte: a period that began is no use

    async def test_unknown_clients_are_counted_by_the_connection(self, start_relay: StartRelay) -> None:
        settings = {"quotas.tunnels": "1", "auth.open": "true", "auth.preshared": "[]"}
        async with tcp_listener() as origin, start_relay(settings) as relay, relay.wire() as one, relay.wire() as two:
            mine = await ask(one, origin.port)
            assert mine.status == 200
            assert answer(await ask(one, origin.port)) == REFUSED
            assert (await ask(two, origin.port)).status == 200
            one.reset(mine, ErrorCode.H3_REQUEST_CANCELLED)
            await until(lambda: relay.server.exchanges == 1)
            assert (await ask(one, origin.port)).status == 200

    async def test_a_principal_with_quotas_of_its_own(self, start_relay: StartRelay) -> None:
        overrides = [{"principal": "preshared-1", "tunnels": "unlimited"}, {"scheme": "basic", "tunnels": 2}]
        settings = {
            "auth.basic": json.dumps([basic_entry("user", "password")]),
            "quotas.tunnels": "1",
            "quotas.overrides": json.dumps(overrides),
        }
        async with tcp_listener() as origin, start_relay(settings) as relay:
            async with relay.wire() as client:
                for _ in range(5):
                    assert (await ask(client, origin.port)).status == 200
            basic = "Basic dXNlcjpwYXNzd29yZA=="
            async with relay.client(key=None, authorization=basic) as client:
                for _ in range(2):
                    await client.open_tcp("127.0.0.1", origin.port)
                with pytest.raises(ClientError) as caught:
                    await client.open_tcp("127.0.0.1", origin.port)
                assert caught.value.status == 429


class TestRate:
    @pytest.mark.parametrize("udp", [False, True])
    async def test_bursts_and_when_to_come_again(self, start_relay: StartRelay, udp: bool) -> None:
        settings = {"quotas.rate": "0.1", "quotas.burst": "3"}
        async with tcp_listener() as origin, start_relay(settings) as relay, relay.wire() as client:
            for _ in range(3):
                stream = await ask(client, origin.port, udp=udp)
                assert stream.status == 200
                client.reset(stream, ErrorCode.H3_REQUEST_CANCELLED)
            refused = await ask(client, origin.port, udp=udp)
            assert answer(refused) == REFUSED
            assert refused.field(b"retry-after") == b"10"
            assert relay.count(Metric.QUOTAS_HIT, QuotaName.RATE) == 1

    async def test_the_rate_lets_the_next_one_in(self, start_relay: StartRelay) -> None:
        settings = {"quotas.rate": "5", "quotas.burst": "1"}
        async with tcp_listener() as origin, start_relay(settings) as relay, relay.wire() as client:
            assert (await ask(client, origin.port)).status == 200
            await asyncio.sleep(0.25)  # the bucket fills with time, and with nothing else
            assert (await ask(client, origin.port)).status == 200

    async def test_what_policy_refuses_costs_nothing(self, start_relay: StartRelay) -> None:
        settings = {"quotas.rate": "0.1", "quotas.burst": "1"}
        async with tcp_listener() as origin, start_relay(settings) as relay, relay.wire() as client:
            for _ in range(3):
                assert (await ask(client, 25)).status == 403
            assert (await ask(client, origin.port)).status == 200


class TestBytes:
    async def test_used_up_tunnels_are_closed_and_new_ones_refused(self, start_relay: StartRelay) -> None:
        settings = {"quotas.bytes": "64KiB", "quotas.period": "1h"}
        async with (
            tcp_echo() as port,
            udp_origin(echoes=True) as udp,
            start_relay(settings) as relay,
            relay.wire() as wire,
            relay.client() as client,
        ):
            quiet = await ask(wire, port)
            flow = await client.open_udp("127.0.0.1", udp.port)
            for _ in range(16):
                assert flow.send(bytes(1000))
                assert len(await flow.receive()) == 1000
            stream = await ask(wire, port)
            wire.send_content(stream, bytes(40_000))
            assert [await wire.cut(one) for one in (stream, quiet)] == [ErrorCode.H3_EXCESSIVE_LOAD] * 2
            with pytest.raises(TunnelClosed):
                await flow.receive()
            refused = await ask(wire, port)
            assert answer(refused) == REFUSED
            assert refused.field(b"retry-after") == b"3600"
            await relay.idle()
            assert relay.count(Metric.QUOTAS_HIT, QuotaName.BYTES) == 4
            assert relay.metrics.snapshot()["tunnels_closed", ("tcp", "rate_limited")] == 2
        assert relay.count(Metric.PRINCIPALS_TRACKED) == 1  # its use counts until the period ends
