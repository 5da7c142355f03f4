"""Reads a DNS response: addresses, aliases, how long they hold, or why there are none.

RFC 1034 §3.6.2 (aliases), RFC 2308 (negative answers), RFC 8914 (extended errors), RFC 9520 (failures).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import islice

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from masque.target import IPAddress
from relay.errors import Failure, FailureKind, Side
from relay.resolver.upstream import Question

__all__ = [
    "FAILURE_TTL",
    "MAX_ADDRESSES",
    "MAX_ALIASES",
    "NEGATIVE_TTL",
    "Reading",
    "failed_reading",
    "read_answer",
]

MAX_ALIASES = 8
"The longest chain of CNAME records that is followed."
MAX_ADDRESSES = 8
"Addresses of a family that are kept; whoever owns a name may give it thousands, and each would be tried."
NEGATIVE_TTL = 300.0
"Seconds that a name's absence is believed at most, whatever its zone says."
FAILURE_TTL = 5.0
"Seconds that a failure to resolve is remembered (RFC 9520 §3.2: 1 second to 5 minutes)."

_FINAL = frozenset({dns.rcode.NOERROR, dns.rcode.NXDOMAIN})


@dataclass(frozen=True, slots=True, repr=False)
class Reading:
    """What is known about a question: an answer, read."""

    addresses: tuple[IPAddress, ...] = ()
    "The addresses; empty when there is a failure."
    aliases: tuple[str, ...] = ()
    "The names that the asked one is an alias of, in order (RFC 9532 §2)."
    failure: Failure | None = None
    "Why there are no addresses."
    ttl: float = 0.0
    "How long this holds, in seconds, before the operator's bounds."

    @property
    def is_final(self) -> bool:
        """Whether another upstream has nothing to add: there are addresses, or surely none."""
        return self.failure is None or self.failure.rcode in {"NXDOMAIN", "NODATA"}


def failed_reading(kind: FailureKind, rcode: str | None = None, info_code: int | None = None) -> Reading:
    """Return the answer for a question that could not be resolved."""
    return Reading(failure=Failure(kind, Side.TARGET, rcode=rcode, info_code=info_code), ttl=FAILURE_TTL)


def read_answer(response: dns.message.Message, question: Question) -> Reading:
    """Read a response whose id and question were checked.

    Args:
        response: what an upstream said.
        question: what it was asked.

    Returns:
        The first few addresses at the end of the chain of aliases; or a failure DNS_ERROR with the response code,
        `NODATA` when the name has no record of this type, and no code when the chain is too long.
    """
    rcode = response.rcode()
    info_code = next((int(error.code) for error in response.extended_errors()), None)
    if rcode not in _FINAL:
        return failed_reading(FailureKind.DNS_ERROR, dns.rcode.to_text(rcode), info_code)
    end = question.name
    chain: list[dns.rrset.RRset] = []
    for alias in _chain(response, question.name):
        if len(chain) == MAX_ALIASES:
            return failed_reading(FailureKind.DNS_ERROR)
        chain.append(alias)
        end = _alias_of(alias)
    found = _rrset(response, end, question.rdtype)
    if found is None or rcode == dns.rcode.NXDOMAIN:
        absence = "NXDOMAIN" if rcode == dns.rcode.NXDOMAIN else "NODATA"
        failure = Failure(FailureKind.DNS_ERROR, Side.TARGET, rcode=absence, info_code=info_code)
        return Reading(failure=failure, ttl=_negative_ttl(response))
    addresses = tuple(dict.fromkeys(ip_address(record.address) for record in islice(found, MAX_ADDRESSES)))
    aliases = tuple(_alias_of(alias).to_text(omit_final_dot=True).lower() for alias in chain)
    return Reading(addresses, aliases, ttl=float(min(rrset.ttl for rrset in (*chain, found))))


def _chain(response: dns.message.Message, name: dns.name.Name) -> Iterator[dns.rrset.RRset]:
    """Yield the CNAME records from a name on; a loop yields forever, so the caller counts."""
    while (alias := _rrset(response, name, dns.rdatatype.CNAME)) is not None:
        yield alias
        name = _alias_of(alias)


def _alias_of(alias: dns.rrset.RRset) -> dns.name.Name:
    target: dns.name.Name = alias[0].target
    return target


def _rrset(
    response: dns.message.Message, name: dns.name.Name, rdtype: dns.rdatatype.RdataType
) -> dns.rrset.RRset | None:
    return response.get_rrset(response.answer, name, dns.rdataclass.IN, rdtype)


def _negative_ttl(response: dns.message.Message) -> float:
    """Return how long an absence holds: the SOA's own TTL and its minimum bound it (RFC 2308 §5)."""
    for rrset in response.authority:
        if rrset.rdtype == dns.rdatatype.SOA:
            return float(min(rrset.ttl, rrset[0].minimum, NEGATIVE_TTL))
    return FAILURE_TTL
