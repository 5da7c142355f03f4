"""Where an exchange asks to leave from: its hints, what its credentials say, and then what its principal has.

A hint makes the credentials' location finer, and never says another country than they do: a client may be vague about
where it is, and not choose where it appears.

Geohashes are cut to cells of five kilometres: pools are cities, and the relay need not know more.
"""

from __future__ import annotations

from dataclasses import replace

from masque.errors import Malformed
from masque.fields import get_fields
from masque.geo import GEOHASH_HINT, IP_GEO_HINT, Location, parse_geohash_hint, parse_ip_geo_hint
from masque.head import Fields
from relay.hooks import ExchangeContext

__all__ = ["read_hints", "wanted_location"]

_DIGITS = 5
"Of a geohash that are looked at: cells of about 5 by 5 kilometres."


def wanted_location(ctx: ExchangeContext) -> Location | None:
    """Return the location that an exchange asks for, or None when it asks for none.

    Raises:
        Malformed: a hint cannot be read, or is sent twice; nothing else.
    """
    hint = read_hints(ctx.head.fields)
    told = ctx.location
    if told is None or told.is_nowhere:
        return hint
    if hint is None or (hint.country is not None and hint.country != told.country):
        return told
    return Location(
        told.country,
        hint.region if told.region is None else told.region,
        hint.city if told.city is None else told.city,
        hint.geohash if told.geohash is None else told.geohash,
    )


def read_hints(fields: Fields) -> Location | None:
    """Read both location hints. The geohash says where; a geofeed's entry of the same country adds the names.

    Raises:
        Malformed: a hint cannot be read, or is sent twice; nothing else.
    """
    cell = _only(fields, GEOHASH_HINT)
    entry = _only(fields, IP_GEO_HINT)
    location = None if cell is None else _coarse(parse_geohash_hint(cell))
    named = None if entry is None else parse_ip_geo_hint(entry)
    if named is None or named.is_nowhere:
        return location
    if location is None:
        return named
    if location.country not in (None, named.country):
        return location
    return replace(named, geohash=location.geohash)


def _coarse(location: Location) -> Location:
    return location if location.geohash is None else replace(location, geohash=location.geohash[:_DIGITS])


def _only(fields: Fields, name: bytes) -> bytes | None:
    values = get_fields(fields, name)
    if len(values) > 1:
        raise Malformed("a location hint that is sent twice")
    return values[0] if values else None
