"""One world with every variant of a zone that a validator must tell apart, and what is true of each name in it."""

from __future__ import annotations

from dataclasses import dataclass

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rrset
from dns.rdatatype import RdataType

from relay.resolver.dnssec import InfoCode, Security
from tests.relay.resolver.world import World
from tests.relay.resolver.zones import DAY, Nsec3, Signing, Zone, name_of

__all__ = ["VARIANTS", "Variant", "make_world"]

_LINES = (
    "@ NS ns",
    "www A 192.0.2.1",
    "www A 192.0.2.2",
    "alias CNAME www",
    "*.wild A 192.0.2.3",
    "here.wild A 192.0.2.6",
    "here.wild TXT here",
    "a.ent A 192.0.2.4",
    "zzz A 192.0.2.5",
)


@dataclass(frozen=True)
class Variant:
    """A question and what is true of its answer."""

    name: str
    rdtype: RdataType
    security: Security
    info_code: InfoCode | None = None
    differs: str = ""
    "Which other validators see it otherwise, and why."

    @property
    def is_bogus(self) -> bool:
        """Whether its answer is refused."""
        return self.security is Security.BOGUS

    def __str__(self) -> str:
        return f"{self.name}-{self.rdtype.name}"


def make_world() -> World:
    """Make the zones, with fresh keys."""
    zones = [
        Zone("example.test", (*_LINES, "away CNAME www.hashed.test.", "out CNAME www.plain.test."), Signing()),
        Zone("hashed.test", _LINES, Signing(nsec3=Nsec3(2, b"\xab\xcd"))),
        Zone(
            "optout.test",
            ("@ NS ns", "www A 192.0.2.1", "plain NS ns.plain.optout.test."),
            Signing(nsec3=Nsec3(opt_out=True)),
        ),
        Zone("plain.optout.test", ("@ NS ns", "www A 192.0.2.1")),
        Zone("plain.test", _LINES),
        Zone("under.example.test", ("@ NS ns", "www A 192.0.2.1"), Signing()),
        Zone("island.test", _LINES, Signing()),
        Zone("wrongds.test", _LINES, Signing()),
        Zone("expired.test", _LINES, Signing()),
        Zone("early.test", _LINES, Signing()),
        Zone("forged.test", _LINES, Signing()),
        Zone("stripped.test", _LINES, Signing()),
        Zone("unproven.test", _LINES, Signing()),
        Zone("strange.test", _LINES, Signing()),
        Zone("digest.test", _LINES, Signing()),
        Zone("old.test", _LINES, Signing(algorithm=7)),
        Zone("rsa.test", _LINES, Signing(algorithm=8)),
        Zone("p384.test", _LINES, Signing(algorithm=14, nsec3=Nsec3())),
        Zone("costly.test", _LINES, Signing(nsec3=Nsec3(200))),
        Zone("renamed.test", ("@ NS ns", "old DNAME example.test."), Signing()),
    ]
    by_name = {zone.apex: zone for zone in zones}
    top = Zone("test", ("@ NS ns",), Signing())
    _delegate(by_name, top)
    root = Zone(".", ("@ NS ns", "test NS ns.test."), Signing(algorithm=8))
    root.add(f"test DS {top.ds()}")
    world = World([root, top, *zones])
    for number, zone in enumerate(world.zones.values(), start=1):
        address = f"127.0.1.{number}"
        world.addresses[zone.apex] = address
        for holder in {zone, world.parent_of(zone)}:
            holder.add(f"ns.{zone.apex.to_text().lstrip('.')} A {address}")
    for zone in world.zones.values():
        zone.sign()
    _spoil(by_name)
    return world


def _delegate(zones: dict[dns.name.Name, Zone], top: Zone) -> None:
    for zone in zones.values():
        parent = zones.get(zone.apex.parent(), top)
        parent.add(f"{zone.apex} NS ns.{zone.apex}")
        label = zone.apex.labels[0].decode()
        if zone.signing is None or label == "island":
            continue
        tag, algorithm, digest_type, digest = zone.ds().split()
        if label == "wrongds":
            digest = "00" * 32
        elif label == "strange":
            algorithm = "200"
        elif label == "digest":
            digest_type = "200"
        parent.add(f"{zone.apex} DS {tag} {algorithm} {digest_type} {digest}")


def _spoil(zones: dict[dns.name.Name, Zone]) -> None:
    zones[name_of("expired.test")].expire("www.expired.test", RdataType.A, since=10 * DAY, until=-3 * DAY)
    zones[name_of("early.test")].expire("www.early.test", RdataType.A, since=-3 * DAY, until=10 * DAY)
    forged = zones[name_of("forged.test")]
    address = dns.rdata.from_text(dns.rdataclass.IN, "A", "192.0.2.66")
    forged.sets[name_of("www.forged.test")][RdataType.A] = dns.rrset.from_rdata("www.forged.test.", 300, address)
    del zones[name_of("stripped.test")].signatures[name_of("www.stripped.test"), RdataType.A]
    unproven = zones[name_of("unproven.test")]
    for name, rdtype in list(unproven.signatures):
        if rdtype == RdataType.NSEC:
            del unproven.signatures[name, rdtype]


_SECURE, _INSECURE, _BOGUS = Security.SECURE, Security.INSECURE, Security.BOGUS
_OPT_OUT = "delv says that the records are signed, not that they prove anything"
_A, _AAAA, _DS, _TXT = RdataType.A, RdataType.AAAA, RdataType.DS, RdataType.TXT


def _denials(zone: str) -> list[Variant]:
    """Every kind of answer and absence in a zone that is in order."""
    return [
        Variant(f"www.{zone}", _A, _SECURE),
        Variant(f"www.{zone}", _AAAA, _SECURE),
        Variant(f"none.{zone}", _A, _SECURE),
        Variant(f"b.none.{zone}", _A, _SECURE),
        Variant(f"ent.{zone}", _A, _SECURE),
        Variant(f"x.wild.{zone}", _A, _SECURE),
        Variant(f"y.x.wild.{zone}", _A, _SECURE),
        Variant(f"x.wild.{zone}", _AAAA, _SECURE),
        Variant(f"alias.{zone}", _A, _SECURE),
        Variant(zone, _DS, _SECURE),
        Variant(f"www.{zone}", _DS, _SECURE),
        Variant(zone, RdataType.DNSKEY, _SECURE),
        Variant(zone, RdataType.SOA, _SECURE),
    ]


VARIANTS = [
    *_denials("example.test"),
    *_denials("hashed.test"),
    Variant(".", RdataType.NS, _SECURE),
    Variant("none.", _A, _SECURE),
    Variant("away.example.test", _A, _SECURE),
    Variant("out.example.test", _A, _INSECURE),
    Variant("www.under.example.test", _A, _SECURE),
    Variant("www.rsa.test", _A, _SECURE),
    Variant("www.p384.test", _A, _SECURE),
    Variant("none.p384.test", _A, _SECURE),
    Variant("www.old.renamed.test", _A, _SECURE),
    Variant("www.optout.test", _A, _SECURE),
    Variant("none.optout.test", _A, _INSECURE, None, _OPT_OUT),
    Variant("www.plain.optout.test", _A, _INSECURE),
    Variant("plain.optout.test", _DS, _INSECURE, None, _OPT_OUT),
    Variant("www.plain.test", _A, _INSECURE),
    Variant("none.plain.test", _A, _INSECURE),
    Variant("www.island.test", _A, _INSECURE),
    Variant("www.strange.test", _A, _INSECURE, InfoCode.UNSUPPORTED_DNSKEY_ALGORITHM),
    Variant("www.digest.test", _A, _INSECURE, InfoCode.UNSUPPORTED_DS_DIGEST),
    Variant(
        "www.old.test", _A, _INSECURE, InfoCode.UNSUPPORTED_DNSKEY_ALGORITHM, "unbound and delv still count RSASHA1"
    ),
    Variant("www.costly.test", _A, _SECURE),
    Variant("none.costly.test", _A, _INSECURE, InfoCode.UNSUPPORTED_NSEC3_ITERATIONS),
    Variant("www.wrongds.test", _A, _BOGUS, InfoCode.DNSKEY_MISSING),
    Variant("www.expired.test", _A, _BOGUS, InfoCode.SIGNATURE_EXPIRED),
    Variant("www.early.test", _A, _BOGUS, InfoCode.SIGNATURE_NOT_YET_VALID),
    Variant("www.forged.test", _A, _BOGUS, InfoCode.DNSSEC_BOGUS),
    Variant("alias.forged.test", _A, _BOGUS, InfoCode.DNSSEC_BOGUS),
    Variant("www.stripped.test", _A, _BOGUS, InfoCode.RRSIGS_MISSING),
    Variant("none.unproven.test", _A, _BOGUS, InfoCode.NSEC_MISSING),
    Variant("x.wild.unproven.test", _A, _BOGUS, InfoCode.NSEC_MISSING),
]
