"""Where a client says it is: geohash hints and geolocation hints, and how far two geohashes lie apart.

Three forms are read. `Sec-CH-Geohash: u4pruydqqvj-GB` is what Cloudflare's Privacy Proxy takes: a geohash, a hyphen,
an ISO 3166-1 code, no quotes. `Sec-CH-Geohash: "u4pru"` is the retired draft-pauly-httpbis-geohash-hint: a String,
without a country. `Sec-CH-IP-Geo: "US,US-AL,Alabaster"` is draft-pauly-httpbis-geoip-hint: a String that holds the
fields of RFC 8805 §2.1.1 after the prefix. A location is coarse by intent, and still a fact about a client: its
`repr` shows none of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from math import asin, cos, radians, sin, sqrt

import http_sf

from masque.errors import Malformed

__all__ = [
    "GEOHASH_HINT",
    "IP_GEO_HINT",
    "Location",
    "check_country",
    "check_geohash",
    "check_region",
    "geohash_distance",
    "geohash_overlaps",
    "parse_geohash_hint",
    "parse_ip_geo_hint",
]

GEOHASH_HINT = b"sec-ch-geohash"
"The field that carries a geohash (draft-pauly-httpbis-geohash-hint-00, and Cloudflare's unquoted form)."
IP_GEO_HINT = b"sec-ch-ip-geo"
"The field that carries a geofeed entry without its prefix (draft-pauly-httpbis-geoip-hint-02)."

_DIGITS = "0123456789bcdefghjkmnpqrstuvwxyz"
_GEOHASH = re.compile(rf"[{_DIGITS}]{{1,12}}", re.ASCII)
_COUNTRY = re.compile(r"[A-Z]{2}", re.ASCII)
_REGION = re.compile(r"[A-Z]{2}-[A-Z0-9]{1,3}", re.ASCII)
_MAX_HINT = 256
"Bytes of a hint's value. The longest city that a geofeed holds is far shorter."
_MAX_CITY = 128
_EARTH = 6371.0
"The mean radius of the Earth, in kilometres."


@dataclass(frozen=True, slots=True, repr=False)
class Location:
    """A place, as exact as somebody cared to say. All parts may be missing."""

    country: str | None = None
    "ISO 3166-1 alpha-2, in capitals."
    region: str | None = None
    "ISO 3166-2, in capitals."
    city: str | None = None
    "A city's name, case folded."
    geohash: str | None = None
    "A geohash of up to 12 digits, in lower case."

    def __repr__(self) -> str:
        """Show which parts there are: what they say is about a client."""
        parts = ("country", "region", "city", "geohash")
        return f"Location({', '.join(name for name in parts if getattr(self, name) is not None)})"

    @property
    def is_nowhere(self) -> bool:
        """True when no part is there."""
        return self.country is None and self.region is None and self.city is None and self.geohash is None


def check_geohash(text: str) -> str:
    """Return a geohash in lower case.

    Raises:
        ValueError: it has other characters, none, or more than 12.
    """
    lowered = text.lower()
    if not _GEOHASH.fullmatch(lowered):
        raise ValueError("must be a geohash of 1..12 digits, like u33d")
    return lowered


def check_country(text: str) -> str:
    """Return a country code in capitals (ISO 3166-1 alpha-2).

    Raises:
        ValueError: it is not two letters.
    """
    raised = text.upper()
    if not _COUNTRY.fullmatch(raised):
        raise ValueError("must be an ISO 3166-1 code of two letters, like DE")
    return raised


def check_region(text: str) -> str:
    """Return a region's code in capitals (ISO 3166-2).

    Raises:
        ValueError: it has another form.
    """
    raised = text.upper()
    if not _REGION.fullmatch(raised):
        raise ValueError("must be an ISO 3166-2 code, like DE-BE")
    return raised


def parse_geohash_hint(value: bytes) -> Location:
    """Read Sec-CH-Geohash: `u4pruydqqvj-GB`, `"u4pru"`, and either form with the other's quotes.

    Args:
        value: the field's value.

    Returns:
        The geohash, and the country when there is one.

    Raises:
        Malformed: neither form, or too long; nothing else.
    """
    text = _read_text(value) if value[:1] in (b'"', b"%") else _read_bare(value)
    geohash, hyphen, country = text.partition("-")
    try:
        return Location(country=check_country(country) if hyphen else None, geohash=check_geohash(geohash))
    except ValueError:
        raise Malformed("a geohash hint that is none") from None


def parse_ip_geo_hint(value: bytes) -> Location:
    """Read Sec-CH-IP-Geo: country, region and city, each of which may be empty (RFC 8805 §2.1.1).

    A postal code, which RFC 8805 §2.1.1.5 deprecates, is passed over.

    Args:
        value: the field's value.

    Returns:
        What it says; nowhere when all fields are empty.

    Raises:
        Malformed: not a String, too long, a region of another country, or a code of another form; nothing else.
    """
    fields = [field.strip() for field in _read_text(value).split(",")]
    if len(fields) > 4:
        raise Malformed("a geolocation hint with too many fields")
    country, region, city = (fields + ["", ""])[:3]
    try:
        found = Location(
            country=check_country(country) if country else None,
            region=check_region(region) if region else None,
            city=city.casefold() or None,
        )
    except ValueError:
        raise Malformed("a geolocation hint with a code that is none") from None
    if len(city) > _MAX_CITY or not city.isprintable():
        raise Malformed("a geolocation hint with a city that cannot be")
    if (region or city) and found.country is None:
        raise Malformed("a geolocation hint without a country")
    if found.region is not None and found.region[:2] != found.country:
        raise Malformed("a geolocation hint with another country's region")
    return found


def geohash_overlaps(one: str, other: str) -> bool:
    """Tell whether two cells share ground: one of them lies inside of the other."""
    return one.startswith(other) or other.startswith(one)


def geohash_distance(one: str, other: str) -> float:
    """Return the kilometres between two cells' centres, along the great circle; 0 where the cells overlap."""
    if geohash_overlaps(one, other):
        return 0.0
    (lat1, lon1), (lat2, lon2) = _centre(one), _centre(other)
    half = sin((lat2 - lat1) / 2) ** 2 + cos(lat1) * cos(lat2) * sin((lon2 - lon1) / 2) ** 2
    return 2 * _EARTH * asin(min(1.0, sqrt(half)))


@lru_cache(maxsize=1024)
def _centre(geohash: str) -> tuple[float, float]:
    """Latitude and longitude of a cell's centre, in radians. Bits alternate, longitude first."""
    spans = [[-180.0, 180.0], [-90.0, 90.0]]
    axis = 0
    for digit in geohash:
        bits = _DIGITS.index(digit)
        for shift in (4, 3, 2, 1, 0):
            low, high = spans[axis]
            spans[axis][0 if bits >> shift & 1 else 1] = (low + high) / 2
            axis ^= 1
    longitude, latitude = (radians((low + high) / 2) for low, high in spans)
    return latitude, longitude


def _read_bare(value: bytes) -> str:
    """The unquoted form is no Structured Field: a geohash may begin with a digit."""
    if len(value) > _MAX_HINT or not value.isascii():
        raise Malformed("a geohash hint that is too long, or no ASCII")
    return value.decode("ascii")


def _read_text(value: bytes) -> str:
    """A String, or a Display String, which can hold a city's own spelling (RFC 9651 §3.3.3, §3.3.8)."""
    if len(value) > _MAX_HINT:
        raise Malformed("a location hint that is too long")
    try:
        item = http_sf.parse(value, tltype="item")
    except http_sf.StructuredFieldError:
        raise Malformed("a location hint that is no Structured Field") from None
    text = item[0] if isinstance(item, tuple) else None
    if isinstance(text, http_sf.DisplayString):
        return str(text)
    if not isinstance(text, str):
        raise Malformed("a location hint that is no String")
    return text
