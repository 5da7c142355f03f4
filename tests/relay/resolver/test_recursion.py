"""relay.resolver.recursion: a hierarchy of servers asked from the root down; what goes wrong, and what it costs."""

from __future__ import annotations

import anyio
import pytest

from relay.errors import RelayError
from relay.resolver.dnssec import Security, ValidatingAsker
from relay.resolver.recursion import BoundedAsker, RecursionLimits, Recursor
from relay.resolver.upstream import Question
from tests.relay.resolver.authority import running_hierarchy
from tests.relay.resolver.variants import VARIANTS, make_world
from tests.relay.resolver.zones import name_of

pytestmark = pytest.mark.anyio


async def test_every_variant_is_judged_the_same_from_the_root_down() -> None:
    world = make_world()
    served = {address: [world.zones[apex]] for apex, address in world.addresses.items()}
    async with running_hierarchy(served) as hierarchy:
        recursor = Recursor(hierarchy.hints, port=hierarchy.port)
        asker = BoundedAsker(ValidatingAsker(recursor, world.anchors), RecursionLimits())
        for variant in VARIANTS:
            found: tuple[bool, int | None]
            try:
                answer = await asker.ask(Question(name_of(variant.name), variant.rdtype), anyio.current_time() + 5)
                assert variant.security in {Security.SECURE, Security.INSECURE}, variant
                assert answer.is_authenticated == (variant.security is Security.SECURE), variant
            except RelayError as error:
                assert variant.security is Security.BOGUS, (variant, error.failure, error.failure.info_code)
                assert error.failure.info_code == variant.info_code, variant
        print(hierarchy.queries, len(VARIANTS))
