"""What a proof of absence can say, whichever record type it is made of (RFC 4035 §5.4, RFC 5155 §8)."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

import dns.name
import dns.rdatatype

__all__ = [
    "COSTLY_DENIAL",
    "NO_DENIAL",
    "Bitmap",
    "Cut",
    "Denial",
    "FlatDenial",
    "Proof",
    "covers_type",
    "cut_of",
    "is_delegation",
    "lacks",
]


class Proof(Enum):
    """How an absence is proven."""

    UNPROVEN = "unproven"
    "It is not."
    PROVEN = "proven"
    "By signed records."
    OPT_OUT = "opt out"
    "Up to an unsigned delegation that the records leave out (RFC 5155 §6)."
    TOO_COSTLY = "too costly"
    "By records that take more hashing than they are worth: the zone counts as unsigned (RFC 9276 §3.2)."


class Cut(Enum):
    """What a parent zone says of a name below it that has no DS record."""

    UNPROVEN = "unproven"
    "Nothing that is proven."
    UNSIGNED = "unsigned"
    "A zone starts there, and it is not signed (RFC 4035 §5.2), or it is left out."
    NONE = "none"
    "The name exists, and no zone starts there."
    NO_NAME = "no name"
    "The name does not exist, and so nothing below it does (RFC 8020 §2)."
    TOO_COSTLY = "too costly"
    "The records take more hashing than they are worth."


class Denial(Protocol):
    """Validated records of one zone that deny something."""

    def name_error(self, name: dns.name.Name) -> Proof:
        """Say whether neither the name nor a wildcard for it exists."""
        ...

    def no_data(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Proof:
        """Say whether the name, or the wildcard that stands for it, has no record of the type and is no alias."""
        ...

    def expansion(self, name: dns.name.Name, closest: dns.name.Name) -> Proof:
        """Say whether the wildcard below `closest` may stand for the name: nothing that exists is closer."""
        ...

    def cut(self, name: dns.name.Name) -> Cut:
        """Say what is known of a name without DS records."""
        ...


class FlatDenial:
    """Says the same of every name: of records that are missing, or not worth reading."""

    def __init__(self, proof: Proof, cut: Cut) -> None:
        self._proof = proof
        self._cut = cut

    def name_error(self, name: dns.name.Name) -> Proof:
        """Say what is said of all."""
        return self._proof

    def no_data(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Proof:
        """Say what is said of all."""
        return self._proof

    def expansion(self, name: dns.name.Name, closest: dns.name.Name) -> Proof:
        """Say what is said of all."""
        return self._proof

    def cut(self, name: dns.name.Name) -> Cut:
        """Say what is said of all."""
        return self._cut


NO_DENIAL = FlatDenial(Proof.UNPROVEN, Cut.UNPROVEN)
"No records, or such that prove nothing."
COSTLY_DENIAL = FlatDenial(Proof.TOO_COSTLY, Cut.TOO_COSTLY)
"NSEC3 records with more iterations than are worth it (RFC 9276 §3.2)."

Bitmap = tuple[tuple[int, bytes], ...]
"The types at a name: windows of 256 types each (RFC 4034 §4.1.2)."


def covers_type(bitmap: Bitmap, rdtype: int) -> bool:
    """Say whether a type is in a bitmap."""
    window, low = divmod(rdtype, 256)
    for number, bits in bitmap:
        if number == window and low // 8 < len(bits):
            return bool(bits[low // 8] & (0x80 >> low % 8))
    return False


def is_delegation(bitmap: Bitmap) -> bool:
    """Say whether these are the types of a zone cut, seen from the parent (RFC 6840 §4.1)."""
    return covers_type(bitmap, dns.rdatatype.NS) and not covers_type(bitmap, dns.rdatatype.SOA)


def lacks(bitmap: Bitmap, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> bool:
    """Say whether these types at a name deny this one, from the right side of a zone cut (RFC 6840 §4.1, §4.3)."""
    if covers_type(bitmap, rdtype) or covers_type(bitmap, dns.rdatatype.CNAME):
        return False
    if rdtype == dns.rdatatype.DS:
        return not covers_type(bitmap, dns.rdatatype.SOA) or name == dns.name.root
    return not is_delegation(bitmap)


def cut_of(bitmap: Bitmap, name: dns.name.Name) -> Cut:
    """Say what the types at a name tell of a zone cut there, when there should be no DS record."""
    if is_delegation(bitmap):
        return Cut.UNSIGNED if lacks(bitmap, name, dns.rdatatype.DS) else Cut.UNPROVEN
    is_apex = covers_type(bitmap, dns.rdatatype.SOA)
    return Cut.UNPROVEN if is_apex or covers_type(bitmap, dns.rdatatype.DS) else Cut.NONE
