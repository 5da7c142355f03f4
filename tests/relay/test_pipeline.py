"""relay.pipeline: an application's hooks in a running relay, with real clients and real origins."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from masque.target import IPAddress, build_target
from relay.errors import FailureKind, RelayError
from relay.hooks import (
    AuthScheme,
    Continue,
    EgressBinding,
    ExchangeContext,
    Hooks,
    Phase,
    Principal,
    Reject,
    Replace,
    Resolution,
    TunnelKind,
)
from relay.outcome import Outcome
from relay.quic.development import write_certificates
from relay.resolver import Resolver
from relay.telemetry import Metric
from tests.relay.hooks_rig import (
    DECIDING,
    DENIED,
    KINDS,
    Decide,
    Origins,
    Watcher,
    application,
    hooks_at,
    refusal,
    round_trip,
)
from tests.relay.rig import (
    eventually,
    running_relay,
    tcp_origin,
    udp_origin,
)

pytestmark = pytest.mark.anyio

NAMED = Principal("application-1", AuthScheme.APPLICATION)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    write_certificates(made, ["127.0.0.1"])
    return made


# Verdicts.


async def test_continue_everywhere_changes_nothing_and_every_phase_is_asked_in_order(folder: Path) -> None:
    asked: list[Phase] = []

    def asking(phase: Phase) -> Decide:
        async def decide(ctx: ExchangeContext) -> object:
            asked.append(phase)
            return Continue()

        return decide

    watcher = Watcher()
    applications = [application(hooks_at(phase, asking(phase))) for phase in DECIDING]
    async with (
        tcp_origin() as tcp,
        udp_origin() as udp,
        running_relay(folder, *applications, application(watcher.hooks)) as relay,
        relay.client() as client,
    ):
        for kind in KINDS:
            await round_trip(client, kind, Origins(tcp, udp).port(kind))
            assert asked == list(DECIDING)
            asked.clear()
        await eventually(lambda: len(watcher.closed) == 2)
    assert [ctx.kind for ctx in watcher.opened] == list(KINDS)
    assert [outcome for _, outcome in watcher.closed] == [Outcome.closed()] * 2


async def reject(_ctx: ExchangeContext) -> object:
    return Reject(DENIED)


async def raise_relay_error(_ctx: ExchangeContext) -> object:
    raise RelayError(DENIED)


async def crash(_ctx: ExchangeContext) -> object:
    raise ValueError("127.0.0.1")


async def cancel_itself(_ctx: ExchangeContext) -> object:
    raise asyncio.CancelledError


async def answer_true(_ctx: ExchangeContext) -> object:
    return True


VERDICTS = [
    pytest.param(reject, 403, "masque-relay;error=http_request_denied", FailureKind.HTTP_REQUEST_DENIED, id="reject"),
    pytest.param(
        raise_relay_error, 403, "masque-relay;error=http_request_denied", FailureKind.HTTP_REQUEST_DENIED, id="error"
    ),
    pytest.param(crash, 500, "masque-relay;error=proxy_internal_error", FailureKind.PROXY_INTERNAL_ERROR, id="crash"),
    pytest.param(
        cancel_itself, 500, "masque-relay;error=proxy_internal_error", FailureKind.PROXY_INTERNAL_ERROR, id="cancel"
    ),
    pytest.param(
        answer_true, 500, "masque-relay;error=proxy_internal_error", FailureKind.PROXY_INTERNAL_ERROR, id="nonsense"
    ),
]


@pytest.mark.parametrize("phase", DECIDING)
@pytest.mark.parametrize(("decide", "status", "proxy_status", "label"), VERDICTS)
async def test_a_no_or_a_fault_refuses_this_exchange_only(
    folder: Path, phase: Phase, decide: Decide, status: int, proxy_status: str, label: FailureKind
) -> None:
    is_bad = False

    async def sometimes(ctx: ExchangeContext) -> object:
        return await decide(ctx) if is_bad else Continue()

    watcher = Watcher()
    async with (
        tcp_origin() as tcp,
        udp_origin() as udp,
        running_relay(folder, application(hooks_at(phase, sometimes)), application(watcher.hooks)) as relay,
        relay.client() as client,
    ):
        neighbour = await client.open_tcp("127.0.0.1", tcp.port)
        is_bad = True
        for kind in KINDS:
            error = await refusal(client, kind, Origins(tcp, udp).port(kind))
            assert (error.status, error.proxy_status) == (status, proxy_status)
        assert Origins(tcp, udp).peers == ["127.0.0.1"]
        await neighbour.send(b"still here")
        assert await neighbour.receive() == b"still here"
        await neighbour.aclose()
        is_bad = False
        for kind in KINDS:
            await round_trip(client, kind, Origins(tcp, udp).port(kind))
        await eventually(lambda: relay.server.exchanges == 0 and len(watcher.closed) == 3)
        assert relay.metrics.value(Metric.REQUESTS_REFUSED, label) == 2
        assert len(watcher.opened) == 3
        assert client.is_usable


@pytest.mark.parametrize("status", [0, 42, 103, 1000])
async def test_a_status_that_no_response_can_have_costs_this_exchange_only(folder: Path, status: int) -> None:
    is_bad = True

    async def decide(_ctx: ExchangeContext) -> object:
        return Reject(replace(DENIED, status=status)) if is_bad else Continue()

    async with (
        tcp_origin() as tcp,
        running_relay(folder, application(hooks_at(Phase.AUTHORIZE, decide))) as relay,
        relay.client() as client,
    ):
        error = await refusal(client, TunnelKind.TCP, tcp.port)
        assert error.status is None
        is_bad = False
        await round_trip(client, TunnelKind.TCP, tcp.port)


async def test_a_replaced_principal_needs_no_key(folder: Path) -> None:
    async def decide(_ctx: ExchangeContext) -> object:
        return Replace(NAMED)

    watcher = Watcher()
    hooks = replace(hooks_at(Phase.AUTHENTICATE, decide), tunnel_opened=watcher.opened.append)
    async with (
        tcp_origin() as tcp,
        running_relay(folder, application(hooks)) as relay,
        relay.client(replace(relay.options, key=None)) as client,
    ):
        await round_trip(client, TunnelKind.TCP, tcp.port)
    assert [ctx.principal for ctx in watcher.opened] == [NAMED]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_replaced_target_is_where_the_tunnel_goes(folder: Path, kind: TunnelKind) -> None:
    async with tcp_origin() as tcp, udp_origin() as udp:
        port = Origins(tcp, udp).port(kind)

        async def decide(_ctx: ExchangeContext) -> object:
            return Replace(build_target("127.0.0.1", port))

        async with (
            running_relay(folder, application(hooks_at(Phase.AUTHORIZE, decide))) as relay,
            relay.client() as client,
        ):
            await round_trip(client, kind, 9, "asked-for.test")
        assert Origins(tcp, udp).peers == ["127.0.0.1"]


async def test_a_replaced_target_passes_the_relays_own_policy_too(folder: Path) -> None:
    async def decide(_ctx: ExchangeContext) -> object:
        return Replace(build_target("10.0.0.1", 80))

    async with (
        running_relay(folder, application(hooks_at(Phase.AUTHORIZE, decide))) as relay,
        relay.client() as client,
    ):
        error = await refusal(client, TunnelKind.TCP, 9)
    assert (error.status, error.proxy_status) == (502, "masque-relay;error=destination_ip_prohibited")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_replaced_resolution_needs_no_resolver(folder: Path, kind: TunnelKind) -> None:
    async def decide(_ctx: ExchangeContext) -> object:
        return Replace(Resolution((ip_address("127.0.0.1"),)))

    async with (
        tcp_origin() as tcp,
        udp_origin() as udp,
        running_relay(folder, application(hooks_at(Phase.RESOLVE, decide))) as relay,
        relay.client() as client,
    ):
        await round_trip(client, kind, Origins(tcp, udp).port(kind), "nowhere.test")


async def test_only_the_addresses_left_by_the_check_are_tried(folder: Path) -> None:
    tried: list[IPAddress] = []

    async def resolve(_ctx: ExchangeContext, _target: object) -> Replace[Resolution]:
        return Replace(Resolution((ip_address("127.0.0.8"), ip_address("127.0.0.1"))))

    async def check(_ctx: ExchangeContext, addresses: tuple[IPAddress, ...]) -> Replace[tuple[IPAddress, ...]]:
        return Replace(addresses[1:])

    async def egress(_ctx: ExchangeContext, address: IPAddress) -> Continue:
        tried.append(address)
        return Continue()

    hooks = Hooks(resolve=resolve, check_addresses=check, choose_egress=egress)
    async with tcp_origin() as tcp, running_relay(folder, application(hooks)) as relay, relay.client() as client:
        await round_trip(client, TunnelKind.TCP, tcp.port, "two.test")
    assert tried == [ip_address("127.0.0.1")]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_chosen_source_is_what_the_origin_sees(folder: Path, kind: TunnelKind) -> None:
    async def decide(_ctx: ExchangeContext) -> object:
        return Replace(EgressBinding(ip_address("127.0.0.2")))

    async with tcp_origin() as tcp, udp_origin() as udp:
        async with (
            running_relay(folder, application(hooks_at(Phase.CHOOSE_EGRESS, decide))) as relay,
            relay.client() as client,
        ):
            await round_trip(client, kind, Origins(tcp, udp).port(kind))
        assert Origins(tcp, udp).peers == ["127.0.0.2"]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_source_of_the_settings_is_what_the_origin_sees(folder: Path, kind: TunnelKind) -> None:
    async with tcp_origin() as tcp, udp_origin() as udp:
        async with running_relay(folder, egress__ipv4="127.0.0.2") as relay, relay.client() as client:
            await round_trip(client, kind, Origins(tcp, udp).port(kind))
        assert Origins(tcp, udp).peers == ["127.0.0.2"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_source_that_is_not_ours_refuses_and_tells_nothing(folder: Path, kind: TunnelKind) -> None:
    async def decide(_ctx: ExchangeContext) -> object:
        return Replace(EgressBinding(ip_address("192.0.2.7")))

    async with tcp_origin() as tcp, udp_origin() as udp:
        async with (
            running_relay(folder, application(hooks_at(Phase.CHOOSE_EGRESS, decide))) as relay,
            relay.client() as client,
        ):
            error = await refusal(client, kind, Origins(tcp, udp).port(kind))
        assert error.proxy_status is not None
        assert "192" not in error.proxy_status
        assert Origins(tcp, udp).peers == []


# Context.


@dataclass
class Plan:
    """What an application knows of an exchange."""

    source: str
    steps: list[str] = field(default_factory=list)


@dataclass
class Visits:
    """What an application knows of a connection."""

    count: int = 0


async def test_typed_context_goes_from_the_request_to_the_egress_and_the_end(folder: Path) -> None:
    ends: list[Plan | None] = []
    visits: list[int] = []

    async def authenticate(ctx: ExchangeContext) -> Replace[Principal]:
        seen = ctx.connection.get(Visits) or Visits()
        seen.count += 1
        ctx.connection.put(seen)
        fields = dict(ctx.head.fields)
        ctx.put(Plan(fields[b"proxy-authorization"].decode(), ["authenticate"]))
        return Replace(NAMED)

    async def egress(ctx: ExchangeContext, _address: IPAddress) -> Replace[EgressBinding]:
        plan, seen = ctx.get(Plan), ctx.connection.get(Visits)
        assert plan is not None
        assert seen is not None
        plan.steps.append("egress")
        visits.append(seen.count)
        return Replace(EgressBinding(ip_address(plan.source)))

    hooks = Hooks(
        authenticate=authenticate, choose_egress=egress, tunnel_closed=lambda ctx, _: ends.append(ctx.get(Plan))
    )
    async with tcp_origin() as tcp, running_relay(folder, application(hooks)) as relay:
        for source in ("127.0.0.3", "127.0.0.4"):
            async with relay.client(replace(relay.options, authorization=source)) as client:
                await round_trip(client, TunnelKind.TCP, tcp.port)
                await round_trip(client, TunnelKind.TCP, tcp.port)
        await eventually(lambda: len(ends) == 4)
        assert tcp.peers == ["127.0.0.3"] * 2 + ["127.0.0.4"] * 2
    assert visits == [1, 2, 1, 2]
    assert [plan.steps for plan in ends if plan is not None] == [["authenticate", "egress"]] * 4


async def test_the_clients_address_and_the_resolver_are_known_to_hooks(folder: Path) -> None:
    seen: list[tuple[IPAddress | None, Resolver | None]] = []

    async def decide(ctx: ExchangeContext) -> object:
        seen.append((ctx.connection.client_address, ctx.connection.get(Resolver)))
        return Continue()

    async with (
        tcp_origin() as tcp,
        running_relay(folder, application(hooks_at(Phase.AUTHENTICATE, decide))) as relay,
        relay.client() as client,
    ):
        await round_trip(client, TunnelKind.TCP, tcp.port)
        ((address, resolver),) = seen
        assert address == ip_address("127.0.0.1")
        assert resolver is not None
        assert len((await resolver.resolve("localhost")).addresses) == 2
