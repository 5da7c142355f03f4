"""The chain of trust: from an anchor, zone by zone, to the keys for a name or to the proof that there are none.

One step asks a validated zone for the DS records of the next name. There are four outcomes (RFC 4035 §5.2): keys,
a zone that is not signed, no zone cut, no such name. Each is kept for as long as the records behind it hold, and a
step that many questions need at once is made once.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TypeAlias, assert_never

import dns.dnssec
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rdtypes.ANY.DNSKEY
import dns.rdtypes.ANY.DS
import dns.rrset

from relay.resolver.dnssec.algorithms import has_zone_flag, usable_ds, why_unusable
from relay.resolver.dnssec.anchors import TrustAnchors
from relay.resolver.dnssec.denial import Cut
from relay.resolver.dnssec.proofs import read_denial
from relay.resolver.dnssec.sets import find_set, read_sets
from relay.resolver.dnssec.signatures import Verifier, ZoneKeys, zone_keys
from relay.resolver.dnssec.verdict import BogusData, InfoCode, Security
from relay.resolver.dnssec.work import ValidationLimits, Work, WorkSpent
from relay.resolver.keyed import KeyedLock
from relay.resolver.sized import SizedMap, size_of_name
from relay.resolver.upstream import Asker, Question

__all__ = ["TrustChain", "Unsigned"]

_MAX_TTL = 86_400.0
"Seconds that a zone's keys are kept at most, whatever their TTL."
_MAX_ABSENCE_TTL = 3600.0
"Seconds that the absence of a DS record is kept at most."
_MIN_TTL = 1.0
"Seconds that a step is kept at least: what one question needs twice."
_FAILURE_TTL = 5.0
"Seconds that a broken chain is remembered (RFC 9520 §3.2)."
_MAX_DS = 8
_SIZE = 3 << 20
"Bytes that steps may take, as estimated: thousands of names, or a hundred zones with as many keys as may be."
_STEP_SIZE = 250
_KEY_SIZE = 450
_FINAL = frozenset({dns.rcode.NOERROR, dns.rcode.NXDOMAIN})


@dataclass(frozen=True, slots=True)
class Unsigned:
    """The chain ends in a zone that is proven to need no signatures, or that we cannot follow."""

    info_code: InfoCode | None = None
    "Why, where there is a code for that."


class _Same(Enum):
    """A name that is no zone of its own."""

    NO_CUT = "no cut"
    NO_NAME = "no name"


_Step: TypeAlias = ZoneKeys | Unsigned | _Same | BogusData


class TrustChain:
    """Finds the keys of zones. Bounded in what it keeps; what one question costs is counted in its `Work`."""

    def __init__(
        self,
        asker: Asker,
        anchors: TrustAnchors,
        verifier: Verifier,
        limits: ValidationLimits,
        entries: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with nothing but the anchors.

        Args:
            asker: fetches DS and DNSKEY records.
            anchors: where trust starts.
            verifier: checks signatures.
            limits: the bounds of one question.
            entries: steps that are kept, or fewer when their keys are long; the least recently used goes first.
            clock: what the TTLs are taken from.
        """
        self._asker = asker
        self._anchors = anchors
        self._verifier = verifier
        self._limits = limits
        self._steps: SizedMap[dns.name.Name, _Step] = SizedMap(entries, _SIZE, _size_of)
        self._turns = KeyedLock()
        self._clock = clock

    async def find(self, name: dns.name.Name, work: Work, deadline: float) -> ZoneKeys | Unsigned:
        """Find the keys of the zone that a name is in.

        Args:
            name: a name; at a zone cut, the zone below is meant.
            work: what the question has cost.
            deadline: when it must be over, on the loop's clock.

        Raises:
            BogusData: the chain is broken, cannot be had, or the question has cost enough.
            relay.errors.RelayError: an answer was not to be had in time.
        """
        anchor = self._anchors.closest(name)
        if anchor is None:
            return Unsigned(InfoCode.DNSSEC_INDETERMINATE)
        if self._anchors.is_unsigned(name):  # before anybody is asked: parents may say that there is no such name
            return Unsigned()
        trust = await self._step(anchor, partial(self._start, anchor, work, deadline))
        for below in _between(anchor, name):
            if not isinstance(trust, ZoneKeys):
                break
            step = await self._step(below, partial(self._cross, below, trust, work, deadline))
            if step is _Same.NO_NAME:
                break
            if step is not _Same.NO_CUT:
                trust = step
        if isinstance(trust, ZoneKeys | Unsigned):
            return trust
        raise BogusData(InfoCode.DNSSEC_BOGUS)

    async def _step(self, name: dns.name.Name, make: Callable[[], Awaitable[tuple[_Step, float]]]) -> _Step:
        """Return what is known of a step, or make it."""
        step = self._steps.get(name, self._clock())
        if step is None:
            async with self._turns.hold(name):
                step = self._steps.get(name, self._clock()) or await self._make(name, make)
        if isinstance(step, BogusData):
            raise step.anew()
        return step

    async def _make(self, name: dns.name.Name, make: Callable[[], Awaitable[tuple[_Step, float]]]) -> _Step:
        """Make a step and keep it, unless the question had cost enough: that says nothing of the step."""
        try:
            step, ttl = await make()
        except WorkSpent:
            raise
        except BogusData as error:
            step, ttl = error.anew(), _FAILURE_TTL
        self._steps.put(name, step, min(max(ttl, _MIN_TTL), _MAX_TTL), self._clock())
        return step

    async def _start(self, anchor: dns.name.Name, work: Work, deadline: float) -> tuple[_Step, float]:
        return await self._enter(anchor, self._anchors.keys[anchor], _MAX_TTL, work, deadline)

    async def _cross(self, name: dns.name.Name, parent: ZoneKeys, work: Work, deadline: float) -> tuple[_Step, float]:
        """Ask a zone what it says of a name below it."""
        response = await self._fetch(name, dns.rdatatype.DS, work, deadline)
        answer = read_sets(response.answer, self._limits.signatures_per_set)
        delegation = find_set(answer, name, dns.rdatatype.DS)
        if delegation is not None:
            verified = await self._verifier.verify(delegation, parent, work)
            if verified.is_expanded:
                raise BogusData(InfoCode.DNSSEC_BOGUS)
            return await self._enter(name, tuple(delegation.rrset), verified.ttl, work, deadline)
        alias = find_set(answer, name, dns.rdatatype.CNAME)
        if alias is not None:
            return _Same.NO_CUT, (await self._verifier.verify(alias, parent, work)).ttl
        authority = read_sets(response.authority, self._limits.signatures_per_set)
        denial = await read_denial(authority, parent, self._verifier, self._limits, work)
        ttl = min((float(signed.rrset.ttl) for signed in authority), default=0.0)
        return _outcome(denial.cut(name)), min(ttl, _MAX_ABSENCE_TTL)

    async def _enter(
        self,
        zone: dns.name.Name,
        delegation: tuple[dns.rdtypes.ANY.DS.DS, ...],
        ttl: float,
        work: Work,
        deadline: float,
    ) -> tuple[_Step, float]:
        """Fetch a zone's keys and check them against its DS records (RFC 4035 §5.2)."""
        usable = usable_ds(delegation)[:_MAX_DS]
        if not usable:
            return Unsigned(why_unusable(delegation)), ttl
        response = await self._fetch(zone, dns.rdatatype.DNSKEY, work, deadline)
        keys = find_set(read_sets(response.answer, self._limits.signatures_per_set), zone, dns.rdatatype.DNSKEY)
        if keys is None or len(keys.rrset) > self._limits.keys:
            raise BogusData(InfoCode.DNSKEY_MISSING)
        if not any(has_zone_flag(key) for key in keys.rrset):
            raise BogusData(InfoCode.NO_ZONE_KEY_BIT_SET)
        found = zone_keys(zone, keys.rrset)
        named = tuple((tag, key) for tag, key in found.keys if any(_is_named(zone, tag, key, ds) for ds in usable))
        if not named:
            raise BogusData(InfoCode.DNSKEY_MISSING)
        verified = await self._verifier.verify(keys, ZoneKeys(zone, named), work)
        return found, min(ttl, verified.ttl)

    async def _fetch(
        self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, work: Work, deadline: float
    ) -> dns.message.Message:
        work.add_fetch()
        answer = await self._asker.ask(Question(name, rdtype, do=True, cd=True), deadline)
        if answer.message.rcode() not in _FINAL:
            raise BogusData(InfoCode.NETWORK_ERROR, Security.INDETERMINATE)
        return answer.message


def _between(zone: dns.name.Name, name: dns.name.Name) -> Iterator[dns.name.Name]:
    """Yield the names from below a zone down to a name, one label at a time."""
    for labels in range(len(zone.labels) + 1, len(name.labels) + 1):
        yield name.split(labels)[1]


def _size_of(name: dns.name.Name, step: _Step) -> int:
    if not isinstance(step, ZoneKeys):
        return size_of_name(name) + _STEP_SIZE
    return size_of_name(name) + _STEP_SIZE + sum(_KEY_SIZE + len(key.key) for _, key in step.keys)


def _is_named(zone: dns.name.Name, tag: int, key: dns.rdtypes.ANY.DNSKEY.DNSKEY, ds: dns.rdtypes.ANY.DS.DS) -> bool:
    """Say whether a DS record means this zone key."""
    if key.algorithm != ds.algorithm or tag != ds.key_tag:
        return False
    try:
        made = dns.dnssec.make_ds(zone, key, ds.digest_type, validating=True)
    except dns.exception.DNSException:
        return False
    return made.digest == ds.digest


def _outcome(cut: Cut) -> _Step:
    match cut:
        case Cut.UNSIGNED:
            return Unsigned()
        case Cut.TOO_COSTLY:
            return Unsigned(InfoCode.UNSUPPORTED_NSEC3_ITERATIONS)
        case Cut.NONE:
            return _Same.NO_CUT
        case Cut.NO_NAME:
            return _Same.NO_NAME
        case Cut.UNPROVEN:
            raise BogusData(InfoCode.NSEC_MISSING)
        case _:
            assert_never(cut)
