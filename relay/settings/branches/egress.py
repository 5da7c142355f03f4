"""From which addresses targets are reached."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, model_validator

from masque.geo import check_country, check_geohash, check_region
from relay.settings.branches.bounds import Branch, Duration, Network, SfToken, lasting, readable_by, within
from relay.settings.sources import parse_port_slice, parse_source

__all__ = ["EgressFile", "EgressSettings", "PoolSettings"]


def _name(value: str) -> str:
    if not value.isprintable() or not 1 <= len(value) <= 128 or value != value.strip():
        raise ValueError("must be 1..128 printable characters")
    return value


class PoolSettings(Branch):
    """Egress addresses of one place."""

    name: SfToken
    """What operators call it."""
    addresses: tuple[Annotated[str, readable_by(parse_source)], ...]
    """Addresses and networks, of either family."""
    ports: Annotated[str, readable_by(parse_port_slice)] | None = None
    """The ports of all its addresses that are this relay's; an entry of `addresses` may have its own."""
    country: Annotated[str, AfterValidator(check_country)] | None = None
    """ISO 3166-1."""
    region: Annotated[str, AfterValidator(check_region)] | None = None
    """ISO 3166-2."""
    city: Annotated[str, AfterValidator(_name)] | None = None
    """As a geofeed shall have it."""
    geohash: Annotated[str, AfterValidator(check_geohash)] | None = None
    """Where it is, as exact as is said aloud."""
    principals: tuple[str, ...] = ()
    """Principals that leave from here when no location is asked for."""

    @model_validator(mode="after")
    def _makes_sense(self) -> PoolSettings:
        if not self.addresses:
            raise ValueError("must have addresses")
        if self.country is None and (self.region, self.city, self.geohash) != (None, None, None):
            raise ValueError("must have a country when it has a region, a city or a geohash")
        if self.region is not None and self.region[:2] != self.country:
            raise ValueError("must have a region of its country")
        return self


class EgressFile(Branch):
    """What the file of `egress.file` holds."""

    pools: tuple[PoolSettings, ...] = ()
    """Pools, besides those of the settings."""
    quarantine: tuple[Network, ...] = ()
    """Addresses that are not used for now, whichever pools have them."""


class EgressSettings(Branch):
    """The addresses that targets see."""

    ipv4: IPv4Address | None = None
    """The source address towards IPv4 targets, when there are no pools; without it the system chooses."""
    ipv6: IPv6Address | None = None
    """The source address towards IPv6 targets, when there are no pools; without it the system chooses."""
    pools: tuple[PoolSettings, ...] = ()
    """Pools of addresses, one table for each place: `name`, `addresses`, and any of `ports`, `country`, `region`,
    `city`, `geohash`, `principals`. With pools, no tunnel leaves from an address that is in none."""
    file: Path | None = None
    """A TOML or JSON file with more `pools` and with `quarantine`, a list of networks not to use. SIGHUP reads it
    again."""
    default: SfToken | None = None
    """The pool of tunnels for which no location is known. Not set: the first without a country, else the first."""
    other_countries: bool = False
    """Serve who asks for a country that no pool is in from the nearest pool elsewhere. Otherwise that is refused."""
    reach: Annotated[int, within(1, 20_000)] = 250
    """Kilometres from the place asked for within which a pool still counts as being there."""
    rotation: Annotated[Duration, lasting(0, 604_800)] = timedelta(hours=1)
    """How long a client's connection keeps its addresses for new tunnels; 0 is as long as it lasts."""
    retry: Annotated[Duration, lasting(0.1, 3600)] = timedelta(seconds=10)
    """How long an address that could not be bound is left alone before it is tried again."""
    status: Path | None = None
    """A Unix socket at which `relay egress list` finds out about load. Only the relay's user may use it."""

    @model_validator(mode="after")
    def _one_way(self) -> EgressSettings:
        if self.pools and (self.ipv4 is not None or self.ipv6 is not None):
            raise ValueError("ipv4, ipv6, pools: set the first two or pools, not both")
        return self
