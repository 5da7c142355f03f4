"""relay.hooks: the rules of the chain, and contexts that tell nothing."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import cast

import pytest

from masque.head import RequestHead
from masque.target import IPAddress, Target
from relay.errors import Failure, FailureKind, RelayError, Side
from relay.hooks import (
    Application,
    Authorize,
    AuthScheme,
    ConnectionContext,
    Continue,
    EgressBinding,
    ExchangeContext,
    HookChain,
    Hooks,
    Phase,
    Principal,
    Reject,
    Replace,
    Resolution,
    TunnelKind,
    Verdict,
)
from relay.outcome import Outcome
from relay.settings import Settings
from relay.telemetry import CounterMetrics, Metric

pytestmark = pytest.mark.anyio

ALICE = Principal("preshared-1", AuthScheme.PRESHARED)
BOB = Principal("preshared-2", AuthScheme.PRESHARED)
DENIED = Failure(FailureKind.HTTP_REQUEST_DENIED, Side.RELAY)
GOOD, BAD = ip_address("1.1.1.1"), ip_address("2606:4700::1111")


@pytest.fixture
def ctx() -> ExchangeContext:
    head = RequestHead(b"CONNECT", authority=b"secret.example:443")
    connection = ConnectionContext(1.0, ip_address("198.51.100.77"))
    return ExchangeContext(connection, TunnelKind.TCP, head, Target("secret.example", 443))


class Authenticator:
    """A deciding hook that remembers who was authenticated when it was asked."""

    def __init__(self, verdict: Verdict[Principal]) -> None:
        self.verdict = verdict
        self.seen: list[Principal | None] = []

    async def __call__(self, ctx: ExchangeContext) -> Verdict[Principal]:
        self.seen.append(ctx.principal)
        return self.verdict


async def test_replace_is_handed_on_and_the_last_one_counts(ctx: ExchangeContext) -> None:
    first, second, third = Authenticator(Replace(ALICE)), Authenticator(Replace(BOB)), Authenticator(Continue())
    chain = HookChain([Hooks(authenticate=hook) for hook in (first, second, third)])
    assert await chain.authenticate(ctx) == BOB
    assert (first.seen, second.seen, third.seen) == ([None], [ALICE], [BOB])
    assert ctx.principal == BOB


async def test_reject_stops(ctx: ExchangeContext) -> None:
    last = Authenticator(Replace(BOB))
    chain = HookChain([Hooks(authenticate=Authenticator(Reject(DENIED))), Hooks(authenticate=last)])
    assert await chain.authenticate(ctx) == Reject(DENIED)
    assert last.seen == []


async def test_nobody_authenticated_gives_all_challenges_once(ctx: ExchangeContext) -> None:
    chain = HookChain(
        [
            Hooks(authenticate=Authenticator(Continue()), challenges=(b"A", b"B")),
            Hooks(challenges=(b"B", b"C")),
        ]
    )
    verdict = await chain.authenticate(ctx)
    assert verdict == Reject(Failure(FailureKind.AUTHENTICATION_REQUIRED, Side.CLIENT, challenges=(b"A", b"B", b"C")))


async def test_challenges_may_be_made_when_they_are_needed(ctx: ExchangeContext) -> None:
    made: list[bytes] = []

    def make() -> tuple[bytes, ...]:
        made.append(b"C%d" % len(made))
        return made[-1], b"A"

    chain = HookChain([Hooks(challenges=(b"A",)), Hooks(challenges=make)])
    assert made == []
    for number in range(2):
        verdict = await chain.authenticate(ctx)
        assert isinstance(verdict, Reject)
        assert verdict.failure.challenges == (b"A", b"C%d" % number)


async def test_no_hooks_at_all_fail_closed(ctx: ExchangeContext) -> None:
    chain = HookChain([])
    authenticated, resolved = await chain.authenticate(ctx), await chain.resolve(ctx)
    assert isinstance(authenticated, Reject)
    assert authenticated.failure.kind is FailureKind.AUTHENTICATION_REQUIRED
    assert isinstance(resolved, Reject)
    assert resolved.failure.kind is FailureKind.PROXY_CONFIGURATION_ERROR
    assert await chain.authorize(ctx) == ctx.target
    assert await chain.check_addresses(ctx, (GOOD,)) == (GOOD,)
    assert await chain.choose_egress(ctx, GOOD) == EgressBinding(None)


async def raising(ctx: ExchangeContext) -> Verdict[Target]:
    raise OSError("secret.example")


def raising_at_once(ctx: ExchangeContext) -> object:
    raise ValueError("secret.example")


async def answering_nonsense(ctx: ExchangeContext) -> object:
    return True


@pytest.mark.parametrize("hook", [raising, raising_at_once, answering_nonsense])
async def test_a_faulty_hook_refuses_and_tells_nothing(
    ctx: ExchangeContext, hook: object, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = CounterMetrics()
    chain = HookChain([Hooks(authorize=cast(Authorize, hook))], metrics)
    verdict = await chain.authorize(ctx)
    assert isinstance(verdict, Reject)
    assert verdict.failure.kind is FailureKind.PROXY_INTERNAL_ERROR
    assert metrics.value(Metric.HOOK_FAILURES, Phase.AUTHORIZE) == 1
    out = capsys.readouterr()
    assert "hook_failed" in out.out + out.err
    assert "secret" not in out.out + out.err + repr(verdict)


async def test_a_relay_error_rejects_with_its_own_failure(ctx: ExchangeContext) -> None:
    async def resolve(ctx: ExchangeContext, target: Target) -> Verdict[Resolution]:
        raise RelayError(Failure(FailureKind.DNS_TIMEOUT, Side.TARGET))

    metrics = CounterMetrics()
    verdict = await HookChain([Hooks(resolve=resolve)], metrics).resolve(ctx)
    assert verdict == Reject(Failure(FailureKind.DNS_TIMEOUT, Side.TARGET))
    assert metrics.value(Metric.HOOK_FAILURES) == 0


async def test_a_replaced_target_is_what_gets_resolved(ctx: ExchangeContext) -> None:
    other = Target("other.example", 8443)
    asked: list[Target] = []

    async def authorize(ctx: ExchangeContext) -> Verdict[Target]:
        return Replace(other)

    async def resolve(ctx: ExchangeContext, target: Target) -> Verdict[Resolution]:
        asked.append(target)
        return Replace(Resolution((GOOD,)))

    chain = HookChain([Hooks(authorize=authorize, resolve=resolve)])
    assert await chain.authorize(ctx) == other
    assert await chain.resolve(ctx) == Resolution((GOOD,))
    assert asked == [other]
    assert ctx.resolution == Resolution((GOOD,))


async def test_addresses_are_reduced_step_by_step(ctx: ExchangeContext) -> None:
    seen: list[tuple[IPAddress, ...]] = []

    async def drop_last(ctx: ExchangeContext, addresses: tuple[IPAddress, ...]) -> Verdict[tuple[IPAddress, ...]]:
        seen.append(addresses)
        return Replace(addresses[:-1])

    chain = HookChain([Hooks(check_addresses=drop_last)] * 2)
    verdict = await chain.check_addresses(ctx, (GOOD, BAD))
    assert seen == [(GOOD, BAD), (GOOD,)]
    assert isinstance(verdict, Reject)
    assert verdict.failure.kind is FailureKind.DESTINATION_IP_PROHIBITED


async def test_egress_is_chosen_anew_for_each_address(ctx: ExchangeContext) -> None:
    async def choose(ctx: ExchangeContext, address: IPAddress) -> Verdict[EgressBinding]:
        assert ctx.egress is None
        return Replace(EgressBinding(address)) if address == GOOD else Continue()

    chain = HookChain([Hooks(choose_egress=choose)])
    assert await chain.choose_egress(ctx, GOOD) == EgressBinding(GOOD)
    assert await chain.choose_egress(ctx, BAD) == EgressBinding(None)


def test_watching_hooks_are_isolated(ctx: ExchangeContext) -> None:
    seen: list[object] = []

    def faulty(*_args: object) -> None:
        raise RuntimeError("secret.example")

    metrics = CounterMetrics()
    watcher = Hooks(tunnel_opened=seen.append, tunnel_closed=lambda _ctx, outcome: seen.append(outcome))
    chain = HookChain([Hooks(tunnel_opened=faulty, tunnel_closed=faulty), watcher], metrics)
    chain.tunnel_opened(ctx)
    chain.tunnel_closed(ctx, Outcome.closed())
    assert seen == [ctx, Outcome.closed()]
    assert metrics.value(Metric.HOOK_FAILURES) == 2


def test_contexts_show_neither_client_nor_target(ctx: ExchangeContext) -> None:
    ctx.resolution = Resolution((GOOD,), ("alias.example",))
    shown = repr(ctx) + repr(ctx.connection) + str(ctx) + repr(ctx.resolution)
    for secret in ("secret.example", "198.51.100.77", "1.1.1.1", "alias.example", "443"):
        assert secret not in shown


@dataclass
class Quota:
    """An application's own state."""

    left: int


def test_the_store_keeps_one_object_of_a_class(ctx: ExchangeContext) -> None:
    assert ctx.get(Quota) is None
    ctx.put(Quota(3))
    ctx.put(Quota(2))
    assert ctx.get(Quota) == Quota(2)
    assert ctx.connection.get(Quota) is None
    assert list(ctx.data) == [Quota]


async def test_an_application_is_a_coroutine_function_from_settings_to_hooks() -> None:
    async def start(settings: Settings) -> Hooks:
        return Hooks(challenges=(settings.identity.encode(),))

    application: Application = start
    assert (await application(Settings())).challenges == (b"masque-relay",)
