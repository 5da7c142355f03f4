"""The relay's own resolver: names to addresses, asked of configured upstreams, never of the C library.

A and AAAA are asked together and kept each for itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from types import TracebackType
from typing import Self

import anyio
import dns.rdatatype
from anyio.abc import TaskGroup

from masque.target import IPAddress
from relay.errors import Failure, FailureKind, RelayError, Side
from relay.hooks import Resolution
from relay.resolver.answer import Reading
from relay.resolver.assembly import make_routes
from relay.resolver.lookup import Lookup, LookupKey
from relay.resolver.names import canonical_name, known_reading, parse_name
from relay.resolver.routes import Routes
from relay.resolver.upstream import Subnet
from relay.settings import ResolverSettings, Upstream
from relay.telemetry import Metric, Metrics, NoMetrics

__all__ = ["SECOND_FAMILY_GRACE", "Resolver"]

SECOND_FAMILY_GRACE = 0.25
"""Seconds that the second family may take once the first has addresses. RFC 8305 §3 advises 50 ms where a late
answer can still be used; here it cannot, so it gets a little more."""

_SHARES = 64
"Names of one connection are one in so many of all questions; each is two questions, so half as many fill the room."
_LEAST_SHARE = 4
_SLACK = 0.2
"Seconds by which a name that waited outlasts its questions, so that these end by themselves."
_FAMILIES = (dns.rdatatype.AAAA, dns.rdatatype.A)
_SUBNET_BITS = {4: 24, 6: 56}
"The most of a network's address that is told (RFC 7871 §11.1)."


@dataclass(frozen=True, slots=True)
class _Entered:
    """What a resolver has while it is in use."""

    tasks: TaskGroup
    lookup: Lookup
    routes: Routes


class Resolver:
    """Resolves names for tunnels. One for each worker; entered before it is used, and left when the worker ends."""

    def __init__(
        self,
        settings: ResolverSettings,
        upstreams: Sequence[Upstream],
        routes: Mapping[str, Sequence[Upstream]] | None = None,
        *,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        authority_port: int = 53,
    ) -> None:
        """Keep what is needed; entering makes it ready.

        Args:
            settings: the bounds.
            upstreams: recursive resolvers in order of preference; at least one, unless settings say to iterate.
            routes: those to ask instead for names below a suffix, by suffix.
            metrics: where queries, cache hits and failures are counted; by default nowhere.
            clock: what the cache takes the time from.
            authority_port: of authoritative servers, when settings say to iterate.

        Raises:
            ValueError: there is no upstream.
        """
        if not upstreams and settings.mode == "forward":
            raise ValueError("a resolver needs at least one upstream")
        self._settings = settings
        self._upstreams = tuple(upstreams)
        self._below = dict(routes or {})
        self._metrics: Metrics = NoMetrics() if metrics is None else metrics
        self._clock = clock
        self._authority_port = authority_port
        self._entered: _Entered | None = None

    async def __aenter__(self) -> Self:
        """Start with an empty cache and without connections.

        Raises:
            relay.settings.SettingsError: an upstream's certificate could not be checked, or trust anchors or root
                hints not be read.
        """
        tasks = await anyio.create_task_group().__aenter__()
        try:
            routes = make_routes(
                self._settings, self._upstreams, self._below, tasks, self._metrics, self._authority_port
            )
        except BaseException:
            await tasks.__aexit__(None, None, None)
            raise
        lookup = Lookup(self._settings, routes, tasks, self._metrics, self._clock)
        self._entered = _Entered(tasks, lookup, routes)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is under way, and close all connections. What was raised meanwhile passes as it is."""
        tasks = self._parts.tasks
        self._entered = None
        tasks.cancel_scope.cancel()
        await tasks.__aexit__(None, None, None)

    @property
    def share(self) -> int:
        """Names that one connection should have under way at once, so that silent ones leave room for others."""
        return max(_LEAST_SHARE, self._settings.max_queries // _SHARES)

    async def resolve(
        self, name: str, *, subnet: Subnet | None = None, share: anyio.CapacityLimiter | None = None
    ) -> Resolution:
        """Find the addresses of a name.

        Args:
            name: a host name in ASCII, with or without the final dot; never an IP literal.
            subnet: the network of the egress location, never a client's; told to upstreams if settings allow it.
            share: what a name waits for that is not known, within its time, before anybody is asked.

        Returns:
            At least one address, those of IPv6 first, and the aliases on the way.

        Raises:
            RelayError: DNS_ERROR with the response code, or `NODATA`; DNS_TIMEOUT.
        """
        lookup = self._parts.lookup
        spelling, network = canonical_name(name), self._network(subnet)
        keys: tuple[LookupKey, ...] = tuple((spelling, rdtype, network) for rdtype in _FAMILIES)
        found = [lookup.known(key) for key in keys]
        try:
            readings = [one for one in found if one is not None]
            if len(readings) < len(keys):
                readings = await self._resolve_within(share, name, keys)
            return _combine(readings)
        except RelayError:
            self._metrics.count(Metric.DNS_FAILURES)
            raise

    async def query(self, name: str, rdtype: dns.rdatatype.RdataType, *, subnet: Subnet | None = None) -> Reading:
        """Find the records of a name, such as its SVCB or HTTPS ones (RFC 9460).

        Args:
            name: a name in ASCII; labels may begin with an underscore.
            rdtype: the type of the records, none that asks for several types.
            subnet: as for `resolve`.

        Returns:
            At least one record, as dnspython has them, or one address; the aliases on the way.

        Raises:
            RelayError: DNS_ERROR with the response code, or `NODATA`; DNS_TIMEOUT.
            ValueError: the type is no record's.
        """
        if dns.rdatatype.is_metatype(rdtype):
            raise ValueError("not the type of a record")
        lookup, routes = self._parts.lookup, self._parts.routes
        try:
            full = parse_name(name)
            reading = known_reading(full, has_route=routes.covers(full))
            if reading is None:
                reading = await lookup.find((canonical_name(name), rdtype, self._network(subnet)))
            if reading.failure is not None:
                raise RelayError(reading.failure)
        except RelayError:
            self._metrics.count(Metric.DNS_FAILURES)
            raise
        return reading

    async def _resolve_within(
        self, share: anyio.CapacityLimiter | None, name: str, keys: tuple[LookupKey, ...]
    ) -> list[Reading]:
        """Wait for room in the share, then ask; no reading when that takes too long together."""
        if share is None:
            return await self._resolve(name, keys)
        with anyio.move_on_after(self._settings.timeout.total_seconds() + _SLACK):
            async with share:
                return await self._resolve(name, keys)
        return []

    async def _resolve(self, name: str, keys: tuple[LookupKey, ...]) -> list[Reading]:
        """Ask for both families, and wait for the second one only a little once the first has addresses."""
        lookup, routes = self._parts.lookup, self._parts.routes
        full = parse_name(name)
        known = known_reading(full, has_route=routes.covers(full))
        if known is not None:
            return [known]
        readings: dict[LookupKey, Reading] = {}
        silent: list[LookupKey] = []
        async with anyio.create_task_group() as group:

            async def ask(key: LookupKey) -> None:
                try:
                    readings[key] = reading = await lookup.find(key)
                except anyio.get_cancelled_exc_class():
                    if lookup.is_asked(key):
                        silent.append(key)
                    raise
                if reading.addresses:
                    group.cancel_scope.deadline = anyio.current_time() + SECOND_FAMILY_GRACE

            for key in keys:
                group.start_soon(ask, key)
        for key in silent:
            lookup.keep_silence(key)
        return [readings[key] for key in keys if key in readings]

    @property
    def _parts(self) -> _Entered:
        if self._entered is None:
            raise RuntimeError("a resolver is entered before it is used, and not used afterwards")
        return self._entered

    def _network(self, subnet: Subnet | None) -> Subnet | None:
        """Return what may be told of the egress location's network."""
        if subnet is None or not self._settings.client_subnet:
            return None
        bits = min(subnet.prefixlen, _SUBNET_BITS[subnet.version])
        return ip_network((subnet.network_address, bits), strict=False)


def _combine(found: list[Reading]) -> Resolution:
    """Make one resolution of both families' readings, or raise the failure that says most."""
    addresses: tuple[IPAddress, ...] = tuple(address for reading in found for address in reading.addresses)
    if addresses:
        # Of both families: whoever owns the name may answer them differently, and policy looks at every alias.
        return Resolution(addresses, tuple(dict.fromkeys(alias for reading in found for alias in reading.aliases)))
    failures = [reading.failure for reading in found if reading.failure is not None]
    if not failures:
        raise RelayError(Failure(FailureKind.DNS_TIMEOUT, Side.TARGET))
    raise RelayError(min(failures, key=_weight))


def _weight(failure: Failure) -> int:
    """Order failures: a name that surely is not, an upstream's error, silence, and one family's absence last."""
    if failure.rcode == "NXDOMAIN":
        return 0
    if failure.rcode == "NODATA":
        return 3
    return 1 if failure.kind is FailureKind.DNS_ERROR else 2
