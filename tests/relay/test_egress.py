"""relay.egress: the hooks, without pools and with them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Network, ip_address

import pytest

from masque.geo import Location
from masque.head import RequestHead
from masque.target import IPAddress, Target
from relay.egress import Egress, PoolBinding
from relay.errors import FailureKind, Remark
from relay.hooks import (
    AuthScheme,
    ConnectionContext,
    Continue,
    EgressBinding,
    EgressSubnet,
    ExchangeContext,
    HookChain,
    Principal,
    Reject,
    Replace,
    TunnelKind,
)
from relay.settings import EgressSettings

pytestmark = pytest.mark.anyio

FOUR, SIX = ip_address("8.8.8.8"), ip_address("2606::1")
POOLS = [
    {"name": "world", "addresses": ["192.0.2.1", "2001:db8::1"]},
    {"name": "germany", "country": "DE", "addresses": ["192.0.2.2", "2001:db8:49::/64"]},
    {"name": "berlin", "country": "DE", "city": "Berlin", "geohash": "u33d", "addresses": ["192.0.2.3"]},
    {"name": "paris", "country": "FR", "city": "Paris", "geohash": "u09t", "addresses": ["2001:db8:33::1"]},
]


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def egress_of(**settings: object) -> Egress:
    return Egress(EgressSettings.model_validate({"pools": POOLS, **settings}), Clock())


def exchange(*hints: tuple[bytes, bytes], connection: ConnectionContext | None = None) -> ExchangeContext:
    head = RequestHead(b"CONNECT", fields=hints)
    return ExchangeContext(connection or ConnectionContext(0.0), TunnelKind.UDP, head, Target("www.example", 443))


def located(hint: str) -> ExchangeContext:
    return exchange((b"sec-ch-geohash", hint.encode()))


async def choose(egress: Egress, ctx: ExchangeContext, address: IPAddress) -> PoolBinding:
    verdict = await HookChain([egress.hooks]).choose_egress(ctx, address)
    assert isinstance(verdict, PoolBinding), verdict
    return verdict


async def rejection(egress: Egress, ctx: ExchangeContext, address: IPAddress) -> Reject:
    verdict = await HookChain([egress.hooks]).choose_egress(ctx, address)
    assert isinstance(verdict, Reject), verdict
    return verdict


async def test_without_pools_each_family_leaves_from_its_own_source() -> None:
    egress = Egress(EgressSettings(ipv4=IPv4Address("192.0.2.1")))
    assert (await choose(egress, exchange(), FOUR)).source == ip_address("192.0.2.1")
    assert await egress.choose_egress(exchange(), SIX) == Replace(EgressBinding())


async def test_without_pools_hints_mean_nothing() -> None:
    egress = Egress(EgressSettings())
    assert await egress.choose_egress(located("not a geohash"), FOUR) == Replace(EgressBinding())


async def test_an_earlier_choice_stays() -> None:
    ctx = located("u33d-US")
    ctx.egress = EgressBinding(IPv4Address("192.0.2.99"))
    assert await egress_of().choose_egress(ctx, FOUR) == Continue()


@pytest.mark.parametrize(
    ("hint", "four", "six", "remark4", "remark6"),
    [
        ("u33d-DE", "192.0.2.3", "2001:db8:49::/64", None, Remark.LOCATION_COARSER),
        ("u33dc0-de", "192.0.2.3", "2001:db8:49::/64", None, Remark.LOCATION_COARSER),
        ("u281-DE", "192.0.2.2", "2001:db8:49::/64", Remark.LOCATION_COARSER, Remark.LOCATION_COARSER),
        ('"u33d"', "192.0.2.3", None, None, None),
        ("u05k-FR", None, "2001:db8:33::1", None, Remark.LOCATION_COARSER),
    ],
)
async def test_the_nearest_pool_serves(
    hint: str, four: str | None, six: str | None, remark4: Remark | None, remark6: Remark | None
) -> None:
    """Munich gets the country's own pool, and not Berlin's; Brest gets Paris, as France has nothing else."""
    egress = egress_of()
    for address, wanted, remark in ((FOUR, four, remark4), (SIX, six, remark6)):
        if wanted is None:
            failure = (await rejection(egress, located(hint), address)).failure
            assert failure.kind is FailureKind.DESTINATION_IP_UNROUTABLE
            assert failure.remark is Remark.EGRESS_UNAVAILABLE
        else:
            binding = await choose(egress, located(hint), address)
            assert binding.origin is not None
            assert str(binding.origin.network) in (wanted, f"{wanted}/32", f"{wanted}/128")
            assert binding.source in binding.origin.network
            assert binding.remark is remark


async def test_no_pool_in_the_country_is_refused_or_served_from_the_nearest() -> None:
    for address in (FOUR, SIX):
        failure = (await rejection(egress_of(), located("u281-AT"), address)).failure
        assert (failure.kind, failure.remark) == (FailureKind.LOCATION_UNAVAILABLE, Remark.LOCATION_UNAVAILABLE)
    binding = await choose(egress_of(other_countries=True), located("u33d-PL"), FOUR)
    assert (str(binding.source), binding.remark) == ("192.0.2.3", Remark.LOCATION_ELSEWHERE)


@pytest.mark.parametrize(
    "hints",
    [
        [(b"sec-ch-geohash", b"a")],
        [(b"sec-ch-geohash", b"u33d-DEU")],
        [(b"sec-ch-geohash", b"u33d-DE"), (b"sec-ch-geohash", b"u33d-DE")],
        [(b"sec-ch-geohash", b"u33d-DE"), (b"sec-ch-ip-geo", b"DE")],
    ],
)
async def test_a_hint_that_cannot_be_read_costs_its_exchange(hints: list[tuple[bytes, bytes]]) -> None:
    failure = (await rejection(egress_of(), exchange(*hints), FOUR)).failure
    assert (failure.kind, failure.status) == (FailureKind.HTTP_REQUEST_ERROR, 400)
    assert failure.remark is Remark.LOCATION_INVALID


async def test_a_geofeed_entry_is_a_hint_too() -> None:
    binding = await choose(egress_of(), exchange((b"sec-ch-ip-geo", b'"DE,DE-BE,Berlin"')), FOUR)
    assert (str(binding.source), binding.remark) == ("192.0.2.3", None)
    binding = await choose(egress_of(), exchange((b"sec-ch-ip-geo", b'"DE,,Bonn"')), FOUR)
    assert (str(binding.source), binding.remark) == ("192.0.2.2", Remark.LOCATION_COARSER)
    binding = await choose(egress_of(), exchange((b"sec-ch-ip-geo", b'"DE"')), FOUR)
    assert (str(binding.source), binding.remark) == ("192.0.2.2", None)
    binding = await choose(egress_of(), exchange((b"sec-ch-ip-geo", b'""')), FOUR)
    assert (str(binding.source), binding.remark) == ("192.0.2.1", None)


async def test_credentials_say_the_country_and_a_hint_only_makes_it_finer() -> None:
    for hint, source in (("u09t-FR", "192.0.2.2"), ("u33d-DE", "192.0.2.3"), ('"u33d"', "192.0.2.3")):
        ctx = located(hint)
        ctx.location = Location(country="DE")
        assert str((await choose(egress_of(), ctx, FOUR)).source) == source


async def test_a_principal_has_a_pool_and_others_the_default() -> None:
    pools = [*POOLS, {"name": "own", "addresses": ["192.0.2.9"], "principals": ["preshared-7"]}]
    egress = egress_of(pools=pools, default="germany")
    for name, hint, source in (
        ("preshared-7", None, "192.0.2.9"),
        ("preshared-1", None, "192.0.2.2"),
        ("preshared-7", "u33d-DE", "192.0.2.3"),
    ):
        ctx = exchange() if hint is None else located(hint)
        ctx.principal = Principal(name, AuthScheme.PRESHARED)
        assert str((await choose(egress, ctx, FOUR)).source) == source


async def test_the_family_with_the_finer_pool_goes_first() -> None:
    check = egress_of().check_addresses
    assert await check(located("u33d-DE"), (SIX, FOUR)) == Replace((FOUR, SIX))
    assert await check(located("u09t-FR"), (FOUR, SIX)) == Replace((SIX, FOUR))
    assert await check(located("u281-DE"), (SIX, FOUR)) == Continue()
    assert await check(located("u33d-US"), (SIX, FOUR)) == Continue()
    assert await check(exchange(), (FOUR,)) == Continue()
    only_four = egress_of(pools=POOLS[2:3])
    assert await only_four.check_addresses(exchange(), (SIX, FOUR)) == Replace((FOUR, SIX))


async def test_a_session_stays_and_another_one_does_not_share_its_network_address() -> None:
    egress = egress_of(default="germany")
    sources = set()
    for _ in range(20):
        connection = ConnectionContext(0.0)
        own = {(await choose(egress, exchange(connection=connection), SIX)).source for _ in range(3)}
        assert len(own) == 1
        sources |= own
    assert len(sources) == 20
    assert all(source in IPv6Network("2001:db8:49::/64") for source in sources)


async def test_a_session_changes_its_addresses_in_time() -> None:
    clock = Clock()
    egress = Egress(EgressSettings.model_validate({"pools": POOLS[1:2], "rotation": "1m"}), clock)
    connection = ConnectionContext(0.0)
    seen = []
    for moment in (100.0, 159.9, 160.0, 219.9):
        clock.now = moment
        seen.append((await choose(egress, exchange(connection=connection), SIX)).source)
    assert seen[0] == seen[1] != seen[2] == seen[3]


async def test_a_refused_source_is_passed_over_for_one_tunnel_and_a_lost_one_for_all() -> None:
    """198.51.100.0/24 is for documentation, so no interface has it, and a lost source stays lost."""
    clock = Clock()
    settings = EgressSettings.model_validate(
        {"pools": [{"name": "a", "addresses": ["198.51.100.0/30"]}], "retry": 10}
    )
    egress = Egress(settings, clock)
    connection = ConnectionContext(0.0)
    ctx = exchange(connection=connection)
    first = await choose(egress, ctx, FOUR)
    assert first.refused is not None
    assert first.refused(False)
    second = await choose(egress, ctx, FOUR)
    assert second.source != first.source
    assert (await choose(egress, exchange(connection=connection), FOUR)).source == first.source

    assert second.refused is not None
    assert second.refused(True)
    assert first.refused(True)
    moved = await choose(egress, exchange(connection=connection), FOUR)
    assert moved.source not in (first.source, second.source)
    states = [source.state for source in egress.plan.sources]
    assert sorted(states) == ["in service", "in service", "lost", "lost"]
    clock.now += 10
    await choose(egress, exchange(), FOUR)
    assert [source.is_lost for source in egress.plan.sources].count(True) == 2


async def test_a_lost_source_is_back_when_it_can_be_bound_and_its_session_stays_where_it_is() -> None:
    clock = Clock()
    settings = EgressSettings.model_validate({"pools": [{"name": "a", "addresses": ["127.0.0.32/31"]}], "retry": 10})
    egress = Egress(settings, clock)
    connection = ConnectionContext(0.0)
    first = await choose(egress, exchange(connection=connection), FOUR)
    assert first.refused is not None
    first.refused(True)
    second = await choose(egress, exchange(connection=connection), FOUR)
    assert second.source != first.source
    clock.now += 9.9
    await choose(egress, exchange(), FOUR)
    assert [source.is_up for source in egress.plan.sources].count(True) == 1
    clock.now += 0.2
    assert (await choose(egress, exchange(connection=connection), FOUR)).source == second.source
    assert all(source.is_up for source in egress.plan.sources)


async def test_attempts_have_a_bound_and_the_last_source_may_go() -> None:
    egress = egress_of(pools=[{"name": "a", "addresses": ["192.0.2.0/28"]}])
    ctx = exchange()
    answers = []
    for _ in range(4):
        binding = await choose(egress, ctx, FOUR)
        assert binding.refused is not None
        answers.append(binding.refused(False))
    assert answers == [True, True, True, False]
    lonely = egress_of(pools=[{"name": "a", "addresses": ["192.0.2.1"]}])
    binding = await choose(lonely, ctx := exchange(), FOUR)
    assert binding.refused is not None
    assert binding.refused(True)
    failure = (await rejection(lonely, ctx, FOUR)).failure
    assert (failure.kind, failure.remark) == (FailureKind.CONNECTION_LIMIT_REACHED, Remark.EGRESS_UNAVAILABLE)


async def test_open_tunnels_are_counted_for_their_source() -> None:
    egress = egress_of()
    hooks = egress.hooks
    assert hooks.tunnel_opened is not None
    ctx = exchange()
    source = (await choose(egress, ctx, FOUR)).origin
    assert source is not None
    egress.tunnel_opened(ctx)
    assert (source.tunnels, source.opened) == (1, 1)
    ctx.egress = None
    egress.tunnel_closed(ctx)
    egress.tunnel_closed(exchange())
    assert (source.tunnels, source.opened) == (0, 1)


@pytest.mark.parametrize(
    ("hint", "network"), [("u33d-DE", "192.0.2.0/24"), ("u09t-FR", "2001:db8:33::/56"), ("6gkz-BR", None)]
)
async def test_the_resolver_learns_where_a_tunnel_will_leave_from(hint: str, network: str | None) -> None:
    egress = Egress(EgressSettings.model_validate({"pools": POOLS}), Clock(), tells_subnet=True)
    ctx = located(hint)
    assert await HookChain([egress.hooks]).authorize(ctx) == ctx.target
    at = ctx.get(EgressSubnet)
    assert (None if at is None else str(at.network)) == network


async def test_a_subnet_that_a_hook_named_stays_and_nobody_is_told_unasked() -> None:
    named = EgressSubnet(IPv6Network("2001:db8:7::/56"))
    ctx = located("u33d-DE")
    ctx.put(named)
    egress = Egress(EgressSettings.model_validate({"pools": POOLS}), Clock(), tells_subnet=True)
    await HookChain([egress.hooks]).authorize(ctx)
    assert ctx.get(EgressSubnet) is named
    other = located("u33d-DE")
    await HookChain([egress_of().hooks]).authorize(other)
    assert other.get(EgressSubnet) is None
