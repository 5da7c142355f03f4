"""Egress of one worker: chooses the source of every tunnel, counts them, and follows the operator's changes.

In `check_addresses` it puts the address family first that the wanted place serves best. In `choose_egress` it names
the session's source in the pool found. A source that cannot be bound leaves service at once; one that has no free
port towards a target is passed over for that tunnel. What an earlier hook has chosen stays.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network

from masque.errors import Malformed
from masque.geo import Location
from masque.target import IPAddress, Target
from relay.egress.nearest import Grade, Nearest, remark_on
from relay.egress.pools import EgressPlan, Pool, load_plan, make_plan, read_draft
from relay.egress.session import session_of
from relay.egress.sources import Source, SourceTable
from relay.egress.wish import wanted_location
from relay.errors import Failure, FailureKind, Remark, Side
from relay.hooks import Continue, EgressBinding, EgressSubnet, ExchangeContext, Hooks, Reject, Replace, Verdict
from relay.settings import EgressSettings
from relay.telemetry import Metric, Metrics, NoMetrics, get_logger

__all__ = ["Egress", "PoolBinding"]

_ATTEMPTS = 4
"Sources that one exchange may be refused by before it fails."
_SUBNETS = {4: 24, 6: 56}
"Bits of the egress address that upstreams are told where they are told any (RFC 7871 §11.1)."

_log = get_logger()


@dataclass(frozen=True, slots=True)
class PoolBinding(EgressBinding):
    """A binding that came out of a pool."""

    origin: Source | None = field(default=None, repr=False, compare=False)
    "Where the source address is from."


@dataclass(slots=True, eq=False)
class _Way:
    """One exchange's way out, kept between the phases."""

    wanted: Location | None = None
    "The location asked for, or None."
    pool: Pool | None = None
    "The pool, when it is not the location that decides."
    failure: Failure | None = None
    "Why there is no way."
    refused: list[Source] = field(default_factory=list)
    "Sources that would not do."


@dataclass(frozen=True, slots=True)
class _Counted:
    """Which source an open tunnel was counted for."""

    source: Source


class Egress:
    """The egress addresses of this worker."""

    def __init__(
        self, settings: EgressSettings, clock: Callable[[], float] = time.monotonic, *, tells_subnet: bool = False
    ) -> None:
        """Read the file, if settings name one.

        Args:
            settings: the branch `egress`.
            tells_subnet: whether the resolver shall learn which network a tunnel to a name will leave from.
            clock: seconds that only go forward.

        Raises:
            relay.settings.SettingsError: the pools cannot be used.
        """
        self._settings = settings
        self._clock = clock
        self._tells_subnet = tells_subnet
        self.metrics: Metrics = NoMetrics()
        "Where counts go; whoever serves sets it."
        self._rotation = settings.rotation.total_seconds()
        self._table = SourceTable(settings.retry.total_seconds())
        self._adopt(load_plan(settings, self._table))

    @property
    def hooks(self) -> Hooks:
        """The hooks that choose, and those that count."""
        return Hooks(
            authorize=self.tell_subnet if self._tells_subnet else None,
            check_addresses=self.check_addresses,
            choose_egress=self.choose_egress,
            tunnel_opened=self.tunnel_opened,
            tunnel_closed=lambda ctx, _outcome: self.tunnel_closed(ctx),
        )

    async def reload(self) -> None:
        """Read the file again; what is known of sources that stay is kept, and tunnels are let be.

        Raises:
            relay.settings.SettingsError: the pools cannot be used; those so far stay.
        """
        draft = await asyncio.to_thread(read_draft, self._settings)
        self._adopt(make_plan(self._settings, draft, self._table))

    def own_addresses(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Return all egress addresses, in quarantine or not, as the fewest networks."""
        return self.plan.own_addresses()

    def _adopt(self, plan: EgressPlan) -> None:
        settings = self._settings
        self.plan = plan
        self._is_located = plan.is_located
        self._nearest = Nearest(plan.pools, settings.reach, other_countries=settings.other_countries)

    # What the chain calls.

    async def tell_subnet(self, ctx: ExchangeContext) -> Verdict[Target]:
        """Say where the tunnel will leave from, for answers that suit (RFC 7871); nothing of where the client is."""
        if ctx.target.address is not None or ctx.get(EgressSubnet) is not None:
            return Continue()
        way = self._way(ctx)
        if way.failure is not None:
            return Continue()
        session = session_of(ctx.connection, self._clock(), self._rotation)
        for version, length in _SUBNETS.items():
            pool, _ = self._pool(way, version)
            source = None if pool is None else session.pick(pool, version)
            address = None if source is None else source.address_for(session.key)
            if address is not None:
                ctx.put(EgressSubnet(ip_network((address, length), strict=False)))
                break
        return Continue()

    async def check_addresses(
        self, ctx: ExchangeContext, addresses: tuple[IPAddress, ...]
    ) -> Verdict[tuple[IPAddress, ...]]:
        """Put the family first for which a finer pool is there; the order stays when both are as fine.

        Resolvers answer IPv6 first. Nothing is refused here: a hook may still choose an egress of its own.
        """
        way = self._way(ctx)
        if self.plan.leaves_rest or way.failure is not None or len({address.version for address in addresses}) < 2:
            return Continue()
        grades = {version: self._grade(way, version) for version in (6, 4)}
        ordered = tuple(sorted(addresses, key=lambda address: grades[address.version]))
        return Continue() if ordered == addresses else Replace(ordered)

    async def choose_egress(self, ctx: ExchangeContext, address: IPAddress) -> Verdict[EgressBinding]:
        """Name the session's source of the address's family."""
        if ctx.egress is not None:
            return Continue()
        now = self._clock()
        if back := self._table.sweep(now):
            _log.info("egress_sources_back", count=back)
        way = self._way(ctx)
        if way.failure is not None:
            return Reject(way.failure)
        version = address.version
        pool, remark = self._pool(way, version)
        if self.plan.leaves_rest and pool is not None and not pool.sources[version]:
            return Replace(EgressBinding())
        if pool is not None:
            session = session_of(ctx.connection, now, self._rotation)
            while (source := session.pick(pool, version, way.refused)) is not None:
                bound = source.address_for(session.key)
                if bound is not None:
                    refused = partial(self._refused, way, source)
                    return Replace(
                        PoolBinding(bound, source.ports, source.is_drawn_from, remark, refused, origin=source)
                    )
                way.refused.append(source)
        return Reject(self._no_source(way, version))

    def tunnel_opened(self, ctx: ExchangeContext) -> None:
        """Count a tunnel for its source."""
        if isinstance(ctx.egress, PoolBinding) and ctx.egress.origin is not None:
            source = ctx.egress.origin
            source.tunnels += 1
            source.opened += 1
            ctx.put(_Counted(source))

    def tunnel_closed(self, ctx: ExchangeContext) -> None:
        """Count it off."""
        counted = ctx.get(_Counted)
        if counted is not None:
            counted.source.tunnels -= 1

    # Inside.

    def _way(self, ctx: ExchangeContext) -> _Way:
        """Find out where an exchange wants to leave from, once."""
        way = ctx.get(_Way)
        if way is None:
            way = self._find_way(ctx)
            ctx.put(way)
        return way

    def _find_way(self, ctx: ExchangeContext) -> _Way:
        plan = self.plan
        way = _Way()
        if self._is_located:
            try:
                way.wanted = wanted_location(ctx)
            except Malformed:
                way.failure = Failure(
                    FailureKind.HTTP_REQUEST_ERROR, Side.CLIENT, status=400, remark=Remark.LOCATION_INVALID
                )
                return way
            if way.wanted is not None and not self._nearest.is_served(way.wanted):
                way.failure = Failure(
                    FailureKind.LOCATION_UNAVAILABLE, Side.RELAY, remark=Remark.LOCATION_UNAVAILABLE
                )
        if way.wanted is None:
            principal = "" if ctx.principal is None else ctx.principal.name
            way.pool = plan.principals.get(principal, plan.default)
        return way

    def _pool(self, way: _Way, version: int) -> tuple[Pool | None, Remark | None]:
        """Return the pool that a tunnel of an IP version leaves from, and what the client is told of it."""
        if way.wanted is None:
            return way.pool, None
        found = self._nearest.find(way.wanted, version)
        return (None, None) if found is None else (found[1], remark_on(found[0], way.wanted))

    def _no_source(self, way: _Way, version: int) -> Failure:
        """Say why no source is left: the family is not to be had here at all, or all of it is out of service."""
        if way.wanted is None:
            has_family = way.pool is not None and bool(way.pool.sources[version])
        else:
            has_family = self._nearest.has_family(way.wanted, version)
        kind = FailureKind.CONNECTION_LIMIT_REACHED if has_family else FailureKind.DESTINATION_IP_UNROUTABLE
        return Failure(kind, Side.RELAY, remark=Remark.EGRESS_UNAVAILABLE)

    def _grade(self, way: _Way, version: int) -> int:
        """Return how well a family serves; the smaller the better."""
        if way.wanted is None:
            return Grade.PLACE if way.pool is not None and way.pool.has_up(version) else len(Grade)
        found = self._nearest.find(way.wanted, version)
        return len(Grade) if found is None else found[0]

    def _refused(self, way: _Way, source: Source, is_lost: bool) -> bool:
        """A source cannot be used: for this exchange when it has no free port, for all when it is lost."""
        way.refused.append(source)
        if not is_lost:
            self.metrics.count(Metric.EGRESS_PORTS_EXHAUSTED)
        elif self._table.lose(source, self._clock()):
            self.metrics.count(Metric.EGRESS_SOURCES_LOST)
            _log.warning("egress_source_lost", count=1)
        return len(way.refused) < _ATTEMPTS
