"""Which pool serves a place: the nearest there is, then the region's, then the country's, and then no other.

Cities have pools of their own, countries have one for the rest, so a country's own pool goes before a city far away:
better from somewhere in the country than plainly from the wrong city. Another country comes last, and only where the
settings allow it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from enum import IntEnum
from math import inf

from masque.geo import Location, geohash_distance
from relay.egress.pools import Pool
from relay.errors import Remark

__all__ = ["Grade", "Nearest", "grade_pool", "remark_on"]

_REMEMBERED = 128
"""Locations whose order of pools is kept: a client can ask for any, so this is a bound. They are as coarse as
`relay.egress.wish` makes them, and nothing says whose they were."""


class Grade(IntEnum):
    """How well a pool serves a location; the smaller the better."""

    PLACE = 0
    "It is there: the city, or within reach."
    REGION = 1
    "It is in the region."
    COUNTRY = 2
    "It is the country's own, of no city."
    FAR = 3
    "It is elsewhere in the country."
    ELSEWHERE = 4
    "It is in another country, or nobody knows."


def grade_pool(pool: Location, wanted: Location, reach: float) -> tuple[Grade, float]:
    """Grade a pool's place for a location.

    Args:
        pool: where the pool is.
        wanted: where the client asks to be.
        reach: kilometres within which places count as the same.

    Returns:
        The grade, and the kilometres between the two, infinite where nobody knows; to be compared in this order.
    """
    distance = geohash_distance(pool.geohash, wanted.geohash) if pool.geohash and wanted.geohash else None
    far = inf if distance is None else distance
    is_near = distance is not None and distance <= reach
    if wanted.country is None:
        return (Grade.PLACE if is_near else Grade.ELSEWHERE), far
    if pool.country != wanted.country:
        return Grade.ELSEWHERE, far
    same_region = pool.region is not None and pool.region == wanted.region
    regions_differ = pool.region is not None and wanted.region is not None and not same_region
    if is_near or (pool.city is not None and pool.city == wanted.city and not regions_differ):
        return Grade.PLACE, distance or 0.0
    if same_region:
        return Grade.REGION, (distance or 0.0) + (pool.city is not None)  # the region's own before its cities'
    if (pool.region, pool.city, pool.geohash) == (None, None, None):
        return Grade.COUNTRY, far
    return Grade.FAR, far


def remark_on(grade: Grade, wanted: Location) -> Remark | None:
    """Return what a client is told who asked for a location and got a pool of this grade, or None."""
    if grade is Grade.ELSEWHERE:
        return Remark.LOCATION_ELSEWHERE
    if grade is not Grade.PLACE and (wanted.city is not None or wanted.geohash is not None):
        return Remark.LOCATION_COARSER
    if grade > Grade.REGION and wanted.region is not None:
        return Remark.LOCATION_COARSER
    return None


class Nearest:
    """Finds pools for locations; remembers the last ones."""

    def __init__(self, pools: Sequence[Pool], reach: float, *, other_countries: bool) -> None:
        """Search these pools.

        Args:
            pools: in the operator's order, which decides between equals.
            reach: kilometres within which places count as the same.
            other_countries: whether a pool in another country will do.
        """
        self._pools = pools
        self._reach = reach
        self._worst = Grade.ELSEWHERE if other_countries else Grade.FAR
        self._known: OrderedDict[Location, tuple[tuple[Grade, Pool], ...]] = OrderedDict()

    def find(self, wanted: Location, version: int) -> tuple[Grade, Pool] | None:
        """Return the best pool that a tunnel of this IP version can leave from now, with its grade, or None."""
        for grade, pool in self._ranked(wanted):
            if pool.has_up(version):
                return grade, pool
        return None

    def is_served(self, wanted: Location) -> bool:
        """Tell whether any pool may serve a location, be it in service now or not."""
        return bool(self._ranked(wanted))

    def has_family(self, wanted: Location, version: int) -> bool:
        """Tell whether any pool that may serve a location has addresses of an IP version."""
        return any(pool.sources[version] for _, pool in self._ranked(wanted))

    def _ranked(self, wanted: Location) -> tuple[tuple[Grade, Pool], ...]:
        known = self._known.get(wanted)
        if known is not None:
            self._known.move_to_end(wanted)
            return known
        graded = [(*grade_pool(pool.location, wanted, self._reach), pool) for pool in self._pools]
        graded.sort(key=lambda item: item[:2])
        ranked = tuple((grade, pool) for grade, _, pool in graded if grade <= self._worst)
        self._known[wanted] = ranked
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return ranked
