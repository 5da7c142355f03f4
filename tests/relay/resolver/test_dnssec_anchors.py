"""relay.resolver.dnssec: where trust starts and where it ends: anchors inside the tree, domains left unvalidated."""

from __future__ import annotations

from dataclasses import replace

import anyio
import dns.name
import dns.rcode
import dns.rrset
import pytest
from dns.rdatatype import RdataType

from relay.resolver.dnssec import Security, TrustAnchors, Validator, Verdict, parse_trust_anchors, wall_clock
from tests.relay.resolver.judging import Response, asked, real
from tests.relay.resolver.world import World
from tests.relay.resolver.zones import Signing, Zone, name_of

pytestmark = pytest.mark.anyio


async def judge(world: World, name: str, response: Response, anchors: TrustAnchors) -> Verdict:
    """Validate a response to a question for addresses."""
    validator = Validator(world, anchors, wall_clock)
    return await validator.validate(asked(name), response, anyio.current_time() + 5)


def island(world: World, *unsigned: str) -> TrustAnchors:
    """Return the key of `island.test` as the only anchor."""
    anchors = parse_trust_anchors(f"island.test. IN DS {world.zones[name_of('island.test')].ds()}")
    return replace(anchors, unsigned=frozenset(map(name_of, unsigned)))


def resigned(rrset: dns.rrset.RRset, signature: dns.rrset.RRset, signer: str) -> list[dns.rrset.RRset]:
    """Return records with a signature that names another signer."""
    changed = [record.replace(signer=name_of(signer)) for record in signature]
    return [rrset, dns.rrset.from_rdata_list(rrset.name, 300, changed)]


@pytest.mark.parametrize("signer", [".", "test"])
async def test_a_signer_above_the_anchor_signs_nothing(world: World, signer: str) -> None:
    """It would be looked up, found to have no anchor, and the forged address be taken as that of an unsigned zone."""
    name = "www.island.test"
    response = real(world, name)
    forged = dns.rrset.from_text(f"{name}.", 300, "IN", "A", "192.0.2.66")
    response.answer = resigned(forged, response.answer[1], signer)
    assert (await judge(world, name, response, island(world))).security is Security.BOGUS
    assert (await judge(world, name, real(world, name), island(world))).security is Security.SECURE


@pytest.mark.parametrize("signer", [".", "test"])
@pytest.mark.parametrize("rcode", [dns.rcode.NOERROR, dns.rcode.NXDOMAIN])
async def test_a_signer_above_the_anchor_denies_nothing(world: World, signer: str, rcode: dns.rcode.Rcode) -> None:
    name = "www.island.test"
    response, absent = real(world, name), real(world, "none.island.test")
    soa = dns.rrset.from_text(f"{name_of(signer)}", 300, "IN", "SOA", "ns. admin. 1 2 3 4 5")
    signature = next(rrset for rrset in absent.authority if rrset.covers == RdataType.SOA)
    response.answer, response.authority = [], resigned(soa, signature, signer)
    response.set_rcode(rcode)
    assert (await judge(world, name, response, island(world))).security is Security.BOGUS
    assert (await judge(world, "none.island.test", absent, island(world))).security is Security.SECURE


async def test_a_signer_above_a_second_anchor_signs_nothing(world: World) -> None:
    """The root has an anchor as well, and says that the zone in between is unsigned."""
    below = Zone("sub.plain.test", ("www A 192.0.2.1",), Signing()).sign()
    anchors = parse_trust_anchors(f"{world.anchor_text}\nsub.plain.test. IN DS {below.ds()}")
    name = "www.sub.plain.test"
    signature = below.signatures[name_of(name), RdataType.A]
    response = real(world, "www.plain.test")
    response.answer = resigned(dns.rrset.from_text(f"{name}.", 300, "IN", "A", "192.0.2.66"), signature, "plain.test")
    two = World([*world.zones.values(), below])
    assert (await judge(two, name, response, anchors)).security is Security.BOGUS
    assert (await judge(two, name, real(two, name), anchors)).security is Security.SECURE


@pytest.mark.parametrize("domain", ["internal.test", "b.internal.test"])
async def test_an_unsigned_domain_that_its_parent_denies(world: World, domain: str) -> None:
    """A domain of one's own, of which the public zones above say that it does not exist."""
    anchors = replace(world.anchors, unsigned=frozenset({name_of(domain)}))
    name = f"www.{domain}"
    response = real(world, name)
    denied = list(response.authority)
    response.set_rcode(dns.rcode.NOERROR)
    response.answer = [dns.rrset.from_text(f"{name}.", 300, "IN", "A", "192.0.2.7")]
    for authority in ([], denied):
        response.authority = list(authority)
        assert await judge(world, name, response, anchors) == Verdict(Security.INSECURE)
        assert len(response.answer) == 1
        assert (await judge(world, name, response, world.anchors)).security is Security.BOGUS
    absent = real(world, name)
    assert await judge(world, name, absent, anchors) == Verdict(Security.INSECURE)
    response.answer = [dns.rrset.from_text("www.other.test.", 300, "IN", "A", "192.0.2.7")]
    assert (await judge(world, "www.other.test", response, anchors)).security is Security.BOGUS


async def test_an_anchor_below_an_unsigned_domain_counts(world: World) -> None:
    anchors = island(world, "test", "www.island.test")
    assert (await judge(world, "zzz.island.test", real(world, "zzz.island.test"), anchors)) == Verdict(
        Security.SECURE
    )
    assert await judge(world, "www.island.test", real(world, "www.island.test"), anchors) == Verdict(
        Security.INSECURE
    )
