"""Reads a DNS response: addresses, aliases, how long they hold, or why there are none.

RFC 1034 §3.6.2 (aliases), RFC 2308 (negative answers), RFC 8914 (extended errors), RFC 9520 (failures).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import islice

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.name import Name
from dns.rdata import Rdata

from masque.target import IPAddress
from relay.errors import Failure, FailureKind, Side
from relay.resolver.upstream import Question

__all__ = [
    "FAILURE_TTL",
    "MAX_ADDRESSES",
    "MAX_ALIASES",
    "MAX_RECORDS",
    "NEGATIVE_TTL",
    "Reading",
    "failed_reading",
    "joined_reading",
    "read_answer",
]

MAX_ALIASES = 8
"The longest chain of CNAME records that is followed."
MAX_ADDRESSES = 8
"Addresses of a family that are kept; whoever owns a name may give it thousands, and each would be tried."
MAX_RECORDS = 32
"Records of any other type that are kept."
NEGATIVE_TTL = 300.0
"Seconds that a name's absence is believed at most, whatever its zone says."
FAILURE_TTL = 5.0
"Seconds that a failure to resolve is remembered (RFC 9520 §3.2: 1 second to 5 minutes)."

_FINAL = frozenset({dns.rcode.NOERROR, dns.rcode.NXDOMAIN})
_BOGUS = frozenset(range(5, 13))
"DNSSEC Indeterminate to NSEC Missing (RFC 8914 §4.6 to §4.13)."
_SIZE = 900
"Bytes of a reading with its failure or its first address, its entry in the cache, and the key."
_ADDRESS_SIZE = 130
_RECORD_SIZE = 400
_TEXT_SIZE = 60


@dataclass(frozen=True, slots=True, repr=False)
class Reading:
    """What is known about a question: an answer, read."""

    addresses: tuple[IPAddress, ...] = ()
    "The addresses that A or AAAA was asked for; empty when there is a failure."
    records: tuple[Rdata, ...] = ()
    "The records of any other type; empty when there is a failure."
    aliases: tuple[str, ...] = ()
    """The names that the asked one is an alias of, in order (RFC 9532 §2). A dot inside a label and a backslash have
    a backslash before them."""
    failure: Failure | None = None
    "Why there are no records."
    ttl: float = 0.0
    "How long this holds, in seconds, before the operator's bounds."
    goes_on: Name | None = None
    "The last alias, when the answer ended there without saying what it stands for."
    chain_ttl: float = math.inf
    "How long the aliases hold, when the answer goes on."
    is_authenticated: bool = False
    "Whether DNSSEC vouches for it: validated here, or by an upstream that is trusted to."

    @property
    def is_final(self) -> bool:
        """Whether another upstream has nothing to add: there are records, or surely none."""
        return self.failure is None or self.failure.rcode in {"NXDOMAIN", "NODATA"}

    @property
    def is_bogus(self) -> bool:
        """Whether a validator refused what was said (RFC 8914 §4): then no older answer may do instead."""
        return self.failure is not None and self.failure.info_code in _BOGUS

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, as estimated."""
        records = sum(_RECORD_SIZE + len(record.to_wire() or b"") for record in self.records)
        return (
            _SIZE
            + len(self.addresses) * _ADDRESS_SIZE
            + records
            + sum(_TEXT_SIZE + len(text) for text in self.aliases)
        )


def failed_reading(kind: FailureKind, rcode: str | None = None, info_code: int | None = None) -> Reading:
    """Return the reading for a question that could not be resolved."""
    return Reading(failure=Failure(kind, Side.TARGET, rcode=rcode, info_code=info_code), ttl=FAILURE_TTL)


def read_answer(response: dns.message.Message, question: Question) -> Reading:
    """Read a response whose id and question were checked.

    Args:
        response: what an upstream said.
        question: what it was asked.

    Returns:
        The first few records at the end of the chain of aliases; or a failure DNS_ERROR with the response code,
        `NODATA` when the name has no record of this type, and no code when the chain is too long.
    """
    rcode = response.rcode()
    info_code = next((int(error.code) for error in response.extended_errors()), None)
    if rcode not in _FINAL:
        return failed_reading(FailureKind.DNS_ERROR, dns.rcode.to_text(rcode), info_code)
    end = question.name
    chain: list[dns.rrset.RRset] = []
    for alias in _chain(response, question.name, question.rdtype):
        if len(chain) == MAX_ALIASES:
            return failed_reading(FailureKind.DNS_ERROR)
        chain.append(alias)
        end = _alias_of(alias)
    aliases = tuple(_text(_alias_of(alias)) for alias in chain)
    chain_ttl = min((float(alias.ttl) for alias in chain), default=math.inf)
    found = _rrset(response, end, question.rdtype)
    if found is None or rcode == dns.rcode.NXDOMAIN:
        absence = "NXDOMAIN" if rcode == dns.rcode.NXDOMAIN else "NODATA"
        failure = Failure(FailureKind.DNS_ERROR, Side.TARGET, rcode=absence, info_code=info_code)
        says_more = rcode == dns.rcode.NXDOMAIN or not chain or _soa(response) is not None
        return Reading(
            aliases=aliases,
            failure=failure,
            ttl=min(_negative_ttl(response), chain_ttl),
            goes_on=None if says_more else end,
            chain_ttl=chain_ttl,
        )
    ttl = min(float(found.ttl), chain_ttl)
    if question.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
        addresses = tuple(dict.fromkeys(ip_address(record.address) for record in islice(found, MAX_ADDRESSES)))
        return Reading(addresses, aliases=aliases, ttl=ttl)
    return Reading(records=tuple(islice(found, MAX_RECORDS)), aliases=aliases, ttl=ttl)


def joined_reading(first: Reading, second: Reading) -> Reading:
    """Put an answer whose chain of aliases ended too early before the answer for its end."""
    aliases = (*first.aliases, *second.aliases)
    if len(aliases) > MAX_ALIASES:
        return failed_reading(FailureKind.DNS_ERROR)
    ttl = min(first.chain_ttl, second.ttl) if second.is_final else second.ttl
    chain_ttl = min(first.chain_ttl, second.chain_ttl)
    is_authenticated = first.is_authenticated and second.is_authenticated
    return replace(second, aliases=aliases, ttl=ttl, chain_ttl=chain_ttl, is_authenticated=is_authenticated)


def _chain(
    response: dns.message.Message, name: dns.name.Name, rdtype: dns.rdatatype.RdataType
) -> Iterator[dns.rrset.RRset]:
    """Yield the CNAME records from a name on; a loop yields forever, so the caller counts.

    Where there are records of the type that was asked for, an alias beside them is none: a validator has looked at
    the records, and not at it.
    """
    while _rrset(response, name, rdtype) is None:
        alias = _rrset(response, name, dns.rdatatype.CNAME)
        if alias is None:
            return
        yield alias
        name = _alias_of(alias)


def _alias_of(alias: dns.rrset.RRset) -> dns.name.Name:
    target: dns.name.Name = alias[0].target
    return target


def _rrset(
    response: dns.message.Message, name: dns.name.Name, rdtype: dns.rdatatype.RdataType
) -> dns.rrset.RRset | None:
    """Find records of the answer section as it is: the message's own index still has what was dropped from it."""
    for rrset in response.answer:
        if rrset.match(name, dns.rdataclass.IN, rdtype, dns.rdatatype.NONE):
            return rrset
    return None


def _text(name: dns.name.Name) -> str:
    labels = (label.lower().decode("latin-1") for label in name.labels if label)
    return ".".join(label.replace("\\", r"\\").replace(".", r"\.") for label in labels)


def _soa(response: dns.message.Message) -> dns.rrset.RRset | None:
    """Find the record that makes an absence of an empty answer (RFC 2308 §2.2); one of another class does not."""
    for rrset in response.authority:
        if rrset.rdtype == dns.rdatatype.SOA and rrset.rdclass == dns.rdataclass.IN:
            return rrset
    return None


def _negative_ttl(response: dns.message.Message) -> float:
    """Return how long an absence holds: the SOA's own TTL and its minimum bound it (RFC 2308 §5)."""
    soa = _soa(response)
    return FAILURE_TTL if soa is None else float(min(soa.ttl, soa[0].minimum, NEGATIVE_TTL))
