"""relay.resolver.dnssec: the verdict on every variant of a zone, what a liar can do, and what a question may cost."""

from __future__ import annotations

import anyio
import pytest

from relay.resolver.dnssec import Validator, Verdict, wall_clock
from relay.resolver.upstream import Question
from tests.relay.resolver.variants import VARIANTS, Variant, make_world
from tests.relay.resolver.world import World
from tests.relay.resolver.zones import name_of

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


async def judge(world: World, variant: Variant) -> Verdict:
    question = Question(name_of(variant.name), variant.rdtype, do=True, cd=True)
    deadline = anyio.current_time() + 5
    answer = await world.ask(question, deadline)
    return await Validator(world, world.anchors, wall_clock).validate(question, answer.message, deadline)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
async def test_each_variant_gets_its_verdict(world: World, variant: Variant) -> None:
    assert await judge(world, variant) == Verdict(variant.security, variant.info_code)
