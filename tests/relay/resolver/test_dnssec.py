"""relay.resolver.dnssec: the verdict on every variant of a zone, its anchors, and what an asker lets through."""

from __future__ import annotations

from dataclasses import replace

import anyio
import dns.flags
import dns.message
import dns.rcode
import pytest
from dns.rdatatype import RdataType

from relay.errors import Failure, FailureKind, RelayError, Side
from relay.resolver.dnssec import (
    InfoCode,
    Security,
    TrustAnchors,
    ValidatingAsker,
    Validator,
    Verdict,
    parse_trust_anchors,
    read_trust_anchors,
    wall_clock,
)
from relay.resolver.upstream import Answer, Question
from tests.relay.resolver.authority import running_hierarchy
from tests.relay.resolver.variants import VARIANTS, Variant, make_world
from tests.relay.resolver.world import World
from tests.relay.resolver.zones import DAY, name_of

pytestmark = pytest.mark.anyio

WWW = Question(name_of("www.example.test"), RdataType.A)


async def judge(world: World, question: Question, anchors: TrustAnchors | None = None) -> Verdict:
    """Validate an answer with nothing remembered."""
    deadline = anyio.current_time() + 5
    response = (await world.ask(replace(question, do=True, cd=True), deadline)).message
    return await Validator(world, anchors or world.anchors, wall_clock).validate(question, response, deadline)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
async def test_each_variant_gets_its_verdict(world: World, variant: Variant) -> None:
    found = await judge(world, Question(name_of(variant.name), variant.rdtype))
    assert found == Verdict(variant.security, variant.info_code)


async def test_from_the_root_down_over_sockets_the_verdicts_are_the_same() -> None:
    world = make_world()
    served = {address: [world.zones[apex]] for apex, address in world.addresses.items()}
    async with running_hierarchy(served) as hierarchy:
        asker = ValidatingAsker(hierarchy.recursor(), world.anchors)
        found = {str(variant): await outcome(asker, variant) for variant in VARIANTS}
        assert found == {str(variant): (variant.security, None) for variant in VARIANTS if not variant.is_bogus} | {
            str(variant): (variant.security, variant.info_code) for variant in VARIANTS if variant.is_bogus
        }
        assert hierarchy.queries < 3 * len(VARIANTS)


async def outcome(asker: ValidatingAsker, variant: Variant) -> tuple[Security, int | None]:
    """Ask, and name what came of it."""
    try:
        answer = await asker.ask(Question(name_of(variant.name), variant.rdtype), anyio.current_time() + 5)
    except RelayError as error:
        return Security.BOGUS, error.failure.info_code
    return (Security.SECURE if answer.is_authenticated else Security.INSECURE), None


async def test_an_asker_hands_on_what_was_validated_and_nothing_else(world: World) -> None:
    asker = ValidatingAsker(world, world.anchors)
    answer = await asker.ask(WWW, anyio.current_time() + 5)
    assert answer.is_authenticated
    assert [rrset.rdtype for rrset in answer.message.answer] == [RdataType.A]
    absent = await asker.ask(replace(WWW, rdtype=RdataType.AAAA), anyio.current_time() + 5)
    assert [rrset.rdtype for rrset in absent.message.authority] == [RdataType.SOA]
    signed = await asker.ask(replace(WWW, do=True), anyio.current_time() + 5)
    assert [rrset.rdtype for rrset in signed.message.answer] == [RdataType.A, RdataType.RRSIG]


async def test_an_asker_refuses_bogus_answers_unless_it_is_told_to_leave_that(world: World) -> None:
    asker = ValidatingAsker(world, world.anchors)
    question = Question(name_of("www.forged.test"), RdataType.A)
    with pytest.raises(RelayError) as caught:
        await asker.ask(question, anyio.current_time() + 5)
    assert caught.value.failure == Failure(FailureKind.DNS_ERROR, Side.TARGET, rcode="SERVFAIL", info_code=6)
    assert "forged" not in repr(caught.value) + repr(caught.value.failure)
    left = await asker.ask(replace(question, cd=True), anyio.current_time() + 5)
    assert not left.is_authenticated


async def test_errors_of_the_asker_below_pass() -> None:
    world = make_world()

    def fail(_question: Question, response: dns.message.Message) -> None:
        response.set_rcode(dns.rcode.SERVFAIL)
        response.flags |= dns.flags.AD

    world.tamper = fail
    answer = await ValidatingAsker(world, world.anchors).ask(WWW, anyio.current_time() + 5)
    assert (answer.message.rcode(), answer.is_authenticated) == (dns.rcode.SERVFAIL, False)


async def test_a_chain_that_somebody_else_waits_for_is_not_waited_for_beyond_the_deadline() -> None:
    """The first question waits for keys; the second one would wait for the first."""
    world = make_world()

    class Slow(World):
        async def ask(self, question: Question, deadline: float) -> Answer:
            if question.rdtype == RdataType.DNSKEY:
                await anyio.sleep_forever()
            return await world.ask(question, deadline)

    asker = ValidatingAsker(Slow(()), world.anchors)
    async with anyio.create_task_group() as group:
        group.start_soon(asker.ask, WWW, anyio.current_time() + 60)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RelayError) as caught:
            await asker.ask(WWW, anyio.current_time() + 0.01)
        assert caught.value.failure.kind is FailureKind.DNS_TIMEOUT
        group.cancel_scope.cancel()


async def test_keys_that_cannot_be_had_leave_it_open() -> None:
    world = make_world()

    def fail(question: Question, response: dns.message.Message) -> None:
        if question.rdtype == RdataType.DNSKEY:
            response.set_rcode(dns.rcode.SERVFAIL)

    world.tamper = fail
    assert await judge(world, WWW) == Verdict(Security.INDETERMINATE, InfoCode.NETWORK_ERROR)


async def test_records_hold_no_longer_than_their_signatures() -> None:
    world, name = make_world(), "zzz.example.test"
    world.zones[name_of("example.test")].expire(name, RdataType.A, since=DAY, until=30)
    asker = ValidatingAsker(world, world.anchors)
    answer = await asker.ask(Question(name_of(name), RdataType.A), anyio.current_time() + 5)
    assert 25 <= answer.message.answer[0].ttl <= 30


async def test_the_chain_is_remembered_and_made_once() -> None:
    world = make_world()
    asker = ValidatingAsker(world, world.anchors)
    async with anyio.create_task_group() as group:
        for name in ("www", "alias", "none", "x.wild"):
            question = Question(name_of(f"{name}.example.test"), RdataType.A)
            group.start_soon(asker.ask, question, anyio.current_time() + 5)
    fetched = {key: count for key, count in world.asked.items() if key[1] in {"DS", "DNSKEY"}}
    assert fetched == {
        (".", "DNSKEY"): 1,
        ("test.", "DS"): 1,
        ("test.", "DNSKEY"): 1,
        ("example.test.", "DS"): 1,
        ("example.test.", "DNSKEY"): 1,
    }


async def test_an_anchor_of_its_own_makes_an_island_secure(world: World) -> None:
    question = Question(name_of("www.island.test"), RdataType.A)
    island = parse_trust_anchors(f"island.test. IN DS {world.zones[name_of('island.test')].ds()}")
    assert await judge(world, question, island) == Verdict(Security.SECURE)
    assert await judge(world, WWW, island) == Verdict(Security.INSECURE, InfoCode.DNSSEC_INDETERMINATE)


async def test_domains_may_be_left_unvalidated(world: World) -> None:
    anchors = replace(world.anchors, unsigned=frozenset({name_of("forged.test")}))
    assert await judge(world, Question(name_of("www.forged.test"), RdataType.A), anchors) == Verdict(
        Security.INSECURE
    )
    assert await judge(world, WWW, anchors) == Verdict(Security.SECURE)


async def test_a_dnskey_does_as_an_anchor(world: World) -> None:
    key = world.zones[name_of(".")].key.to_text()
    assert await judge(world, WWW, parse_trust_anchors(f". IN DNSKEY {key}")) == Verdict(Security.SECURE)


def test_the_shipped_anchors_are_the_roots() -> None:
    anchors = read_trust_anchors(None, ["corp.example"])
    assert {zone: [ds.key_tag for ds in keys] for zone, keys in anchors.keys.items()} == {
        name_of("."): [20326, 38696]
    }
    assert anchors.unsigned == {name_of("corp.example")}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        ". IN A 192.0.2.1",
        ". CH DS 1 8 2 " + "00" * 32,
        ". IN DS 1 1 1 " + "00" * 20,
        "\0",
        "$INCLUDE x",
    ],
)
def test_anchors_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must hold"):
        parse_trust_anchors(text)
