"""Checks signatures: which fit a record set, and whether a key of the zone made one of them (RFC 4035 §5.3).

The loop goes on meanwhile: it gets its turn after each check, and a check that takes long runs in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import anyio
import anyio.lowlevel
import anyio.to_thread
import dns.dnssec
import dns.exception
import dns.name
import dns.rdataset
import dns.rdtypes.ANY.DNSKEY
import dns.rdtypes.ANY.RRSIG
import dns.rrset

from relay.resolver.dnssec.algorithms import is_costly, is_zone_key
from relay.resolver.dnssec.sets import SignedSet
from relay.resolver.dnssec.verdict import BogusData, InfoCode
from relay.resolver.dnssec.work import ValidationLimits, Work

__all__ = ["Verified", "Verifier", "ZoneKeys", "zone_keys"]

_THREADS = 1
"Threads that check costly signatures; the packet loop keeps the other core."

_WEIGHT = (
    InfoCode.RRSIGS_MISSING,
    InfoCode.DNSKEY_MISSING,
    InfoCode.SIGNATURE_NOT_YET_VALID,
    InfoCode.SIGNATURE_EXPIRED,
    InfoCode.DNSSEC_BOGUS,
)
"What is said of a set none of whose signatures holds: the last of these that applies to one."


@dataclass(frozen=True, slots=True, repr=False)
class ZoneKeys:
    """A zone's keys, as far as they may sign its records. They were validated."""

    zone: dns.name.Name
    "The zone's apex."
    keys: tuple[tuple[int, dns.rdtypes.ANY.DNSKEY.DNSKEY], ...]
    "The keys, each with its tag."

    def matching(self, tag: int, algorithm: int) -> list[dns.rdtypes.ANY.DNSKEY.DNSKEY]:
        """Return the keys of a tag and algorithm; tags are not unique (RFC 4034 §8)."""
        return [key for key_tag, key in self.keys if key_tag == tag and key.algorithm == algorithm]


def zone_keys(zone: dns.name.Name, keys: Iterable[dns.rdtypes.ANY.DNSKEY.DNSKEY]) -> ZoneKeys:
    """Keep those of a zone's keys that may sign its records."""
    return ZoneKeys(zone, tuple((dns.dnssec.key_id(key), key) for key in keys if is_zone_key(key)))


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature that holds."""

    ttl: float
    "How long the records may be kept (RFC 4035 §5.3.3)."
    labels: int
    "The owner's labels, without root and asterisk, when it was signed."
    is_expanded: bool
    "Whether a wildcard stood for the owner (RFC 4035 §5.3.4)."


class Verifier:
    """Checks signatures of record sets against a zone's keys."""

    def __init__(self, limits: ValidationLimits, clock: Callable[[], float]) -> None:
        """Make a verifier.

        Args:
            limits: the bounds of one question.
            clock: the wall clock, in seconds since the epoch: signatures have dates.
        """
        self._limits = limits
        self._clock = clock
        self._threads = anyio.CapacityLimiter(_THREADS)

    async def verify(self, signed: SignedSet, zone: ZoneKeys, work: Work) -> Verified:
        """Find a signature of the set that a key of the zone made.

        Raises:
            BogusData: none holds, or the question has cost enough.
        """
        now = self._clock()
        faults = [InfoCode.RRSIGS_MISSING]
        for signature in signed.signatures[: self._limits.signatures_per_set]:
            fault = _fault(signature, signed.rrset, zone.zone, now)
            if fault is None:
                keys = zone.matching(signature.key_tag, signature.algorithm)[: self._limits.keys_per_tag]
                if await self._is_made_by(keys, signature, signed.rrset, zone.zone, now, work):
                    return _verified(signature, signed.rrset, now)
                fault = InfoCode.DNSSEC_BOGUS if keys else InfoCode.DNSKEY_MISSING
            faults.append(fault)
        raise BogusData(max(faults, key=_WEIGHT.index))

    async def _is_made_by(
        self,
        keys: Sequence[dns.rdtypes.ANY.DNSKEY.DNSKEY],
        signature: dns.rdtypes.ANY.RRSIG.RRSIG,
        rrset: dns.rrset.RRset,
        zone: dns.name.Name,
        now: float,
        work: Work,
    ) -> bool:
        for key in keys:
            work.add_verification()
            check = partial(_check, rrset, signature, zone, key, now)
            if is_costly(key):
                is_good = await anyio.to_thread.run_sync(check, limiter=self._threads)
            else:
                is_good = check()
                await anyio.lowlevel.checkpoint()
            if is_good:
                return True
            work.add_failure()
        return False


def _fault(
    signature: dns.rdtypes.ANY.RRSIG.RRSIG, rrset: dns.rrset.RRset, zone: dns.name.Name, now: float
) -> InfoCode | None:
    """Say what is wrong with a signature before any key is tried (RFC 4035 §5.3.1)."""
    labels = len(rrset.name.labels) - 1 - rrset.name.is_wild()
    if signature.signer != zone or signature.labels > labels or signature.type_covered != rrset.rdtype:
        return InfoCode.DNSSEC_BOGUS
    if signature.labels < len(zone.labels) - 1:
        return InfoCode.DNSSEC_BOGUS  # a wildcard outside the zone
    if signature.expiration < now:
        return InfoCode.SIGNATURE_EXPIRED
    if signature.inception > now:
        return InfoCode.SIGNATURE_NOT_YET_VALID
    return None


def _check(
    rrset: dns.rrset.RRset,
    signature: dns.rdtypes.ANY.RRSIG.RRSIG,
    zone: dns.name.Name,
    key: dns.rdtypes.ANY.DNSKEY.DNSKEY,
    now: float,
) -> bool:
    """Say whether this key made this signature. What the library cannot read was not made by anybody."""
    keys: dict[dns.name.Name, dns.rdataset.Rdataset | dns.node.Node] = {
        zone: dns.rdataset.from_rdata(0, key),
    }
    try:
        dns.dnssec.validate_rrsig(rrset, signature, keys, now=now)
    except (dns.exception.DNSException, ValueError, IndexError, OverflowError):
        return False
    return True


def _verified(signature: dns.rdtypes.ANY.RRSIG.RRSIG, rrset: dns.rrset.RRset, now: float) -> Verified:
    ttl = min(rrset.ttl, signature.original_ttl, signature.expiration - now)
    labels = len(rrset.name.labels) - 1 - rrset.name.is_wild()
    return Verified(float(ttl), signature.labels, signature.labels < labels)
