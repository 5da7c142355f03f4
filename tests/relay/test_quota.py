"""relay.quota: what one principal may use, on a clock of the test's own."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.head import RequestHead
from masque.target import Target
from relay.errors import FailureKind, Side
from relay.hooks import (
    AuthScheme,
    ConnectionContext,
    ExchangeContext,
    HookChain,
    Phase,
    Principal,
    Reject,
    TunnelKind,
)
from relay.outcome import Outcome
from relay.quota import Account, Accounts, QuotaLimits, QuotaTable, Shortage, coarse, quota_hooks
from relay.settings import QuotaSettings, load_settings
from relay.telemetry import CounterMetrics, Metric, NoMetrics, QuotaName
from tests.relay.rig import eventually

pytestmark = pytest.mark.anyio

ALICE = Principal("preshared-1", AuthScheme.PRESHARED)
BOB = Principal("basic-1", AuthScheme.BASIC)
ANYBODY = Principal("anybody", AuthScheme.OPEN)


def quotas(**values: object) -> QuotaSettings:
    """Settings of quotas, read as from the command line."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return load_settings(None, {}, {f"quotas.{name}": text for name, text in texts.items()}).quotas


# The account.


@given(st.lists(st.one_of(st.none(), st.just("end"), st.floats(0, 5)), max_size=200))
def test_no_sequence_gets_more_than_the_quotas(steps: list[float | str | None]) -> None:
    """None asks for a tunnel, "end" ends one, a number lets time pass."""
    limits = QuotaLimits(tunnels=7, rate=2.0, burst=5)
    account, now, admitted, running = Account(), 1000.0, 0, 0
    for step in steps:
        if step is None:
            shortage = account.admit(limits, now)
            if shortage is None:
                admitted, running = admitted + 1, running + 1
            elif shortage.quota is QuotaName.TUNNELS:
                assert running == 7
            else:
                assert shortage.quota is QuotaName.RATE
                assert shortage.wait is not None
                assert 0 < shortage.wait <= 1 / 2.0
        elif step == "end":
            if running:
                account.give_back()
                running -= 1
        elif isinstance(step, float):
            now += step
        assert account.tunnels == running <= 7
        assert admitted <= 5 + 2.0 * (now - 1000.0) + 1e-6


@given(st.floats(0.001, 1000), st.integers(1, 20))
def test_the_wait_for_the_rate_is_true(rate: float, burst: int) -> None:
    limits = QuotaLimits(rate=rate, burst=burst)
    account, now = Account(), 5.0
    for _ in range(burst):
        assert account.admit(limits, now) is None
    shortage = account.admit(limits, now)
    assert isinstance(shortage, Shortage)
    assert shortage.wait is not None
    assert account.admit(limits, now + shortage.wait * 0.99) is not None
    assert account.admit(limits, now + shortage.wait) is None


def test_the_volume_lasts_for_its_period() -> None:
    limits = QuotaLimits(volume=1000, period=60.0)
    account = Account()
    assert account.admit(limits, 0.0) is None
    account.add(999, limits, 10.0)
    assert account.admit(limits, 20.0) is None
    account.add(1, limits, 30.0)
    assert account.admit(limits, 45.0) == Shortage(QuotaName.BYTES, 15.0)
    assert account.is_used_up(limits, 59.9)
    assert not account.is_used_up(limits, 60.0)
    assert account.admit(limits, 60.0) is None
    account.add(999, limits, 119.0)
    assert not account.is_used_up(limits, 119.5)


def test_what_is_refused_takes_nothing() -> None:
    limits = QuotaLimits(tunnels=1, rate=1.0, burst=2)
    account = Account()
    assert account.admit(limits, 0.0) is None
    for _ in range(10):
        assert account.admit(limits, 0.0) == Shortage(QuotaName.TUNNELS, None)
    account.give_back()
    assert account.admit(limits, 0.0) is None


@given(st.floats(0.001, 10_000_000))
def test_a_coarse_wait_is_long_enough_and_tells_little(seconds: float) -> None:
    assert seconds <= coarse(seconds) <= max(1, seconds * 5, seconds + 3600)
    assert coarse(seconds) in {1, 2, 5, 10, 30, 60, 300, 900} or coarse(seconds) % 3600 == 0


# Whose quotas.


def test_a_name_goes_before_its_scheme_and_that_before_all() -> None:
    table = QuotaTable(
        quotas(
            tunnels=5,
            rate=1.0,
            overrides=[
                {"principal": "basic-1", "tunnels": 50},
                {"scheme": "basic", "rate": "unlimited", "bytes": "1GiB"},
                {"principal": "nobody", "tunnels": "unlimited", "rate": "unlimited"},
            ],
        )
    )
    assert table.limits(ALICE) == QuotaLimits(tunnels=5, rate=1.0)
    assert table.limits(Principal("basic-2", AuthScheme.BASIC)) == QuotaLimits(tunnels=5, volume=1 << 30)
    assert table.limits(BOB) == QuotaLimits(tunnels=50, volume=1 << 30)
    assert not table.limits(Principal("nobody", AuthScheme.APPLICATION)).is_bounded


def test_without_settings_nothing_is_bounded() -> None:
    assert not QuotaTable(QuotaSettings()).is_bounded
    assert QuotaTable(quotas(overrides=[{"scheme": "open", "tunnels": 1}])).is_bounded


@pytest.mark.parametrize("scheme", AuthScheme)
def test_every_scheme_can_have_quotas_of_its_own(scheme: AuthScheme) -> None:
    table = QuotaTable(quotas(overrides=[{"scheme": scheme.value, "tunnels": 3}]))
    assert table.limits(Principal("x", scheme)).tunnels == 3


# The accounts.


def test_accounts_are_bounded_and_forgotten_when_they_say_nothing() -> None:
    metrics = CounterMetrics()
    limits = QuotaLimits(rate=1.0, burst=2, volume=1000, period=100.0)
    accounts = Accounts(2, metrics)
    first, second = (accounts.find(name, limits, 0.0) for name in ("a", "b"))
    assert first is not None
    assert second is not None
    for account in (first, second):
        assert account.admit(limits, 0.0) is None
    assert accounts.find("c", limits, 0.0) is None
    first.give_back()
    accounts.rest("a", 0.0)
    assert accounts.find("c", limits, 0.5) is None  # its bucket is not full again
    assert accounts.find("a", limits, 0.5) is first
    assert accounts.find("c", limits, 1.0) is not None
    second.add(1, limits, 1.0)
    second.give_back()
    accounts.rest("b", 1.0)
    assert accounts.find("d", limits, 99.0) is None  # its bytes count until the period is over
    assert accounts.find("d", limits, 100.0) is not None
    assert len(accounts) == metrics.value(Metric.PRINCIPALS_TRACKED) == 2


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.floats(0, 2)), max_size=150))
def test_no_sequence_leaks_an_account(steps: list[tuple[int, bool, float]]) -> None:
    limits = QuotaLimits(tunnels=3, rate=1.0, burst=2)
    accounts, running, now = Accounts(5, NoMetrics()), dict.fromkeys(range(10), 0), 0.0
    for who, begins, passes in steps:
        now += passes
        account = accounts.find(str(who), limits, now) if begins else None
        if account is not None and account.admit(limits, now) is None:
            running[who] += 1
        elif not begins and running[who]:
            running[who] -= 1
            mine = accounts.find(str(who), limits, now)
            assert mine is not None
            mine.give_back()
            accounts.rest(str(who), now)
        assert len(accounts) <= 5
    busy = sum(1 for count in running.values() if count)
    accounts.forget_idle(now + 3.0)
    assert len(accounts) == busy


# The hooks.


@dataclass
class Clock:
    """Time as the test wants it."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class RunningTunnel:
    """A tunnel that relays what the test says."""

    relayed: int = 0
    outcomes: list[Outcome] = field(default_factory=list)

    def close(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


class Desk:
    """A chain of the quotas' hooks alone."""

    def __init__(self, settings: QuotaSettings) -> None:
        self.clock = Clock()
        self.metrics = CounterMetrics()
        self.chain = HookChain([quota_hooks(settings, self.metrics, self.clock)], self.metrics)

    async def ask(self, who: Principal, connection: ConnectionContext | None = None) -> ExchangeContext | Reject:
        """One exchange up to its authorization; its context, or the refusal."""
        head = RequestHead(b"CONNECT", authority=b"target.test:443")
        ctx = ExchangeContext(
            connection or ConnectionContext(0.0), TunnelKind.TCP, head, Target("target.test", 443), who
        )
        verdict = await self.chain.authorize(ctx)
        if isinstance(verdict, Reject):
            self.chain.exchange_ended(ctx)
            return verdict
        return ctx

    async def admitted(self, who: Principal, connection: ConnectionContext | None = None) -> ExchangeContext:
        """One exchange that must be admitted."""
        ctx = await self.ask(who, connection)
        assert isinstance(ctx, ExchangeContext)
        return ctx

    async def refused(self, who: Principal, connection: ConnectionContext | None = None) -> int | None:
        """One exchange that must be refused; its Retry-After."""
        verdict = await self.ask(who, connection)
        assert isinstance(verdict, Reject)
        assert (verdict.failure.kind, verdict.failure.side) == (FailureKind.RATE_LIMITED, Side.CLIENT)
        return verdict.failure.retry_after


async def test_a_place_comes_back_exactly_once() -> None:
    desk = Desk(quotas(tunnels=1))
    for _ in range(3):
        ctx = await desk.admitted(ALICE)
        assert await desk.refused(ALICE) is None
        desk.chain.exchange_ended(ctx)
        desk.chain.exchange_ended(ctx)
    assert desk.metrics.value(Metric.QUOTAS_HIT, QuotaName.TUNNELS) == 3
    assert desk.metrics.value(Metric.PRINCIPALS_TRACKED) == 0


async def test_principals_do_not_touch_each_other() -> None:
    desk = Desk(quotas(tunnels=1))
    await desk.admitted(ALICE)
    await desk.admitted(BOB)
    assert await desk.refused(Principal(ALICE.name, AuthScheme.BEARER)) is None  # the same one, another way


async def test_who_may_be_anybody_is_counted_by_the_connection() -> None:
    desk = Desk(quotas(tunnels=1, principals=1))
    first, second = ConnectionContext(0.0), ConnectionContext(0.0)
    ctx = await desk.admitted(ANYBODY, first)
    assert await desk.refused(ANYBODY, first) is None
    await desk.admitted(ANYBODY, second)
    desk.chain.exchange_ended(ctx)
    await desk.admitted(ANYBODY, first)
    assert desk.metrics.value(Metric.PRINCIPALS_TRACKED) == 0


async def test_a_scheme_is_unlinkable_until_it_is_said_to_be() -> None:
    named = {
        AuthScheme.PRESHARED,
        AuthScheme.BEARER,
        AuthScheme.BASIC,
        AuthScheme.CERTIFICATE,
        AuthScheme.APPLICATION,
    }
    assert {scheme for scheme in AuthScheme if scheme.is_linkable} == named


async def test_no_room_for_one_more_principal() -> None:
    desk = Desk(quotas(tunnels=5, principals=1))
    ctx = await desk.admitted(ALICE)
    assert await desk.refused(BOB) is None
    assert desk.metrics.value(Metric.QUOTAS_HIT, QuotaName.PRINCIPALS) == 1
    desk.chain.exchange_ended(ctx)
    await desk.admitted(BOB)


async def test_the_rate_and_when_to_come_again() -> None:
    desk = Desk(quotas(rate=0.25, burst=2))
    for _ in range(2):
        desk.chain.exchange_ended(await desk.admitted(ALICE))
    wait = await desk.refused(ALICE)
    assert wait == 5  # four seconds, rounded up to a step
    desk.clock.now += wait
    await desk.admitted(ALICE)
    assert desk.metrics.value(Metric.QUOTAS_HIT, QuotaName.RATE) == 1


async def test_bytes_close_the_tunnels_that_run_and_refuse_new_ones() -> None:
    desk = Desk(quotas(bytes="1MiB", period="1h"))
    tunnels = [RunningTunnel(), RunningTunnel()]
    contexts = []
    for tunnel in tunnels:
        ctx = await desk.admitted(ALICE)
        ctx.tunnel = tunnel
        desk.chain.tunnel_opened(ctx)
        contexts.append(ctx)
    tunnels[0].relayed = (1 << 20) - 1
    tunnels[1].relayed = 1
    async with asyncio.timeout(5):
        await eventually(lambda: all(tunnel.outcomes for tunnel in tunnels))
    assert all(tunnel.outcomes[0] == Outcome.failed(FailureKind.RATE_LIMITED, Side.CLIENT) for tunnel in tunnels)
    desk.clock.now += 3000.0
    assert await desk.refused(ALICE) == 900
    for ctx in contexts:
        desk.chain.exchange_ended(ctx)
    desk.clock.now += 900.0
    await desk.admitted(ALICE)


async def test_the_last_bytes_of_a_tunnel_count_too() -> None:
    desk = Desk(quotas(bytes="1KiB", period="1h"))
    ctx = await desk.admitted(ALICE)
    ctx.tunnel = RunningTunnel(2000)
    desk.chain.tunnel_opened(ctx)
    desk.chain.exchange_ended(ctx)
    assert await desk.refused(ALICE) == 3600
    assert desk.metrics.value(Metric.QUOTAS_HIT, QuotaName.BYTES) == 1


async def test_what_is_taken_after_the_end_goes_back_at_once() -> None:
    ctx = await Desk(quotas(tunnels=1)).admitted(ALICE)
    assert list(ctx.take_releases()) != []
    given: list[str] = []
    ctx.at_end(lambda: given.append("back"))
    assert given == ["back"]


async def test_releases_come_in_turn_and_a_faulty_one_stays_alone() -> None:
    metrics = CounterMetrics()
    ctx = await Desk(quotas(tunnels=1)).admitted(ALICE)
    given: list[int] = []

    def fail() -> None:
        raise ValueError("target.test")

    for release in (lambda: given.append(1), fail, lambda: given.append(2)):
        ctx.at_end(release)
    HookChain([], metrics).exchange_ended(ctx)
    assert given == [2, 1]
    assert metrics.value(Metric.HOOK_FAILURES, Phase.EXCHANGE_ENDED) == 1
