"""Validates responses: every record set of the answer, each alias on the way, and what is said not to exist.

RFC 4035 §5. A response is as good as its weakest part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import assert_never

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from relay.resolver.dnssec.anchors import TrustAnchors
from relay.resolver.dnssec.chain import TrustChain, Unsigned
from relay.resolver.dnssec.denial import Proof
from relay.resolver.dnssec.proofs import read_denial
from relay.resolver.dnssec.sets import SignedSet, find_set, read_sets, type_of
from relay.resolver.dnssec.signatures import Verifier, ZoneKeys
from relay.resolver.dnssec.verdict import BogusData, InfoCode, Security, Verdict
from relay.resolver.dnssec.work import ValidationLimits, Work
from relay.resolver.upstream import Asker, Question

__all__ = ["Validator"]

_SECURE = Verdict(Security.SECURE)
_CHAIN_ENTRIES = 10_000
"Zones and names whose place in the chain of trust is kept."
_DENYING = frozenset({dns.rdatatype.NSEC, dns.rdatatype.NSEC3, dns.rdatatype.SOA})
_PROOFS = frozenset({dns.rdatatype.NSEC, dns.rdatatype.NSEC3})
_META = frozenset({dns.rdatatype.ANY, dns.rdatatype.RRSIG})


class Validator:
    """Validates responses against trust anchors."""

    def __init__(
        self,
        asker: Asker,
        anchors: TrustAnchors,
        clock: Callable[[], float],
        limits: ValidationLimits | None = None,
        entries: int = _CHAIN_ENTRIES,
    ) -> None:
        """Make a validator that knows the anchors only.

        Args:
            asker: fetches DS and DNSKEY records; it must not validate by way of this validator.
            anchors: where trust starts.
            clock: the wall clock, in seconds since the epoch: signatures have dates.
            limits: the bounds of one question.
            entries: zones and names whose place in the chain of trust is kept.
        """
        self._limits = ValidationLimits() if limits is None else limits
        self._verifier = Verifier(self._limits, clock)
        self._anchors = anchors
        self._chain = TrustChain(asker, anchors, self._verifier, self._limits, entries)

    async def validate(
        self, question: Question, response: dns.message.Message, deadline: float, work: Work | None = None
    ) -> Verdict:
        """Judge a response. Record sets that hold get the TTL that their signatures allow (RFC 4035 §5.3.3).

        A response that may be believed loses the record sets that were not judged: the verdict is not about them.

        Args:
            question: what was asked, with DO and CD.
            response: what was answered: NOERROR or NXDOMAIN.
            deadline: when it must be over, on the loop's clock.
            work: counts what it costs; by default nobody looks at it.

        Returns:
            The verdict; never an exception for what the response holds.

        Raises:
            relay.errors.RelayError: a DS or DNSKEY record was not to be had in time.
        """
        judgement = _Judgement(
            response,
            self._anchors,
            self._verifier,
            self._chain,
            self._limits,
            Work(self._limits) if work is None else work,
            deadline,
        )
        if question.rdtype in _META:
            return Verdict(Security.INDETERMINATE, InfoCode.DNSSEC_INDETERMINATE)
        try:
            verdict = await judgement.judge(question.name, question.rdtype)
        except BogusData as error:
            return error.verdict
        judgement.drop_unjudged(response)
        return verdict


class _Judgement:
    """One response on its way to a verdict. All methods raise BogusData for what does not hold."""

    def __init__(
        self,
        response: dns.message.Message,
        anchors: TrustAnchors,
        verifier: Verifier,
        chain: TrustChain,
        limits: ValidationLimits,
        work: Work,
        deadline: float,
    ) -> None:
        self._is_name_error = response.rcode() == dns.rcode.NXDOMAIN
        self._answer = read_sets(response.answer, limits.signatures_per_set)
        self._authority = read_sets(response.authority, limits.signatures_per_set)
        has_soa = any(signed.rrset.rdtype == dns.rdatatype.SOA for signed in self._authority)
        self._is_partial = not self._is_name_error and not has_soa  # as the reader sees it, who asks on
        self._anchors = anchors
        self._verifier = verifier
        self._chain = chain
        self._limits = limits
        self._work = work
        self._deadline = deadline
        self._judged: set[tuple[dns.name.Name, dns.rdatatype.RdataType]] = set()

    def drop_unjudged(self, response: dns.message.Message) -> None:
        """Leave what the verdict is about, with its signatures, and the records that deny."""
        response.answer = [rrset for rrset in response.answer if self._is_judged(rrset)]
        response.authority = [
            rrset for rrset in response.authority if self._is_judged(rrset) or type_of(rrset) in _PROOFS
        ]

    def _is_judged(self, rrset: dns.rrset.RRset) -> bool:
        return rrset.rdclass == dns.rdataclass.IN and (rrset.name, type_of(rrset)) in self._judged

    async def judge(self, asked: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Verdict:
        """Follow the answer from the name that was asked to its end, or to an alias that it says no more of."""
        verdict, name = _SECURE, asked
        for _ in range(self._limits.aliases + 1):
            found = find_set(self._answer, name, rdtype)
            if found is not None:
                if self._is_name_error:
                    raise BogusData(InfoCode.DNSSEC_BOGUS)
                return _weaker(verdict, await self._judge_set(found))
            step = await self._follow(name, rdtype)
            if step is None and name != asked and self._is_partial:
                return verdict
            if step is None:
                return _weaker(verdict, await self._judge_absence(name, rdtype))
            name, judged = step
            verdict = _weaker(verdict, judged)
        raise BogusData(InfoCode.DNSSEC_BOGUS)

    async def _follow(
        self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType
    ) -> tuple[dns.name.Name, Verdict] | None:
        """Validate the alias at a name, CNAME or DNAME, and return where it leads; None when there is none."""
        for signed in self._answer:
            owner = signed.rrset.name
            if signed.rrset.rdtype == dns.rdatatype.DNAME and name.is_subdomain(owner) and name != owner:
                try:
                    target = name.relativize(owner).concatenate(signed.rrset[0].target)
                except dns.exception.DNSException:
                    raise BogusData(InfoCode.DNSSEC_BOGUS) from None
                made = find_set(self._answer, name, dns.rdatatype.CNAME)
                if made is None or made.rrset[0].target != target:
                    raise BogusData(InfoCode.DNSSEC_BOGUS)
                verdict = await self._judge_set(signed)
                made.rrset.ttl = min(made.rrset.ttl, signed.rrset.ttl)  # nobody signed it (RFC 6672 §5.3.1)
                self._judged.add((name, dns.rdatatype.CNAME))
                return target, verdict
        alias = find_set(self._answer, name, dns.rdatatype.CNAME)
        if alias is None:
            return None
        return alias.rrset[0].target, await self._judge_set(alias)

    async def _judge_set(self, signed: SignedSet) -> Verdict:
        """Validate records that are there (RFC 4035 §5.3)."""
        owner = signed.rrset.name
        self._judged.add((owner, signed.rrset.rdtype))
        is_parents = signed.rrset.rdtype == dns.rdatatype.DS and owner != dns.name.root
        place = owner.parent() if is_parents else owner
        signer = signed.signer(above=is_parents)
        if signer is not None and not self._anchors.may_sign(signer, place):
            signer = None
        trust = await self._chain.find(place if signer is None else signer, self._work, self._deadline)
        if isinstance(trust, Unsigned):
            return Verdict(Security.INSECURE, trust.info_code)
        if signer is None:
            raise BogusData(InfoCode.RRSIGS_MISSING)
        verified = await self._verifier.verify(signed, trust, self._work)
        signed.rrset.ttl = int(verified.ttl)
        if not verified.is_expanded:
            return _SECURE
        denial = await read_denial(self._authority, trust, self._verifier, self._limits, self._work)
        closest = owner.split(verified.labels + 1)[1]
        return _read_proof(denial.expansion(owner, closest))

    async def _judge_absence(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Verdict:
        """Validate that there is nothing (RFC 4035 §5.4)."""
        is_parents = rdtype == dns.rdatatype.DS and name != dns.name.root
        place = name.parent() if is_parents else name
        signer = self._denier(place)
        trust = await self._chain.find(place if signer is None else signer, self._work, self._deadline)
        if isinstance(trust, Unsigned):
            zones = [soa.rrset.name for soa in self._authority if soa.rrset.rdtype == dns.rdatatype.SOA]
            self._judged.update((zone, dns.rdatatype.SOA) for zone in zones if name.is_subdomain(zone))
            return Verdict(Security.INSECURE, trust.info_code)
        if signer is None:
            is_there = any(signed.rrset.rdtype in _DENYING for signed in self._authority)
            raise BogusData(InfoCode.RRSIGS_MISSING if is_there else InfoCode.NSEC_MISSING)
        await self._judge_soa(trust)
        denial = await read_denial(self._authority, trust, self._verifier, self._limits, self._work)
        return _read_proof(denial.name_error(name) if self._is_name_error else denial.no_data(name, rdtype))

    async def _judge_soa(self, zone: ZoneKeys) -> None:
        """Validate the SOA record: its TTL says how long an absence is kept (RFC 2308 §5)."""
        soa = find_set(self._authority, zone.zone, dns.rdatatype.SOA)
        if soa is not None:
            soa.rrset.ttl = int((await self._verifier.verify(soa, zone, self._work)).ttl)
            self._judged.add((zone.zone, dns.rdatatype.SOA))

    def _denier(self, name: dns.name.Name) -> dns.name.Name | None:
        """Return the deepest zone that says it signed the authority section and that the name is in."""
        zones: Sequence[dns.name.Name] = [
            zone
            for signed in self._authority
            if signed.rrset.rdtype in _DENYING and (zone := signed.signer()) is not None
            if name.is_subdomain(zone) and self._anchors.may_sign(zone, name)
        ]
        return max(zones, key=len) if zones else None


def _weaker(one: Verdict, other: Verdict) -> Verdict:
    return one if one.security is Security.INSECURE else other


def _read_proof(proof: Proof) -> Verdict:
    match proof:
        case Proof.PROVEN:
            return _SECURE
        case Proof.OPT_OUT:
            return Verdict(Security.INSECURE)
        case Proof.TOO_COSTLY:
            return Verdict(Security.INSECURE, InfoCode.UNSUPPORTED_NSEC3_ITERATIONS)
        case Proof.UNPROVEN:
            raise BogusData(InfoCode.NSEC_MISSING)
        case _:
            assert_never(proof)
