"""relay.pipeline: clients that give up while hooks decide, and how tunnels end, in a running relay."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest

from masque.connect import connect_head
from masque.errors import ErrorCode
from relay.client import ClientError, RelayClient, TunnelClosed
from relay.conformance.wire import WireOptions, connect_wire
from relay.errors import Failure, FailureKind, Side
from relay.hooks import (
    Continue,
    ExchangeContext,
    Hooks,
    Phase,
    Reject,
    TunnelKind,
)
from relay.outcome import Ending, Outcome
from relay.quic.development import write_certificates
from relay.telemetry import Metric
from tests.relay.hooks_rig import (
    DECIDING,
    DENIED,
    KINDS,
    Origins,
    Watcher,
    application,
    hooks_at,
    refusal,
    round_trip,
)
from tests.relay.rig import (
    PATIENCE,
    Relay,
    black_hole,
    eventually,
    open_sockets,
    running_relay,
    tcp_origin,
    udp_origin,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    write_certificates(made, ["127.0.0.1"])
    return made


# Clients that give up.


@dataclass
class Slow:
    """A hook that waits until it is cancelled."""

    is_stubborn: bool = False
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: int = 0

    async def __call__(self, _ctx: ExchangeContext) -> object:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            if not self.is_stubborn:
                raise
        return Reject(DENIED)


async def give_up(client: RelayClient, kind: TunnelKind, slow: Slow) -> None:
    """Ask for a tunnel and cancel while the relay decides."""
    task = asyncio.create_task(round_trip(client, kind, 9))
    await slow.entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("is_stubborn", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phase", DECIDING)
async def test_a_client_that_aborts_cancels_the_slow_hook(
    folder: Path, phase: Phase, kind: TunnelKind, is_stubborn: bool
) -> None:
    slow = Slow(is_stubborn)
    watcher = Watcher()
    async with running_relay(folder, application(hooks_at(phase, slow)), application(watcher.hooks)) as relay:
        async with asyncio.timeout(PATIENCE), relay.client() as client:
            await give_up(client, kind, slow)
            await eventually(lambda: relay.server.exchanges == 0)
            assert client.is_usable
        assert slow.cancelled == 1
        assert relay.metrics.value(Metric.REQUESTS_REFUSED) == 1
        assert watcher.opened == []


@pytest.mark.parametrize("is_stubborn", [False, True])
async def test_a_client_that_only_stops_the_answer_is_let_go(folder: Path, is_stubborn: bool) -> None:
    slow = Slow(is_stubborn)
    async with running_relay(folder, application(hooks_at(Phase.AUTHORIZE, slow))) as relay:
        async with asyncio.timeout(PATIENCE), relay.client() as client:
            exchange = client.session.request(0, connect_head("127.0.0.1", 9, relay.options.credentials))
            await slow.entered.wait()
            client.session._transport.stop_sending(0, ErrorCode.H3_REQUEST_CANCELLED)
            await eventually(lambda: relay.server.exchanges == 0)
            exchange.abort(ErrorCode.H3_REQUEST_CANCELLED)
            client._next_stream = 4
            assert client.is_usable
        assert slow.cancelled == 1


async def test_a_connection_that_is_lost_cancels_its_slow_hooks(folder: Path) -> None:
    slow = Slow()
    async with running_relay(folder, application(hooks_at(Phase.RESOLVE, slow))) as relay:
        async with asyncio.timeout(PATIENCE), relay.client() as client:
            task = asyncio.create_task(client.open_tcp("name.test", 9))
            await slow.entered.wait()
            client.close()
            with pytest.raises(ClientError):
                await task
        await eventually(lambda: slow.cancelled == 1)
        assert relay.server.exchanges == 0
        assert relay.metrics.value(Metric.REQUESTS_REFUSED, FailureKind.CLIENT_ABORTED) == 1


async def test_a_request_aborted_before_its_task_began_leaves_nothing(folder: Path) -> None:
    asked: list[ExchangeContext] = []

    async def decide(ctx: ExchangeContext) -> object:
        asked.append(ctx)
        return Continue()

    async with (
        tcp_origin() as tcp,
        running_relay(folder, application(hooks_at(Phase.AUTHENTICATE, decide))) as relay,
        relay.client() as client,
    ):
        head = connect_head("127.0.0.1", tcp.port, relay.options.credentials)
        exchange = client.session.request(0, head)
        client.poller.drain()
        exchange.abort(ErrorCode.H3_REQUEST_CANCELLED)
        client.poller.drain()  # both packets wait in the relay's socket: it reads them in one turn
        client._next_stream = 4
        await eventually(lambda: relay.metrics.value(Metric.REQUESTS_REFUSED) == 1)
        assert relay.metrics.value(Metric.REQUESTS_REFUSED, FailureKind.CLIENT_ABORTED) == 1
        assert relay.server.exchanges == 0
        assert asked == []
        await round_trip(client, TunnelKind.TCP, tcp.port)


async def test_an_abort_while_connecting_leaves_no_socket(folder: Path) -> None:
    connecting = asyncio.Event()

    async def decide(_ctx: ExchangeContext) -> object:
        connecting.set()
        return Continue()

    async with (
        running_relay(folder, application(hooks_at(Phase.CHOOSE_EGRESS, decide))) as relay,
        relay.client() as client,
    ):
        with black_hole("127.0.0.1") as port:
            before = open_sockets()
            task = asyncio.create_task(client.open_tcp("127.0.0.1", port))
            await connecting.wait()
            await eventually(lambda: len(open_sockets() - before) == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await eventually(lambda: relay.server.exchanges == 0)
            await eventually(lambda: open_sockets() == before)


# Answers that no response can carry.

UNSPEAKABLE = [
    pytest.param(Failure(FailureKind.DNS_ERROR, Side.TARGET, rcode="nämlich"), id="rcode"),
    pytest.param(Failure(FailureKind.DNS_ERROR, Side.TARGET, info_code=10**16), id="info code"),
    pytest.param(Failure(FailureKind.HTTP_REQUEST_DENIED, Side.CLIENT, status=cast(int, "403")), id="status"),
    pytest.param(
        Failure(FailureKind.AUTHENTICATION_REQUIRED, Side.CLIENT, challenges=(cast(bytes, 'Token realm="x"'),)),
        id="challenge",
    ),
]


@pytest.mark.parametrize("failure", UNSPEAKABLE)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_rejection_that_no_response_can_carry_costs_its_exchange_only(
    folder: Path, kind: TunnelKind, failure: Failure
) -> None:
    rejections = [failure]

    async def decide(_ctx: ExchangeContext) -> object:
        return Reject(rejections.pop()) if rejections else Continue()

    async with (
        tcp_origin() as tcp,
        udp_origin() as udp,
        running_relay(folder, application(hooks_at(Phase.AUTHENTICATE, decide))) as relay,
        asyncio.timeout(PATIENCE),
        relay.client() as client,
        connect_wire(
            WireOptions(
                "127.0.0.1",
                relay.port,
                relay.engine,
                ca_file=folder / "ca.pem",
                credentials=((b"proxy-authorization", b"Preshared " + relay.key.encode()),),
            )
        ) as wire,
    ):
        ask = wire.connect if kind is TunnelKind.TCP else wire.connect_udp
        stream = ask("127.0.0.1", 9)
        assert await wire.cut(stream) == ErrorCode.H3_INTERNAL_ERROR
        assert stream.response is None
        await eventually(lambda: relay.server.exchanges == 0)
        again = await wire.answered(wire.connect("127.0.0.1", tcp.port))
        assert again.status == 200, "the connection lives"
        for other in KINDS:
            await round_trip(client, other, Origins(tcp, udp).port(other))


# The tunnel's end.


def endings(relay: Relay, kind: TunnelKind, label: object) -> int:
    return relay.metrics.value(Metric.TUNNELS_CLOSED, kind, cast(FailureKind, label))


async def test_a_tunnel_closed_in_order_is_told_once(folder: Path) -> None:
    watcher = Watcher()
    async with tcp_origin() as tcp, running_relay(folder, application(watcher.hooks)) as relay:
        async with relay.client() as client:
            await round_trip(client, TunnelKind.TCP, tcp.port)
            assert await watcher.outcome() == Outcome.closed()
            assert endings(relay, TunnelKind.TCP, Ending.CLOSED) == 1
        assert len(watcher.closed) == 1
        assert relay.metrics.value(Metric.TUNNELS_ACTIVE) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_tunnel_aborted_by_the_client_is_told_once(folder: Path, kind: TunnelKind) -> None:
    watcher = Watcher()
    async with tcp_origin() as tcp, udp_origin() as udp, running_relay(folder, application(watcher.hooks)) as relay:
        async with relay.client() as client:
            open_exchange = client.open_tcp_exchange if kind is TunnelKind.TCP else client.open_udp_exchange
            exchange = await open_exchange("127.0.0.1", Origins(tcp, udp).port(kind))
            exchange.abort(ErrorCode.H3_REQUEST_CANCELLED)
            outcome = await watcher.outcome()
            assert outcome == Outcome.failed(FailureKind.CLIENT_ABORTED, Side.CLIENT)
            assert relay.server.exchanges == 0
        assert len(watcher.closed) == 1
        assert relay.metrics.value(Metric.TUNNELS_ACTIVE) == 0


async def test_a_target_that_resets_ends_the_tunnel(folder: Path) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        writer.transport.abort()

    watcher = Watcher()
    async with (
        tcp_origin(reset) as tcp,
        running_relay(folder, application(watcher.hooks)) as relay,
        asyncio.timeout(PATIENCE),
        relay.client() as client,
    ):
        stream = await client.open_tcp("127.0.0.1", tcp.port)
        await stream.send(b"x")
        with pytest.raises(TunnelClosed):
            await stream.receive()
        outcome = await watcher.outcome()
        assert outcome.failure is not None
        assert outcome.failure.kind is FailureKind.CONNECTION_TERMINATED


async def test_a_udp_target_that_is_not_there_ends_the_tunnel(folder: Path) -> None:
    async with udp_origin() as udp:
        port = udp.port
    watcher = Watcher()
    async with (
        running_relay(folder, application(watcher.hooks)) as relay,
        asyncio.timeout(PATIENCE),
        relay.client() as client,
    ):
        flow = await client.open_udp("127.0.0.1", port)
        flow.send(b"anybody?")
        with pytest.raises(TunnelClosed):
            await flow.receive()
        assert await watcher.outcome() == Outcome.failed(FailureKind.CONNECTION_REFUSED, Side.TARGET)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_an_idle_tunnel_ends(folder: Path, kind: TunnelKind) -> None:
    watcher = Watcher()
    async with (
        tcp_origin() as tcp,
        udp_origin() as udp,
        running_relay(folder, application(watcher.hooks), limits__udp_idle="1s", limits__tcp_idle="1s") as relay,
        relay.client() as client,
    ):
        open_exchange = client.open_tcp_exchange if kind is TunnelKind.TCP else client.open_udp_exchange
        await open_exchange("127.0.0.1", Origins(tcp, udp).port(kind))
        assert await watcher.outcome() == Outcome.failed(FailureKind.TUNNEL_IDLE, Side.RELAY)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_relay_that_stops_ends_its_tunnels_and_tells_once(folder: Path, kind: TunnelKind) -> None:
    watcher = Watcher()
    async with tcp_origin() as tcp, udp_origin() as udp:
        async with (
            running_relay(folder, application(watcher.hooks), limits__drain="0s") as relay,
            relay.client() as client,
        ):
            open_exchange = client.open_tcp_exchange if kind is TunnelKind.TCP else client.open_udp_exchange
            await open_exchange("127.0.0.1", Origins(tcp, udp).port(kind))
            relay.server.stop()
            await watcher.outcome()
            async with asyncio.timeout(PATIENCE):
                await client.closed.wait()
        assert len(watcher.closed) == 1
        assert relay.metrics.value(Metric.TUNNELS_ACTIVE) == 0


async def test_watching_hooks_that_crash_cost_nothing(folder: Path) -> None:
    def crash_watching(*_arguments: object) -> None:
        raise ValueError("127.0.0.1")

    watcher = Watcher()
    faulty = Hooks(tunnel_opened=crash_watching, tunnel_closed=crash_watching)
    async with tcp_origin() as tcp, running_relay(folder, application(faulty), application(watcher.hooks)) as relay:
        async with relay.client() as client:
            await round_trip(client, TunnelKind.TCP, tcp.port)
            assert await watcher.outcome() == Outcome.closed()
        assert relay.metrics.value(Metric.HOOK_FAILURES) == 2


async def test_without_credentials_the_built_in_challenges_go_out(folder: Path) -> None:
    async with running_relay(folder) as relay, relay.client(replace(relay.options, key=None)) as client:
        error = await refusal(client, TunnelKind.TCP, 9)
        assert error.status == 407
        assert relay.metrics.value(Metric.REQUESTS_REFUSED, FailureKind.AUTHENTICATION_REQUIRED) == 1
