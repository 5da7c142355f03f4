"""Denial by NSEC3 records: a zone's names hashed, the hashes in order (RFC 5155 §8).

Hashing is what an attacker would have us do without end, so each name is hashed once and counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import dns.name
import dns.rdatatype

from relay.resolver.dnssec.denial import Bitmap, Cut, Proof, covers_type, cut_of, is_delegation, lacks
from relay.resolver.dnssec.work import Work

__all__ = ["Nsec3Denial", "Nsec3Record"]

_WILDCARD = dns.name.Name((b"*",))


@dataclass(frozen=True, slots=True, repr=False)
class Nsec3Record:
    """One validated NSEC3 record."""

    hashed: bytes
    "The hash of a name that exists."
    following: bytes
    "The next hash."
    types: Bitmap
    "What there is at that name."
    is_opt_out: bool
    "Whether unsigned delegations may lie between the two hashes."


class Nsec3Denial:
    """Validated NSEC3 records of one zone, all with the same parameters."""

    def __init__(
        self, zone: dns.name.Name, records: Sequence[Nsec3Record], salt: bytes, iterations: int, work: Work
    ) -> None:
        """Keep the records.

        Args:
            zone: the zone's apex.
            records: the records.
            salt: goes into each hash.
            iterations: how often a hash is hashed again.
            work: where hashes are counted; all methods raise BogusData when there were too many.
        """
        self._zone = zone
        self._records = records
        self._salt = salt
        self._iterations = iterations
        self._work = work
        self._hashes: dict[dns.name.Name, bytes] = {}

    def name_error(self, name: dns.name.Name) -> Proof:
        """Say whether neither the name nor a wildcard for it exists (RFC 5155 §8.4)."""
        closest, gap = self._enclosing(name)
        if closest is None or gap is None or self._around(_WILDCARD.concatenate(closest)) is None:
            return Proof.UNPROVEN
        return Proof.OPT_OUT if gap.is_opt_out else Proof.PROVEN

    def no_data(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Proof:
        """Say whether the name, or its wildcard, lacks the type (RFC 5155 §8.5 to §8.7)."""
        found = self._at(name)
        if found is not None:
            return Proof.PROVEN if lacks(found.types, name, rdtype) else Proof.UNPROVEN
        closest, gap = self._enclosing(name)
        if closest is None or gap is None:
            return Proof.UNPROVEN
        if gap.is_opt_out:
            return Proof.OPT_OUT
        wildcard = self._at(_WILDCARD.concatenate(closest))
        is_proven = wildcard is not None and lacks(wildcard.types, name, rdtype)
        return Proof.PROVEN if is_proven else Proof.UNPROVEN

    def expansion(self, name: dns.name.Name, closest: dns.name.Name) -> Proof:
        """Say whether the wildcard below `closest` may stand for the name (RFC 5155 §8.8)."""
        gap = self._around(_next_closer(name, closest))
        if gap is None:
            return Proof.UNPROVEN
        return Proof.OPT_OUT if gap.is_opt_out else Proof.PROVEN

    def cut(self, name: dns.name.Name) -> Cut:
        """Say what is known of a name without DS records (RFC 5155 §8.6, §8.9)."""
        found = self._at(name)
        if found is not None:
            return cut_of(found.types, name)
        closest, gap = self._enclosing(name)
        if closest is None or gap is None:
            return Cut.UNPROVEN
        return Cut.UNSIGNED if gap.is_opt_out else Cut.NO_NAME

    def _enclosing(self, name: dns.name.Name) -> tuple[dns.name.Name | None, Nsec3Record | None]:
        """Find the closest encloser, and the record that proves that nothing closer exists (RFC 5155 §8.3)."""
        candidate, closer = name, name
        while candidate.is_subdomain(self._zone):
            found = self._at(candidate)
            if found is not None:
                is_usable = not is_delegation(found.types) and not covers_type(found.types, dns.rdatatype.DNAME)
                if candidate == name or not is_usable:
                    return None, None
                return candidate, self._around(closer)
            if candidate == self._zone:
                break
            candidate, closer = candidate.parent(), candidate
        return None, None

    def _at(self, name: dns.name.Name) -> Nsec3Record | None:
        hashed = self._hash(name)
        return next((record for record in self._records if record.hashed == hashed), None)

    def _around(self, name: dns.name.Name) -> Nsec3Record | None:
        hashed = self._hash(name)
        for record in self._records:
            if record.hashed < record.following:
                is_inside = record.hashed < hashed < record.following
            else:
                is_inside = hashed > record.hashed or hashed < record.following
            if is_inside:
                return record
        return None

    def _hash(self, name: dns.name.Name) -> bytes:
        """Hash a name (RFC 5155 §5)."""
        found = self._hashes.get(name)
        if found is None:
            self._work.add_hash()
            found = hashlib.sha1(name.to_digestable() + self._salt, usedforsecurity=False).digest()
            for _ in range(self._iterations):
                found = hashlib.sha1(found + self._salt, usedforsecurity=False).digest()
            self._hashes[name] = found
        return found


def _next_closer(name: dns.name.Name, closest: dns.name.Name) -> dns.name.Name:
    return name.split(len(closest.labels) + 1)[1]
