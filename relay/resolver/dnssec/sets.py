"""A response's record sets, each with the signatures that cover it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.RRSIG
import dns.rrset

__all__ = ["SignedSet", "find_set", "read_sets", "type_of"]


@dataclass(frozen=True, slots=True, repr=False)
class SignedSet:
    """Records of one name and type, and what is said to sign them."""

    rrset: dns.rrset.RRset
    "The records."
    signatures: tuple[dns.rdtypes.ANY.RRSIG.RRSIG, ...] = ()
    "Signatures of this name and type."

    def signer(self, *, above: bool = False) -> dns.name.Name | None:
        """Return the zone that says it signed this: the deepest one at or above the owner; None if there is none.

        Args:
            above: whether it must be truly above, as for the parent's records about a child.
        """
        owner = self.rrset.name
        signers = [
            signature.signer
            for signature in self.signatures
            if owner.is_subdomain(signature.signer) and not (above and signature.signer == owner)
        ]
        return max(signers, key=len) if signers else None


def read_sets(section: Iterable[dns.rrset.RRset], limit: int) -> list[SignedSet]:
    """Pair the record sets of a section with their signatures.

    Args:
        section: of a response.
        limit: signatures kept for each set.
    """
    sets: list[dns.rrset.RRset] = []
    signatures: dict[tuple[dns.name.Name, int], list[dns.rdtypes.ANY.RRSIG.RRSIG]] = {}
    for rrset in section:
        if rrset.rdclass != dns.rdataclass.IN:
            continue
        if rrset.rdtype == dns.rdatatype.RRSIG:
            for signature in rrset:
                signatures.setdefault((rrset.name, int(signature.type_covered)), []).append(signature)
        else:
            sets.append(rrset)
    return [SignedSet(rrset, tuple(signatures.get((rrset.name, int(rrset.rdtype)), ())[:limit])) for rrset in sets]


def find_set(sets: Iterable[SignedSet], name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> SignedSet | None:
    """Return the set of this name and type, or None."""
    for signed in sets:
        if signed.rrset.rdtype == rdtype and signed.rrset.name == name:
            return signed
    return None


def type_of(rrset: dns.rrset.RRset) -> dns.rdatatype.RdataType:
    """Return the type of records, or of signatures the type that they cover."""
    return rrset.covers if rrset.rdtype == dns.rdatatype.RRSIG else rrset.rdtype
