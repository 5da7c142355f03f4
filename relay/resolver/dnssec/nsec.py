"""Denial by NSEC records: the names of a zone in order, each with the next one (RFC 4035 §5.4, RFC 6840 §4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dns.name
import dns.rdatatype

from relay.resolver.dnssec.denial import Bitmap, Cut, Proof, covers_type, cut_of, is_delegation, lacks

__all__ = ["NsecDenial", "NsecRecord"]

_WILDCARD = dns.name.Name((b"*",))


@dataclass(frozen=True, slots=True, repr=False)
class NsecRecord:
    """One validated NSEC record."""

    owner: dns.name.Name
    "A name that exists."
    following: dns.name.Name
    "The next one, or the zone's apex."
    types: Bitmap
    "What there is at `owner`."


class NsecDenial:
    """Validated NSEC records of one zone."""

    def __init__(self, zone: dns.name.Name, records: Sequence[NsecRecord]) -> None:
        self._zone = zone
        self._records = records

    def name_error(self, name: dns.name.Name) -> Proof:
        """Say whether neither the name nor a wildcard for it exists (RFC 4035 §5.4)."""
        for record in self._gaps(name):
            if any(self._gaps(_WILDCARD.concatenate(_closest(record, name)))):
                return Proof.PROVEN
        return Proof.UNPROVEN

    def no_data(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Proof:
        """Say whether the name, or the wildcard that stands for it, has no record of the type and is no alias."""
        found = self._at(name)
        if found is not None:
            return Proof.PROVEN if lacks(found.types, name, rdtype) else Proof.UNPROVEN
        if self._is_empty(name):
            return Proof.PROVEN
        for record in self._gaps(name):
            wildcard = self._at(_WILDCARD.concatenate(_closest(record, name)))
            if wildcard is not None and lacks(wildcard.types, name, rdtype):
                return Proof.PROVEN
        return Proof.UNPROVEN

    def expansion(self, name: dns.name.Name, closest: dns.name.Name) -> Proof:
        """Say whether the wildcard below `closest` may stand for the name (RFC 4035 §5.3.4)."""
        is_proven = any(_closest(record, name) == closest for record in self._gaps(name))
        return Proof.PROVEN if is_proven else Proof.UNPROVEN

    def cut(self, name: dns.name.Name) -> Cut:
        """Say what is known of a name without DS records."""
        found = self._at(name)
        if found is not None:
            return cut_of(found.types, name)
        if self._is_empty(name):
            return Cut.NONE
        return Cut.NO_NAME if any(self._gaps(name)) else Cut.UNPROVEN

    def _at(self, name: dns.name.Name) -> NsecRecord | None:
        return next((record for record in self._records if record.owner == name), None)

    def _is_empty(self, name: dns.name.Name) -> bool:
        """Say whether the name exists only because names below it do."""
        return any(record.following.is_subdomain(name) for record in self._around(name))

    def _gaps(self, name: dns.name.Name) -> Iterator[NsecRecord]:
        """Yield the records that prove that the name does not exist, not even as an empty one."""
        return (record for record in self._around(name) if not record.following.is_subdomain(name))

    def _around(self, name: dns.name.Name) -> Iterator[NsecRecord]:
        """Yield the records whose span holds the name and that may speak of it."""
        for record in self._records:
            if not record.owner < name or not name.is_subdomain(self._zone):
                continue
            if name >= record.following and record.following != self._zone:
                continue
            if name.is_subdomain(record.owner) and (
                is_delegation(record.types) or covers_type(record.types, dns.rdatatype.DNAME)
            ):
                continue  # what is below belongs to another zone, or is renamed (RFC 6840 §4.1)
            yield record


def _closest(record: NsecRecord, name: dns.name.Name) -> dns.name.Name:
    """Return the closest encloser: the deepest ancestor of the name that a record around it shows to exist."""
    return max((_shared(name, record.owner), _shared(name, record.following)), key=len)


def _shared(name: dns.name.Name, other: dns.name.Name) -> dns.name.Name:
    _, _, count = name.fullcompare(other)
    return name.split(count)[1]
