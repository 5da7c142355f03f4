"""Reads an authoritative server's response: an answer, an alias, a referral, an absence, or nothing of use.

What counts is the zone that was asked: records outside of it are dropped, wherever they stand (RFC 2181 §5.4.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, replace
from enum import Enum

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from relay.resolver.recursion.delegation import Delegation, read_delegation
from relay.resolver.recursion.limits import RecursionLimits
from relay.resolver.upstream import Question

__all__ = ["Finding", "Kind", "cut_at", "is_below", "read_response"]

_KEPT = frozenset({dns.rdatatype.SOA, dns.rdatatype.NSEC, dns.rdatatype.NSEC3, dns.rdatatype.RRSIG})


class Kind(Enum):
    """What a response is."""

    ANSWER = "answer"
    "Records of the name and type, at the end of any aliases."
    ALIAS = "alias"
    "The name is an alias, and the zone does not say what of."
    REFERRAL = "referral"
    "The name is in a zone below."
    NO_DATA = "no data"
    "The name has no such records."
    NAME_ERROR = "name error"
    "The name does not exist."
    LAME = "lame"
    "The server does not serve the zone, or talks nonsense."
    FAILED = "failed"
    "The server could not answer just now."


@dataclass(frozen=True, slots=True, repr=False)
class Finding:
    """A response, read."""

    kind: Kind
    "What it is."
    end: dns.name.Name
    "The name at the end of the aliases in it."
    answer: tuple[dns.rrset.RRset, ...] = ()
    "The records on the way and at the end, with their signatures."
    authority: tuple[dns.rrset.RRset, ...] = ()
    "What speaks of absence: SOA, NSEC, NSEC3, with signatures."
    delegation: Delegation | None = None
    "Of a referral, where to."
    hops: int = 0
    "How many aliases the answer holds."


def read_response(
    response: dns.message.Message,
    zone: dns.name.Name,
    question: Question,
    limits: RecursionLimits,
) -> Finding:
    """Read a response whose id and question were checked.

    Args:
        response: what a server said.
        zone: the zone that it was asked as a server of.
        question: what it was asked.
        limits: what is followed and kept.
    """
    name, rdtype = question.name, question.rdtype
    lame = Finding(Kind.LAME, name)
    rcode = response.rcode()
    if rcode == dns.rcode.SERVFAIL:
        return Finding(Kind.FAILED, name)
    if rcode not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
        return lame
    if not response.flags & dns.flags.AA:
        return _read_referral(response, zone, name, limits) or lame
    inside = [rrset for rrset in response.answer if _is_inside(rrset, zone)]
    chain, end = _follow(inside, name, rdtype, limits.aliases)
    authority = tuple(rrset for rrset in response.authority if rrset.rdtype in _KEPT and _is_inside(rrset, zone))
    answer = tuple(_with_signatures(inside, chain))
    is_found = bool(chain) and chain[-1].rdtype == rdtype and chain[-1].name == end
    hops = len([rrset for rrset in chain if rrset.rdtype == dns.rdatatype.CNAME and rrset.rdtype != rdtype])
    if is_found:
        return Finding(Kind.ANSWER, end, answer, authority, hops=hops)
    if chain:
        return Finding(Kind.ALIAS, end, answer, authority, hops=hops)
    if response.answer and not inside:
        return lame
    if rcode == dns.rcode.NXDOMAIN:
        return Finding(Kind.NAME_ERROR, name, (), authority)
    return _read_referral(response, zone, name, limits) or Finding(Kind.NO_DATA, name, (), authority)


def is_below(name: dns.name.Name, domains: Set[dns.name.Name]) -> bool:
    """Say whether a name is in one of these domains."""
    return any(name.is_subdomain(domain) for domain in domains)


def cut_at(finding: Finding, question: Question, domains: Set[dns.name.Name]) -> Finding:
    """End an answer with the first alias that leads into one of these domains, whatever follows it."""
    if question.rdtype == dns.rdatatype.CNAME or not domains:
        return finding
    hops = 0
    for place, rrset in enumerate(finding.answer):
        if rrset.rdtype != dns.rdatatype.CNAME:
            continue
        hops += 1
        if is_below(rrset[0].target, domains):
            kept = [*finding.answer[:place], *_with_signatures(list(finding.answer), [rrset])]
            return replace(finding, kind=Kind.ALIAS, end=rrset[0].target, answer=tuple(kept), hops=hops)
    return finding


def _read_referral(
    response: dns.message.Message, zone: dns.name.Name, name: dns.name.Name, limits: RecursionLimits
) -> Finding | None:
    """Read a referral to a zone below the one that was asked, at or above the name; any other is none."""
    if response.rcode() != dns.rcode.NOERROR or response.answer:
        return None
    for rrset in response.authority:
        if rrset.rdtype != dns.rdatatype.NS or not _is_inside(rrset, zone):
            continue
        if rrset.name != zone and name.is_subdomain(rrset.name):
            return Finding(Kind.REFERRAL, name, delegation=read_delegation(rrset, response, zone, limits))
    return None


def _is_inside(rrset: dns.rrset.RRset, zone: dns.name.Name) -> bool:
    return rrset.rdclass == dns.rdataclass.IN and rrset.name.is_subdomain(zone)


def _follow(
    inside: list[dns.rrset.RRset], name: dns.name.Name, rdtype: dns.rdatatype.RdataType, limit: int
) -> tuple[list[dns.rrset.RRset], dns.name.Name]:
    """Collect the records from a name to the end of its aliases, DNAME records included (RFC 6672 §3.2)."""
    by_key = {(rrset.name, rrset.rdtype): rrset for rrset in inside if rrset.rdtype != dns.rdatatype.RRSIG}
    # Nothing is below a renamed name (RFC 6672 §2.4), so an honest answer has no more of them than aliases.
    renamings = [rrset for rrset in inside if rrset.rdtype == dns.rdatatype.DNAME][: limit + 1]
    chain: list[dns.rrset.RRset] = []
    for _ in range(limit + 1):
        found = by_key.get((name, rdtype))
        if found is not None:
            return [*chain, found], name
        alias = by_key.get((name, dns.rdatatype.CNAME))
        if alias is None:
            break
        renaming = next((rrset for rrset in renamings if name.is_subdomain(rrset.name) and name != rrset.name), None)
        if renaming is not None and not any(rrset is renaming for rrset in chain):
            chain.append(renaming)
        chain.append(alias)
        name = alias[0].target
    return chain, name


def _with_signatures(inside: list[dns.rrset.RRset], chain: list[dns.rrset.RRset]) -> Iterable[dns.rrset.RRset]:
    for rrset in chain:
        yield rrset
        for other in inside:
            if other.rdtype == dns.rdatatype.RRSIG and other.name == rrset.name and other.covers == rrset.rdtype:
                yield other
