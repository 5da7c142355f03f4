"""The geofeed of the egress addresses, for sites and for whoever keeps maps of addresses (RFC 8805)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from relay.egress.pools import Pool, collapse

__all__ = ["encode_geofeed"]

_HEAD = "# prefix,country,region,city,postal (RFC 8805)\n"


def encode_geofeed(pools: Iterable[Pool]) -> str:
    """Write one line for each network, in the fewest networks that a place has, IPv4 first (RFC 8805 §2.1).

    Quarantine changes nothing: whose an address is and where it is stays the same. The postal code is left empty
    (§2.1.1.5). A pool without a country is listed without a place, which asks not to guess one (§2.1.1.2).
    """
    places: dict[tuple[str, str, str], list[IPv4Network | IPv6Network]] = {}
    for pool in pools:
        place = (pool.location.country or "", pool.location.region or "", pool.city)
        networks = places.setdefault(place, [])
        networks += [source.network for sources in pool.sources.values() for source in sources]
    rows = [(network, place) for place, networks in places.items() for network in collapse(networks)]
    rows.sort(key=lambda row: (row[0].version, row[0].network_address, row[0].prefixlen))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for network, place in rows:
        writer.writerow((network, *place, ""))
    return _HEAD + text.getvalue()
