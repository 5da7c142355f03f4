"""relay.resolver.dnssec: what the owner of a zone can make one question cost, and where it ends."""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import replace

import anyio
import dns.dnssec
import dns.rdtypes.ANY.DNSKEY
import dns.rrset
import pytest
from dns.rdatatype import RdataType

from relay.resolver.dnssec import InfoCode, Security, Validator, Verdict, Work, wall_clock
from relay.resolver.upstream import Question
from tests.relay.resolver.judging import LIMITS, Response, asked, judge, on, verdict
from tests.relay.resolver.world import World
from tests.relay.resolver.zones import Nsec3, Signing, Zone, name_of

pytestmark = pytest.mark.anyio


async def test_many_keys_of_one_tag_and_many_signatures_cost_little(world: World) -> None:
    """CVE-2023-50387: every signature fits every key."""
    zone = world.zones[name_of("example.test")]
    question = asked("www.example.test")
    signature = zone.signatures[question.name, RdataType.A][0]

    def multiply(came: Question, response: Response) -> None:
        if (came.name, came.rdtype) == (question.name, question.rdtype):
            forged = [signature.replace(signature=secrets.token_bytes(64)) for _ in range(100)]
            response.answer[1] = dns.rrset.from_rdata_list(question.name, 300, forged)
        if came.name == zone.apex and came.rdtype == RdataType.DNSKEY:
            keys = [zone.key.replace(key=shuffled(zone.key.key)) for _ in range(25)]
            response.answer[0] = dns.rrset.from_rdata_list(zone.apex, 300, [zone.key, *keys])
            zone.sign_set(response.answer[0])
            response.answer[1] = zone.signatures[zone.apex, RdataType.DNSKEY]

    found, work = await judge(world, question, multiply)
    zone.sign_set(zone.sets[zone.apex][RdataType.DNSKEY])
    assert found == Verdict(Security.BOGUS, InfoCode.DNSSEC_BOGUS)
    assert work.failures == LIMITS.failures + 1
    assert work.verifications <= LIMITS.verifications


def shuffled(key: bytes) -> bytes:
    """Order a key's 16-bit words anew: its tag, a sum of them, stays the same."""
    words = [key[index : index + 2] for index in range(0, len(key), 2)]
    secrets.SystemRandom().shuffle(words)
    return b"".join(words)


async def test_the_tag_of_a_key_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a sum over the key, and the loop stands still meanwhile; a zone may have 32 keys and 8 DS records."""
    zone = Zone("example.test", ("www A 192.0.2.1",), Signing())
    for _ in range(LIMITS.keys - 1):
        zone.put(dns.rrset.from_rdata(zone.apex, 300, zone.key.replace(key=secrets.token_bytes(64))))
    tags = {dns.dnssec.key_id(key) for key in zone.sets[zone.apex][RdataType.DNSKEY]}
    others = [tag for tag in range(100) if tag not in tags][:7]
    digests = [f"example.test DS {tag} 13 2 {'ab' * 32}" for tag in others]
    root = Zone(".", ("example.test NS ns.example.test.", f"example.test DS {zone.ds()}", *digests), Signing())
    world = World([root.sign(), zone.sign()])
    computed: Counter[bytes] = Counter()
    key_id = dns.dnssec.key_id

    def count(key: dns.rdtypes.ANY.DNSKEY.DNSKEY) -> int:
        computed[key.key] += 1
        return key_id(key)

    monkeypatch.setattr(dns.dnssec, "key_id", count)
    found, _ = await judge(world, asked("www.example.test"))
    assert found.security is Security.SECURE
    assert len(computed) == LIMITS.keys + 1
    assert list(computed.values()).count(1) == LIMITS.keys - 1  # the library computes it again of keys that it uses


async def test_too_many_keys_are_refused_unread(world: World) -> None:
    zone = world.zones[name_of("example.test")]

    def multiply(came: Question, response: Response) -> None:
        if came.name == zone.apex and came.rdtype == RdataType.DNSKEY:
            keys = [zone.key.replace(key=secrets.token_bytes(64)) for _ in range(LIMITS.keys)]
            response.answer[0] = dns.rrset.from_rdata_list(zone.apex, 300, [zone.key, *keys])

    found, work = await judge(world, asked("www.example.test"), multiply)
    assert found == Verdict(Security.BOGUS, InfoCode.DNSKEY_MISSING)
    assert work.failures == 0


async def test_a_long_name_cannot_make_us_hash_without_end() -> None:
    """CVE-2023-50868: each label of the name is a candidate for the closest encloser."""
    top = Zone("test", ("@ NS ns",), Signing(nsec3=Nsec3(LIMITS.iterations, b"x" * 255)))
    root = Zone(".", ("@ NS ns", "test NS ns.test."), Signing())
    root.add(f"test DS {top.ds()}")
    world = World([root.sign(), top.sign()])
    question = asked(".".join("x" * 120) + ".test")
    deadline = anyio.current_time() + 5
    response = (await world.ask(question, deadline)).message
    validator = Validator(world, world.anchors, wall_clock)
    honest, poor = Work(LIMITS), Work(replace(LIMITS, hashes=50))
    assert (await validator.validate(question, response, deadline, honest)).security is Security.SECURE
    assert 120 < honest.hashes <= LIMITS.hashes
    assert (await validator.validate(question, response, deadline, poor)).security is Security.BOGUS
    assert poor.hashes == 51


async def test_a_deep_name_cannot_make_us_ask_without_end() -> None:
    name = ".".join("x" * 120) + ".test"
    top = Zone("test", ("@ NS ns", f"{name}. A 192.0.2.1"), Signing())
    root = Zone(".", ("@ NS ns", "test NS ns.test."), Signing())
    root.add(f"test DS {top.ds()}")
    world = World([root.sign(), top.sign()])
    assert (await verdict(world, asked(name))).security is Security.SECURE

    def strip(response: Response) -> None:
        response.answer = [rrset for rrset in response.answer if rrset.rdtype == RdataType.A]

    found, work = await judge(world, asked(name), on(asked(name), strip))
    assert found.security is Security.BOGUS
    assert work.fetches == LIMITS.fetches + 1


async def test_what_one_question_could_not_afford_is_not_held_against_others(world: World) -> None:
    world.tamper = None
    validator = Validator(world, world.anchors, wall_clock)
    question, deadline = asked("www.example.test"), anyio.current_time() + 5
    response = (await world.ask(question, deadline)).message
    poor = Work(replace(LIMITS, fetches=2))
    assert (await validator.validate(question, response, deadline, poor)).security is Security.BOGUS
    assert (await validator.validate(question, response, deadline)).security is Security.SECURE
