"""Pools: the sources of each place, made of the settings and the file, and checked before anything is served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from masque.geo import Location
from relay.egress.sources import Source, SourceTable
from relay.settings import (
    EgressSettings,
    PoolSettings,
    PortSlice,
    SettingsError,
    SourceEntry,
    parse_port_slice,
    parse_source,
    read_egress_file,
)

__all__ = ["EgressPlan", "Pool", "PoolDraft", "count_pools", "load_plan", "make_plan", "read_draft"]

Network = IPv4Network | IPv6Network

_MAX_SOURCES = 4096
"Addresses of one family in one pool: each choice for a new session looks at all of them."


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Sources of one place."""

    name: str
    "What operators call it."
    sources: dict[int, tuple[Source, ...]]
    "By IP version."
    location: Location = field(default_factory=Location)
    "Where it is, to be compared with what clients ask for."
    city: str = ""
    "The city as the operator wrote it."

    def has_up(self, version: int) -> bool:
        """Tell whether a new tunnel of this IP version could leave from here."""
        return any(source.is_up for source in self.sources[version])


@dataclass(frozen=True, slots=True)
class PoolDraft:
    """What settings and file say of pools, checked."""

    entries: tuple[tuple[PoolSettings, tuple[SourceEntry, ...]], ...]
    "The pools, each with its addresses."
    quarantine: tuple[Network, ...]
    "What the operator took out of service."


@dataclass(frozen=True, slots=True, eq=False)
class EgressPlan:
    """All pools, and who leaves from which."""

    pools: tuple[Pool, ...]
    "In the order of the settings, then of the file."
    default: Pool
    "Of tunnels for which no location is known."
    principals: dict[str, Pool]
    "Pools of principals that have one."
    leaves_rest: bool
    "True when the system may choose for a family that the default pool has no address of."

    @property
    def is_located(self) -> bool:
        """True when locations mean something: some pool is in a country."""
        return any(pool.location.country is not None for pool in self.pools)

    @property
    def sources(self) -> Iterator[Source]:
        """All sources."""
        return (source for pool in self.pools for sources in pool.sources.values() for source in sources)

    def own_addresses(self) -> tuple[Network, ...]:
        """Return all egress addresses as the fewest networks, IPv4 first."""
        return collapse(source.network for source in self.sources)


def collapse(networks: Iterable[Network]) -> tuple[Network, ...]:
    """Return the fewest networks that hold the same addresses, IPv4 first."""
    found = list(networks)
    four = collapse_addresses([network for network in found if isinstance(network, IPv4Network)])
    six = collapse_addresses([network for network in found if isinstance(network, IPv6Network)])
    return (*four, *six)


def load_plan(settings: EgressSettings, table: SourceTable) -> EgressPlan:
    """Read the file, if there is one, and put all pools together.

    Args:
        settings: the branch `egress`.
        table: where the sources are kept.

    Raises:
        SettingsError: the file cannot be used, or pools contradict each other.
    """
    return make_plan(settings, read_draft(settings), table)


def count_pools(settings: EgressSettings) -> int:
    """Read and check all pools, those of the file too, and return how many there are; nothing is put to use.

    Raises:
        SettingsError: as `read_draft`.
    """
    return len(load_plan(settings, SourceTable(settings.retry.total_seconds())).pools)


def read_draft(settings: EgressSettings) -> PoolDraft:
    """Read the file, if there is one, and check all pools. Touches nothing else: it may run in a thread.

    Raises:
        SettingsError: the file cannot be used, or pools contradict each other.
    """
    pools = settings.pools
    quarantine: tuple[Network, ...] = ()
    if settings.file is not None:
        file = read_egress_file(settings.file)
        pools, quarantine = pools + file.pools, file.quarantine
        if not pools:
            raise SettingsError(f"egress.file: {settings.file} has no pools, and the settings have none")
        if settings.ipv4 is not None or settings.ipv6 is not None:
            raise SettingsError("egress.ipv4, egress.ipv6: cannot be set together with pools, which egress.file has")
    entries = tuple((pool, _read_entries(pool)) for pool in pools)
    _check_names(pools, settings.default)
    _check_overlaps(entries)
    return PoolDraft(entries, quarantine)


def make_plan(settings: EgressSettings, draft: PoolDraft, table: SourceTable) -> EgressPlan:
    """Make the plan of a draft.

    Args:
        settings: the branch `egress`.
        draft: what `read_draft` found.
        table: where the sources are kept; ones that it knows keep what is known of them, ones that are no longer
            wanted are forgotten.
    """
    plan = _join(settings, draft, table) if draft.entries else _plain_plan(settings, table)
    table.keep(plan.sources, draft.quarantine)
    return plan


def _plain_plan(settings: EgressSettings, table: SourceTable) -> EgressPlan:
    """One pool of the two addresses that settings may name; the system chooses for the rest."""
    sources: dict[int, tuple[Source, ...]] = {4: (), 6: ()}
    for address in (settings.ipv4, settings.ipv6):
        if address is not None:
            sources[address.version] = (table.take(SourceEntry(ip_network(address))),)
    pool = Pool("default", sources)
    return EgressPlan((pool,), pool, {}, leaves_rest=True)


def _join(settings: EgressSettings, draft: PoolDraft, table: SourceTable) -> EgressPlan:
    """The pools of the settings and of the file, and who leaves from which."""
    pools = tuple(_make_pool(pool, own, table) for pool, own in draft.entries)
    by_name = {pool.name: pool for pool in pools}
    free = [pool for pool in pools if pool.location.country is None]
    default = by_name[settings.default] if settings.default is not None else (free or pools)[0]
    principals = {principal: by_name[pool.name] for pool, _ in draft.entries for principal in pool.principals}
    return EgressPlan(pools, default, principals, leaves_rest=False)


def _make_pool(pool: PoolSettings, entries: tuple[SourceEntry, ...], table: SourceTable) -> Pool:
    location = Location(pool.country, pool.region, pool.city.casefold() if pool.city else None, pool.geohash)
    sources = {
        version: tuple(table.take(entry) for entry in entries if entry.network.version == version)
        for version in (4, 6)
    }
    return Pool(pool.name, sources, location, pool.city or "")


def _read_entries(pool: PoolSettings) -> tuple[SourceEntry, ...]:
    """Read a pool's addresses: IPv4 networks address by address, IPv6 networks whole."""
    ports = None if pool.ports is None else parse_port_slice(pool.ports)
    found: list[SourceEntry] = []
    for text in pool.addresses:
        entry = parse_source(text)
        network, own = entry.network, entry.ports or ports
        if isinstance(network, IPv6Network):
            found.append(SourceEntry(network, own))
        elif network.num_addresses <= _MAX_SOURCES:
            found += [SourceEntry(IPv4Network(address), own) for address in network]
        else:
            raise SettingsError(f"egress pool {pool.name}: {network} has more than {_MAX_SOURCES} addresses")
    if max(Counter(entry.network.version for entry in found).values()) > _MAX_SOURCES:
        raise SettingsError(f"egress pool {pool.name}: has more than {_MAX_SOURCES} addresses of one family")
    return tuple(found)


def _check_names(pools: tuple[PoolSettings, ...], default: str | None) -> None:
    names = Counter(pool.name for pool in pools)
    for name, count in names.items():
        if count > 1:
            raise SettingsError(f"egress pool {name}: the name is used twice")
    if default is not None and default not in names:
        raise SettingsError(f"egress.default: there is no pool {default}")
    for principal, count in Counter(principal for pool in pools for principal in pool.principals).items():
        if count > 1:
            raise SettingsError(f"egress pools: the principal {principal} is in two of them")


def _check_overlaps(entries: tuple[tuple[PoolSettings, tuple[SourceEntry, ...]], ...]) -> None:
    """An address is in one pool once, or several times with slices of ports that are apart, in one place."""
    found = sorted(
        ((entry, pool) for pool, own in entries for entry in own),
        key=lambda item: (item[0].network.version, item[0].network.network_address, item[0].network.prefixlen),
    )
    open_ones: list[tuple[SourceEntry, PoolSettings]] = []
    for entry, pool in found:
        open_ones = [one for one in open_ones if one[0].network.overlaps(entry.network)]
        for other, its_pool in open_ones:
            if other.network != entry.network or not _are_apart(other.ports, entry.ports):
                raise SettingsError(f"egress pool {pool.name}: {entry.network} is in {its_pool.name} already")
            if (pool.country, pool.region, pool.city) != (its_pool.country, its_pool.region, its_pool.city):
                raise SettingsError(f"egress pool {pool.name}: {entry.network} is in {its_pool.name}, elsewhere")
        open_ones.append((entry, pool))


def _are_apart(one: PortSlice | None, other: PortSlice | None) -> bool:
    return one is not None and other is not None and not one.overlaps(other)
