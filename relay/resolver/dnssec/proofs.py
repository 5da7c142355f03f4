"""From a response's authority section to a denial: validates NSEC and NSEC3 records, and drops what is unfit."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

import dns.name
import dns.rdatatype

from relay.resolver.dnssec.denial import COSTLY_DENIAL, NO_DENIAL, Denial
from relay.resolver.dnssec.nsec import NsecDenial, NsecRecord
from relay.resolver.dnssec.nsec3 import Nsec3Denial, Nsec3Record
from relay.resolver.dnssec.sets import SignedSet
from relay.resolver.dnssec.signatures import Verifier, ZoneKeys
from relay.resolver.dnssec.work import ValidationLimits, Work

__all__ = ["read_denial"]

_SHA1 = 1
_OPT_OUT = 0x01
_DENYING = frozenset({dns.rdatatype.NSEC, dns.rdatatype.NSEC3})


async def read_denial(
    sets: Iterable[SignedSet], zone: ZoneKeys, verifier: Verifier, limits: ValidationLimits, work: Work
) -> Denial:
    """Validate the records of a zone that deny something.

    Args:
        sets: of a response's authority section.
        zone: whose records count; others are left out.
        verifier: checks their signatures.
        limits: the bounds of one question.
        work: what the question has cost.

    Raises:
        BogusData: a signature does not hold, or the question has cost enough.
    """
    found = [signed for signed in sets if signed.rrset.rdtype in _DENYING and signed.signer() == zone.zone]
    valid = [signed for signed in found[: limits.sets] if not (await verifier.verify(signed, zone, work)).is_expanded]
    plain = [signed for signed in valid if signed.rrset.rdtype == dns.rdatatype.NSEC]
    if plain:
        return NsecDenial(zone.zone, [_nsec(signed) for signed in plain])
    return _hashed(
        [signed for signed in valid if signed.rrset.rdtype == dns.rdatatype.NSEC3], zone.zone, limits, work
    )


def _nsec(signed: SignedSet) -> NsecRecord:
    record = signed.rrset[0]
    return NsecRecord(signed.rrset.name, record.next, tuple(record.windows))


def _hashed(sets: list[SignedSet], zone: dns.name.Name, limits: ValidationLimits, work: Work) -> Denial:
    """Make a denial of the NSEC3 records that have the parameters of the first usable one (RFC 5155 §8.1, §8.2)."""
    usable = [
        signed
        for signed in sets
        if signed.rrset[0].algorithm == _SHA1
        and signed.rrset[0].flags in {0, _OPT_OUT}
        and signed.rrset.name != zone
        and signed.rrset.name.parent() == zone
    ]
    if not usable:
        return NO_DENIAL
    salt, iterations = usable[0].rrset[0].salt, usable[0].rrset[0].iterations
    if iterations > limits.iterations:
        return COSTLY_DENIAL
    records = []
    for signed in usable:
        record = signed.rrset[0]
        hashed = _hash_of(signed.rrset.name)
        if hashed is None or (record.salt, record.iterations) != (salt, iterations):
            continue
        is_opt_out = bool(record.flags & _OPT_OUT)
        records.append(Nsec3Record(hashed, record.next, tuple(record.windows), is_opt_out))
    return Nsec3Denial(zone, records, salt, iterations, work)


def _hash_of(owner: dns.name.Name) -> bytes | None:
    try:
        return base64.b32hexdecode(owner.labels[0].upper())
    except binascii.Error:
        return None
