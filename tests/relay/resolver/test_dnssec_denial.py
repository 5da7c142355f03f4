"""What NSEC and NSEC3 records prove, and what they do not: each rule of RFC 4035 §5.4, RFC 5155 §8, RFC 6840 §4."""

from __future__ import annotations

import hashlib

import dns.name
import pytest
from dns.rdatatype import RdataType
from dns.rdtypes.util import Bitmap

from relay.resolver.dnssec.denial import COSTLY_DENIAL, NO_DENIAL, Cut, Proof, covers_type
from relay.resolver.dnssec.nsec import NsecDenial, NsecRecord
from relay.resolver.dnssec.nsec3 import Nsec3Denial, Nsec3Record
from relay.resolver.dnssec.work import ValidationLimits, Work

ZONE = dns.name.from_text("z")
A, DS, NS, CNAME = RdataType.A, RdataType.DS, RdataType.NS, RdataType.CNAME
PROVEN, UNPROVEN, OPT_OUT = Proof.PROVEN, Proof.UNPROVEN, Proof.OPT_OUT


def at(text: str) -> dns.name.Name:
    """Return a name of the zone."""
    return dns.name.from_text(text, ZONE)


def bitmap(types: str) -> tuple[tuple[int, bytes], ...]:
    """Return the bitmap of some types."""
    return tuple(Bitmap.from_rdtypes([RdataType[one] for one in types.split()]).windows)


def nsec(*records: str) -> NsecDenial:
    """Make a denial of lines: owner, following name, types."""
    made = []
    for record in records:
        owner, following, types = record.split(maxsplit=2)
        made.append(NsecRecord(at(owner), at(following), bitmap(types)))
    return NsecDenial(ZONE, made)


@pytest.mark.parametrize(
    ("records", "name", "proof"),
    [
        (["@ b SOA NS", "b d A"], "c", PROVEN),
        (["@ d SOA NS"], "c", PROVEN),  # one record for the name and for the wildcard
        (["b d A"], "c", UNPROVEN),  # `*` may exist
        (["@ b SOA NS", "b d A"], "b", UNPROVEN),
        (["@ b SOA NS", "b d A"], "d", UNPROVEN),
        (["@ b SOA NS", "b d A"], "e", UNPROVEN),
        (["@ b SOA NS", "y @ A"], "yy", PROVEN),  # the last record leads back to the apex
        (["@ b SOA NS", "b x.c A"], "c", UNPROVEN),  # `c` is empty, but is
        (["@ b SOA NS", "b x.c A"], "y.c", UNPROVEN),  # below `c` the record ends before `y.c`
        (["@ b SOA NS", "b d NS"], "x.b", UNPROVEN),  # below a zone cut: not the parent's to deny
        (["@ b SOA NS", "b d DNAME"], "x.b", UNPROVEN),
        (["@ b SOA NS", "b d NS SOA"], "x.b", PROVEN),  # an apex may deny what is below it
        (["@ b SOA NS", "b d A"], "x.b", PROVEN),  # the gap after `b` holds `*.b` too
        (["* b A"], "aa", UNPROVEN),
    ],
)
def test_nsec_name_error(records: list[str], name: str, proof: Proof) -> None:
    assert nsec(*records).name_error(at(name)) is proof


@pytest.mark.parametrize(
    ("records", "name", "rdtype", "proof"),
    [
        (["b d TXT"], "b", A, PROVEN),
        (["b d A"], "b", A, UNPROVEN),
        (["b d CNAME"], "b", A, UNPROVEN),  # an alias is no absence (RFC 6840 §4.3)
        (["b d NS"], "b", A, UNPROVEN),  # the parent's side of a zone cut
        (["b d NS"], "b", DS, PROVEN),
        (["b d NS DS"], "b", DS, UNPROVEN),
        (["b d NS SOA"], "b", A, PROVEN),
        (["b d NS SOA"], "b", DS, UNPROVEN),  # the child's side
        (["b x.c A"], "c", A, PROVEN),  # an empty name
        (["b d A"], "c", A, UNPROVEN),
        (["b d A", "* b TXT"], "c", A, PROVEN),  # a wildcard without the type
        (["b d A", "* b A"], "c", A, UNPROVEN),
        (["b d A", "* b CNAME"], "c", A, UNPROVEN),
        (["* b TXT"], "c", A, UNPROVEN),  # nothing says that `c` does not exist
        (["b d A", "*.b c TXT"], "c", A, UNPROVEN),  # another name's wildcard
    ],
)
def test_nsec_no_data(records: list[str], name: str, rdtype: RdataType, proof: Proof) -> None:
    assert nsec(*records).no_data(at(name), rdtype) is proof


@pytest.mark.parametrize(
    ("record", "name", "closest", "proof"),
    [
        ("*.w x A", "b.w", "w", PROVEN),
        ("*.w c.w A", "b.w", "w", PROVEN),
        ("*.w c.w A", "d.w", "w", UNPROVEN),
        ("*.w x A", "b.w", "@", UNPROVEN),  # `w` exists, so `*` is not the one that stands for it
        ("*.w c.b.w A", "a.b.w", "w", UNPROVEN),  # `b.w` exists
        ("*.w b.b.w A", "b.w", "w", UNPROVEN),
    ],
)
def test_nsec_expansion(record: str, name: str, closest: str, proof: Proof) -> None:
    assert nsec(record).expansion(at(name), at(closest)) is proof


CUTS = [
    ("NS", Cut.UNSIGNED),
    ("NS DS", Cut.UNPROVEN),
    ("NS SOA", Cut.UNPROVEN),
    ("SOA", Cut.UNPROVEN),
    ("DS", Cut.UNPROVEN),
    ("NS CNAME", Cut.UNPROVEN),
    ("A", Cut.NONE),
    ("CNAME", Cut.NONE),
]


@pytest.mark.parametrize(("types", "cut"), CUTS)
def test_a_zone_cut_is_read_from_the_types_at_the_name(types: str, cut: Cut) -> None:
    assert nsec(f"b d {types}").cut(at("b")) is cut
    assert nsec3("b", types={"b": types}).cut(at("b")) is cut


def test_nsec_cut_elsewhere() -> None:
    assert nsec("b d A").cut(at("c")) is Cut.NO_NAME
    assert nsec("b x.c A").cut(at("c")) is Cut.NONE
    assert nsec("b d A").cut(at("e")) is Cut.UNPROVEN
    assert nsec("b d NS").cut(at("x.b")) is Cut.UNPROVEN


def test_nsec_of_another_zone_says_nothing() -> None:
    other = dns.name.from_text("c.y")
    denial = nsec("@ b SOA NS", "y @ A")
    assert denial.name_error(other) is UNPROVEN
    assert denial.cut(other) is Cut.UNPROVEN


def hashed(name: dns.name.Name) -> bytes:
    """Hash a name without salt and iterations."""
    return hashlib.sha1(name.to_digestable()).digest()


def nsec3(
    *matching: str, around: tuple[str, ...] = (), opt_out: tuple[str, ...] = (), types: dict[str, str] | None = None
) -> Nsec3Denial:
    """Make a denial of records at some names, and of the narrowest ones around some others."""
    records = []
    for name in matching:
        value = hashed(at(name))
        records.append(Nsec3Record(value, _next(value), bitmap((types or {}).get(name, "A")), is_opt_out=False))
    for name in (*around, *opt_out):
        value = hashed(at(name))
        records.append(Nsec3Record(_before(value), _next(value), bitmap("A"), is_opt_out=name in opt_out))
    return Nsec3Denial(ZONE, records, b"", 0, Work(ValidationLimits()))


def _next(value: bytes) -> bytes:
    return ((int.from_bytes(value, "big") + 1) % (1 << 160)).to_bytes(20, "big")


def _before(value: bytes) -> bytes:
    return ((int.from_bytes(value, "big") - 1) % (1 << 160)).to_bytes(20, "big")


@pytest.mark.parametrize(
    ("denial", "name", "proof"),
    [
        (nsec3("@", around=("c", "*")), "c", PROVEN),
        (nsec3("@", around=("c", "*")), "x.c", PROVEN),
        (nsec3("@", around=("c",)), "c", UNPROVEN),
        (nsec3("@", around=("*",)), "c", UNPROVEN),
        (nsec3("@", around=("*",), opt_out=("c",)), "c", OPT_OUT),
        (nsec3("@", "c", around=("*",)), "c", UNPROVEN),
        (nsec3(around=("c", "*")), "c", UNPROVEN),
        (nsec3("@", around=("x.c", "*.c")), "x.c", UNPROVEN),  # `c` is not shown to exist
        (nsec3("c", around=("x.c", "*.c")), "x.c", PROVEN),
        (nsec3("c", around=("x.c", "*.c"), types={"c": "NS"}), "x.c", UNPROVEN),
        (nsec3("c", around=("x.c", "*.c"), types={"c": "DNAME"}), "x.c", UNPROVEN),
        (nsec3("c", around=("x.c", "*.c"), types={"c": "NS SOA"}), "x.c", PROVEN),
    ],
)
def test_nsec3_name_error(denial: Nsec3Denial, name: str, proof: Proof) -> None:
    assert denial.name_error(at(name)) is proof


@pytest.mark.parametrize(
    ("denial", "name", "rdtype", "proof"),
    [
        (nsec3("b"), "b", DS, PROVEN),
        (nsec3("b"), "b", A, UNPROVEN),
        (nsec3("b", types={"b": "NS"}), "b", A, UNPROVEN),
        (nsec3("b", types={"b": "CNAME"}), "b", A, UNPROVEN),
        (nsec3("b", types={"b": "NS SOA"}), "b", DS, UNPROVEN),
        (nsec3("@", opt_out=("b",)), "b", DS, OPT_OUT),
        (nsec3("@", around=("b",)), "b", DS, UNPROVEN),
        (nsec3("@", "*", around=("b",), types={"*": "TXT"}), "b", A, PROVEN),
        (nsec3("@", "*", around=("b",)), "b", A, UNPROVEN),
        (nsec3("@", "*", types={"*": "TXT"}), "b", A, UNPROVEN),
    ],
)
def test_nsec3_no_data(denial: Nsec3Denial, name: str, rdtype: RdataType, proof: Proof) -> None:
    assert denial.no_data(at(name), rdtype) is proof


def test_nsec3_expansion() -> None:
    assert nsec3(around=("b.w",)).expansion(at("a.b.w"), at("w")) is PROVEN
    assert nsec3(opt_out=("b.w",)).expansion(at("a.b.w"), at("w")) is OPT_OUT
    assert nsec3(around=("a.b.w",)).expansion(at("a.b.w"), at("w")) is UNPROVEN


def test_nsec3_cut_elsewhere() -> None:
    assert nsec3("@", around=("b",)).cut(at("b")) is Cut.NO_NAME
    assert nsec3("@", opt_out=("b",)).cut(at("b")) is Cut.UNSIGNED
    assert nsec3("@").cut(at("b")) is Cut.UNPROVEN
    assert nsec3("c", opt_out=("x.c",), types={"c": "NS"}).cut(at("x.c")) is Cut.UNPROVEN


def test_nsec3_spans_wrap_around() -> None:
    first, last = b"\x01" + bytes(19), b"\xfe" + bytes(19)
    work = Work(ValidationLimits())
    matching = Nsec3Record(hashed(ZONE), _next(hashed(ZONE)), bitmap("SOA NS"), is_opt_out=False)
    inside = Nsec3Denial(ZONE, [matching, Nsec3Record(last, first, (), is_opt_out=False)], b"", 0, work)
    outside = Nsec3Denial(ZONE, [matching, Nsec3Record(first, last, (), is_opt_out=False)], b"", 0, work)
    alone = Nsec3Denial(
        ZONE, [Nsec3Record(hashed(ZONE), hashed(ZONE), bitmap("SOA"), is_opt_out=False)], b"", 0, work
    )
    assert inside.cut(at("b")) is Cut.UNPROVEN
    assert outside.cut(at("b")) is Cut.NO_NAME
    assert alone.cut(at("b")) is Cut.NO_NAME


def test_what_is_not_read_proves_nothing() -> None:
    for denial, proof, cut in (
        (NO_DENIAL, UNPROVEN, Cut.UNPROVEN),
        (COSTLY_DENIAL, Proof.TOO_COSTLY, Cut.TOO_COSTLY),
    ):
        assert denial.name_error(at("b")) is proof
        assert denial.no_data(at("b"), A) is proof
        assert denial.expansion(at("b"), ZONE) is proof
        assert denial.cut(at("b")) is cut


def test_bitmaps() -> None:
    types = bitmap("A CAA RRSIG")
    found = {rdtype for rdtype in RdataType if covers_type(types, rdtype)}
    assert found == {RdataType.A, RdataType.CAA, RdataType.RRSIG}
    assert not covers_type(((0, b""),), A)
