"""masque.geo: hints are read or refused, and distances are those of the globe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import Malformed, Reach
from masque.geo import (
    Location,
    geohash_distance,
    geohash_overlaps,
    parse_geohash_hint,
    parse_ip_geo_hint,
)

GEOHASHES = st.text("0123456789bcdefghjkmnpqrstuvwxyz", min_size=1, max_size=12)
COUNTRIES = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=2, max_size=2)


@pytest.mark.parametrize(
    ("value", "location"),
    [
        (b"u4pruydqqvj-GB", Location(country="GB", geohash="u4pruydqqvj")),
        (b"xn76c-jp", Location(country="JP", geohash="xn76c")),
        (b"9Q8Y-US", Location(country="US", geohash="9q8y")),
        (b"u4pru", Location(geohash="u4pru")),
        (b'"u4pru"', Location(geohash="u4pru")),
        (b'"u4pru-GB";q=1', Location(country="GB", geohash="u4pru")),
    ],
)
def test_geohash_hints(value: bytes, location: Location) -> None:
    assert parse_geohash_hint(value) == location


@pytest.mark.parametrize(
    ("value", "location"),
    [
        (b'"US,US-AL,Alabaster"', Location("US", "US-AL", "alabaster")),
        (b'"US,US-AL,Alabaster,35007"', Location("US", "US-AL", "alabaster")),
        (b'"DE,,Bonn"', Location("DE", None, "bonn")),
        (b'"DE"', Location("DE")),
        (b'""', Location()),
        (b'%"DE,DE-BY,M%c3%bcnchen"', Location("DE", "DE-BY", "münchen")),
    ],
)
def test_geolocation_hints(value: bytes, location: Location) -> None:
    assert parse_ip_geo_hint(value) == location


@pytest.mark.parametrize(
    "value",
    [
        b"", b"-GB", b"a", b"u33d-", b"u33d-DEU", b"u33d-D1", b"u33d-DE-BE", b"u33d DE", b"u33d,u33e", b'"u33d',
        b'""', b"0123456789bcd", b"u33\xc3\xa9", b'"' + b"u" * 300 + b'"', b'%"%ff"', b"\x00",
    ],
)  # fmt: skip
def test_no_geohash_hints(value: bytes) -> None:
    with pytest.raises(Malformed):
        parse_geohash_hint(value)


@pytest.mark.parametrize(
    "value",
    [
        b"", b"DE", b"1", b"?1", b'"DEU"', b'"DE,FR-75"', b'"DE,BE"', b'",,Bonn"', b'"DE,,a,b,c"', b'("DE")',
        b'"DE,,' + b"x" * 129 + b'"', b'%"DE,,a%0ab"',
    ],
)  # fmt: skip
def test_no_geolocation_hints(value: bytes) -> None:
    with pytest.raises(Malformed):
        parse_ip_geo_hint(value)


@given(st.binary(max_size=400) | st.text(max_size=60).map(lambda text: b'"' + text.encode() + b'"'))
def test_any_value_is_read_or_malformed(value: bytes) -> None:
    for parse in (parse_geohash_hint, parse_ip_geo_hint):
        reach = Reach.STREAM
        try:
            assert isinstance(parse(value), Location)
        except Malformed as error:
            reach = error.reach
        assert reach is Reach.STREAM


@given(GEOHASHES, COUNTRIES)
def test_both_forms_say_the_same(geohash: str, country: str) -> None:
    bare = f"{geohash}-{country}".encode()
    assert parse_geohash_hint(bare) == parse_geohash_hint(b'"' + bare + b'"') == Location(country, geohash=geohash)


@pytest.mark.parametrize(
    ("one", "other", "kilometres"),
    [("u33db2", "u281z7", 504), ("dr5reg", "9q8yyk", 4130), ("gcpvj0", "u09tvw", 344), ("xbp", "800", 156)],
)
def test_distances_between_cities(one: str, other: str, kilometres: float) -> None:
    """Berlin and Munich, New York and San Francisco, London and Paris, and across the date line."""
    assert geohash_distance(one, other) == pytest.approx(kilometres, rel=0.03)


@given(GEOHASHES, GEOHASHES)
def test_distance_is_symmetrical_bounded_and_zero_where_cells_overlap(one: str, other: str) -> None:
    distance = geohash_distance(one, other)
    assert distance == geohash_distance(other, one)
    assert 0 <= distance <= 20_038
    assert geohash_overlaps(one, one + other[: 12 - len(one)])
    if geohash_overlaps(one, other):
        assert distance == 0


def test_a_location_shows_nothing_of_itself() -> None:
    shown = repr(Location("US", "US-AL", "alabaster", "djfq"))
    assert shown == "Location(country, region, city, geohash)"
    assert Location().is_nowhere
    assert not Location(geohash="u").is_nowhere
