"""relay.resolver.dnssec: what somebody on the way can try. None of it may make a false answer believed."""

from __future__ import annotations

import anyio
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rrset
import pytest
from dns.rdatatype import RdataType
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.resolver.dnssec import InfoCode, Security, Verdict
from relay.resolver.upstream import Question
from tests.relay.resolver.judging import Response, asked, on, real, told, verdict
from tests.relay.resolver.world import World
from tests.relay.resolver.zones import Signing, Zone, name_of

pytestmark = pytest.mark.anyio


ABSENCES = [
    # question, type, whose answer is shown instead, type
    ("www.example.test", "A", "none.example.test", "A"),
    ("www.example.test", "A", "www.example.test", "AAAA"),
    ("www.example.test", "A", "zzz.example.test", "AAAA"),
    ("www.example.test", "A", "none.test", "A"),
    ("www.example.test", "A", "ent.example.test", "A"),
    ("www.example.test", "A", "none.hashed.test", "A"),
    ("www.hashed.test", "A", "none.hashed.test", "A"),
    ("www.hashed.test", "A", "www.hashed.test", "AAAA"),
    ("www.hashed.test", "A", "ent.hashed.test", "A"),
    ("www.hashed.test", "A", "x.wild.hashed.test", "AAAA"),
    ("alias.example.test", "A", "alias.example.test", "DS"),
    ("x.wild.example.test", "A", "none.example.test", "A"),
    ("x.wild.hashed.test", "A", "none.hashed.test", "A"),
    # what the parent says at a zone cut is not for the child's names (RFC 6840 §4.1)
    ("www.under.example.test", "A", "under.example.test", "DS"),
    ("under.example.test", "A", "plain.test", "DS"),
    ("www.example.test", "A", "plain.test", "DS"),
    ("example.test", "SOA", "plain.test", "DS"),
    # a secure delegation cannot be made an insecure one
    ("example.test", "DS", "plain.test", "DS"),
    ("example.test", "DS", "none.test", "DS"),
    ("example.test", "DS", "www.example.test", "DS"),
    ("hashed.test", "DS", "none.hashed.test", "A"),
    ("hashed.test", "DS", "plain.optout.test", "DS"),
]


@pytest.mark.parametrize(("name", "rdtype", "other", "other_type"), ABSENCES)
async def test_an_absence_that_is_shown_elsewhere_is_bogus(
    world: World, name: str, rdtype: str, other: str, other_type: str
) -> None:
    question = asked(name, RdataType[rdtype])
    found = await verdict(world, question, told(world, question, other, RdataType[other_type]))
    assert found.security is Security.BOGUS


@pytest.mark.parametrize("name", ["www.example.test", "www.hashed.test"])
@pytest.mark.parametrize(
    "shown", ["plain.test", "none.test", "example.test", "plain.optout.test", "www.example.test"]
)
async def test_forged_records_stay_bogus_whatever_is_said_of_the_delegation(
    world: World, name: str, shown: str
) -> None:
    """The address is forged and unsigned, and so is the answer for DS at the zone cut."""
    zone = name_of(name).parent()
    other = real(world, shown, RdataType.DS)

    def tamper(came: Question, response: Response) -> None:
        if came.rdtype == RdataType.A:
            response.answer = [dns.rrset.from_text(name, 300, "IN", "A", "192.0.2.66")]
        elif came.rdtype == RdataType.DS and came.name == zone:
            response.answer, response.authority = [], list(other.authority)

    assert (await verdict(world, asked(name), tamper)).security is Security.BOGUS


async def test_without_any_proof_a_delegation_is_not_insecure(world: World) -> None:
    def strip(_question: Question, response: Response) -> None:
        for section in (response.answer, response.authority):
            section[:] = [rrset for rrset in section if rrset.rdtype not in {RdataType.RRSIG, RdataType.DS}]

    for name in ("www.example.test", "www.plain.test", "none.hashed.test"):
        assert (await verdict(world, asked(name), strip)).security is Security.BOGUS


@pytest.mark.parametrize("zone", ["example.test", "hashed.test"])
async def test_a_wildcard_does_not_stand_for_a_name_that_exists(world: World, zone: str) -> None:
    """What is true of `x.wild`, proof and all, is shown for `here.wild`."""
    shown, question = real(world, f"x.wild.{zone}"), asked(f"here.wild.{zone}")

    def rename(response: Response) -> None:
        response.answer = [dns.rrset.from_rdata_list(question.name, 300, list(rrset)) for rrset in shown.answer]
        response.authority = list(shown.authority)

    found = await verdict(world, question, on(question, rename))
    assert found == Verdict(Security.BOGUS, InfoCode.NSEC_MISSING)
    assert (await verdict(world, question)).security is Security.SECURE


async def test_a_wildcards_own_record_of_absence_speaks_of_no_other_name(world: World) -> None:
    """The NSEC record of `*.wild`, which has no TXT record, is shown as that of `here.wild`."""
    question = asked("here.wild.example.test", RdataType.TXT)
    zone = world.zones[name_of("example.test")]
    wildcard = name_of("*.wild.example.test")
    shown = [zone.sets[wildcard][RdataType.NSEC], zone.signatures[wildcard, RdataType.NSEC]]

    def deny(response: Response) -> None:
        absent = real(world, "www.example.test", RdataType.TXT)
        response.answer = []
        response.authority = [rrset for rrset in absent.authority if rrset.name == zone.apex]
        response.authority += [dns.rrset.from_rdata_list(question.name, 60, list(rrset)) for rrset in shown]

    assert await verdict(world, question, on(question, deny)) == Verdict(Security.BOGUS, InfoCode.NSEC_MISSING)
    assert (await verdict(world, question)).security is Security.SECURE


async def test_a_key_that_no_ds_record_names_does_not_vouch_for_keys(world: World) -> None:
    """The zone's keys are shown with one more, which has signed them, and the forged address."""
    zone, attacker = world.zones[name_of("example.test")], Zone("example.test", (), Signing())
    forged = dns.rrset.from_text("www.example.test.", 300, "IN", "A", "192.0.2.66")
    keys = dns.rrset.from_rdata(zone.apex, 300, zone.key, attacker.key)
    for rrset in (forged, keys):
        attacker.sign_set(rrset)

    def tamper(came: Question, response: Response) -> None:
        if came.name == zone.apex and came.rdtype == RdataType.DNSKEY:
            response.answer = [keys, attacker.signatures[keys.name, keys.rdtype]]
        elif came.rdtype == RdataType.A:
            response.answer = [forged, attacker.signatures[forged.name, forged.rdtype]]

    found = await verdict(world, asked("www.example.test"), tamper)
    assert found == Verdict(Security.BOGUS, InfoCode.DNSKEY_MISSING)


async def test_an_expanded_wildcard_needs_its_proof(world: World) -> None:
    for zone in ("example.test", "hashed.test"):
        question = asked(f"x.wild.{zone}")

        def strip(response: Response) -> None:
            response.authority = []

        assert await verdict(world, question, on(question, strip)) == Verdict(Security.BOGUS, InfoCode.NSEC_MISSING)


async def test_a_response_code_cannot_be_changed(world: World) -> None:
    def deny(response: Response) -> None:
        response.set_rcode(dns.rcode.NXDOMAIN)

    def allow(response: Response) -> None:
        response.set_rcode(dns.rcode.NOERROR)

    for name in ("www.example.test", "ent.example.test", "x.wild.hashed.test"):
        assert (await verdict(world, asked(name), on(asked(name), deny))).security is Security.BOGUS
    for name in ("none.example.test", "none.hashed.test"):
        assert (await verdict(world, asked(name), on(asked(name), allow))).security is Security.BOGUS


async def test_another_zones_signature_does_not_count(world: World) -> None:
    victim, attacker = world.zones[name_of("example.test")], world.zones[name_of("rsa.test")]
    forged = dns.rrset.from_text("www.example.test.", 300, "IN", "A", "192.0.2.66")

    def tamper(response: Response) -> None:
        attacker.sign_set(forged)
        response.answer = [forged, attacker.signatures.pop((forged.name, forged.rdtype))]

    question = asked("www.example.test")
    assert (await verdict(world, question, on(question, tamper))).security is Security.BOGUS
    assert (await verdict(world, question)).security is Security.SECURE
    assert victim.key != attacker.key


async def test_the_target_of_an_alias_is_judged_too(world: World) -> None:
    question = asked("away.example.test")

    def forge(response: Response) -> None:
        response.answer = [rrset for rrset in response.answer if rrset.name == question.name]
        response.answer.append(dns.rrset.from_text("www.hashed.test.", 300, "IN", "A", "192.0.2.66"))

    assert (await verdict(world, question, on(question, forge))).security is Security.BOGUS


async def test_the_alias_that_a_dname_makes_must_be_the_one_it_makes(world: World) -> None:
    question = asked("www.old.renamed.test")

    def redirect(response: Response) -> None:
        for number, rrset in enumerate(response.answer):
            if rrset.rdtype == RdataType.CNAME:
                response.answer[number] = dns.rrset.from_text(rrset.name, 300, "IN", "CNAME", "www.rsa.test.")

    def strip(response: Response) -> None:
        response.answer = [rrset for rrset in response.answer if rrset.rdtype != RdataType.CNAME]

    assert (await verdict(world, question, on(question, redirect))).security is Security.BOGUS
    assert (await verdict(world, question, on(question, strip))).security is Security.BOGUS


async def test_an_alias_alone_is_judged_and_no_absence_is_made_of_it(world: World) -> None:
    """Some resolvers leave the rest to whoever asks; the target is then asked for, and judged, by itself."""
    question = asked("away.example.test")

    def cut(response: Response) -> None:
        response.answer = [rrset for rrset in response.answer if rrset.name == question.name]

    def forge(response: Response) -> None:
        cut(response)
        response.answer[0] = dns.rrset.from_text(question.name, 300, "IN", "CNAME", "www.rsa.test.")

    assert await verdict(world, question, on(question, cut)) == Verdict(Security.SECURE)
    assert (await verdict(world, question, on(question, forge))).security is Security.BOGUS


async def test_a_chain_of_aliases_ends(world: World) -> None:
    question = asked("www.plain.test")

    def loop(response: Response) -> None:
        response.answer = [dns.rrset.from_text("www.plain.test.", 300, "IN", "CNAME", "www.plain.test.")]

    assert (await verdict(world, question, on(question, loop))).security is Security.BOGUS


@pytest.mark.parametrize("name", ["www.example.test", "none.example.test", "x.wild.hashed.test", "none.hashed.test"])
def test_any_bytes_get_a_verdict(shared: World, name: str) -> None:
    question = asked(name)
    wire = real(shared, name).to_wire(max_size=65535)
    keys = real(shared, str(question.name.parent()), RdataType.DNSKEY).to_wire(max_size=65535)

    @settings(max_examples=40)
    @given(st.booleans(), st.lists(st.tuples(st.integers(12, 2000), st.integers(0, 255)), min_size=1, max_size=4))
    def check(is_key: bool, changes: list[tuple[int, int]]) -> None:
        spoilt = bytearray(keys if is_key else wire)
        for place, value in changes:
            spoilt[place % len(spoilt)] = value
        try:
            response = dns.message.from_wire(bytes(spoilt), ignore_trailing=True)
        except (dns.exception.DNSException, ValueError):
            return

        def tamper(came: Question, answer: Response) -> None:
            if (came.rdtype == RdataType.DNSKEY) if is_key else (came == question):
                answer.answer, answer.authority = response.answer, response.authority
                answer.set_rcode(response.rcode())

        found = anyio.run(verdict, shared, question, tamper)
        assert isinstance(found.security, Security)

    check()
