"""The iterative resolver: from the root down, zone by zone, to the servers that know (RFC 1034 §5.3.3).

It needs no upstream and believes no one but the servers of the zone that it is asking. It keeps delegations and what
it learns of servers; answers are kept by whoever asks it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_address

import anyio
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from masque.target import IPAddress
from relay.errors import Failure, FailureKind, RelayError, Side
from relay.resolver.keyed import KeyedLock
from relay.resolver.recursion.delegation import Delegation, DelegationCache, read_delegation
from relay.resolver.recursion.limits import NoAuthority, RecursionLimits, Spending, spending_for
from relay.resolver.recursion.minimise import next_name
from relay.resolver.recursion.reach import Reach
from relay.resolver.recursion.reading import Finding, Kind, cut_at, is_below
from relay.resolver.recursion.servers import ServerBook
from relay.resolver.recursion.zones import ZoneServers
from relay.resolver.sized import ADDRESS_SIZE, SizedMap, size_of_name
from relay.resolver.upstream import Answer, Question
from relay.telemetry import Metrics, NoMetrics

__all__ = ["Recursor"]

_DNS_PORT = 53
_ENTRIES = 10_000
"Zones, servers and servers' addresses that are remembered, each; fewer when they take more bytes than they may."
_ADDRESSES_SIZE = 1 << 20
"Bytes that servers' addresses may take, as estimated."
_NO_AUTHORITY = 22
"No Reachable Authority (RFC 8914 §4.23)."
_UNPRIMED_TTL = 60.0
"Seconds until root servers that did not say who they are are asked again."
_MAX_ADDRESS_TTL = 86_400.0
_MIN_ADDRESS_TTL = 30.0
_DENIALS = frozenset({dns.rdatatype.NSEC, dns.rdatatype.NSEC3, dns.rdatatype.RRSIG})


@dataclass(slots=True, repr=False)
class _Journey:
    """One name on its way: what it has found so far."""

    question: Question
    spending: Spending
    looked_up: frozenset[dns.name.Name] = frozenset()
    "Servers whose addresses are being looked up, this look-up's own included: a loop would come back to one."
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR
    answer: list[dns.rrset.RRset] = field(default_factory=list)
    authority: list[dns.rrset.RRset] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Keep a finding's records; of the authority section's, only proofs outlast the next alias."""
        self.drop_soa()
        self.authority += [rrset for rrset in finding.authority if rrset not in self.authority]
        self.answer += [rrset for rrset in finding.answer if rrset not in self.answer]

    def drop_soa(self) -> None:
        """Keep the proofs alone: the answer ends with an alias, and says nothing of what it leads to."""
        self.authority = [rrset for rrset in self.authority if rrset.rdtype in _DENIALS]


class Recursor:
    """Answers questions by asking authoritative servers. An asker; it does not validate."""

    def __init__(
        self,
        hints: Delegation,
        *,
        limits: RecursionLimits | None = None,
        metrics: Metrics | None = None,
        port: int = _DNS_PORT,
        entries: int = _ENTRIES,
        routed: Iterable[dns.name.Name] = (),
    ) -> None:
        """Make a resolver that knows the hints only.

        Args:
            hints: root servers. When one of them is not globally reachable, as in a network of one's own, no server
                needs to be; otherwise servers at other addresses are not asked, whoever names them.
            limits: the bounds of one question.
            metrics: where queries are counted.
            port: of all servers.
            entries: zones, servers and servers' addresses that are remembered, each.
            routed: domains that others are asked for. An alias that leads into one ends the answer: whoever asks
                goes on from there.
        """
        self._hints = hints
        self._limits = RecursionLimits() if limits is None else limits
        roots = [address for addresses in hints.servers.values() for address in addresses]
        self._reach = Reach(roots)
        self._zones = ZoneServers(
            ServerBook(entries, self._limits), self._limits, metrics or NoMetrics(), port, self._reach.may_ask
        )
        self._delegations = DelegationCache(entries)
        self._addresses: SizedMap[dns.name.Name, tuple[IPAddress, ...]] = SizedMap(
            entries, _ADDRESSES_SIZE, lambda name, found: size_of_name(name) + ADDRESS_SIZE * len(found)
        )
        self._turns = KeyedLock()
        self._routed = frozenset(routed)

    async def ask(self, question: Question, deadline: float) -> Answer:
        """Find the answer to a question.

        Args:
            question: what to ask; with `do`, signatures and proofs come along.
            deadline: when this must be over, on the loop's clock.

        Returns:
            NOERROR or NXDOMAIN, aliases followed.

        Raises:
            relay.errors.RelayError: DNS_TIMEOUT; DNS_ERROR with SERVFAIL when no server gave a usable answer or the
                question has cost enough.
        """
        journey = _Journey(question, spending_for(self._limits))
        try:
            with anyio.fail_after(deadline - anyio.current_time()):
                await self._resolve(journey)
        except TimeoutError:
            raise RelayError(Failure(FailureKind.DNS_TIMEOUT, Side.TARGET)) from None
        except NoAuthority:
            failure = Failure(FailureKind.DNS_ERROR, Side.TARGET, rcode="SERVFAIL", info_code=_NO_AUTHORITY)
            raise RelayError(failure) from None
        return Answer(_write(journey))

    async def _resolve(self, journey: _Journey) -> None:
        """Follow aliases until the name at the end is answered."""
        question, hops = journey.question, 0
        while True:
            finding = cut_at(await self._find(question, journey), question, self._routed)
            journey.add(finding)
            hops += finding.hops
            if finding.kind is not Kind.ALIAS:
                is_name_error = finding.kind is Kind.NAME_ERROR
                journey.rcode = dns.rcode.NXDOMAIN if is_name_error else dns.rcode.NOERROR
                return
            if hops > self._limits.aliases:
                raise NoAuthority
            if is_below(finding.end, self._routed):
                journey.drop_soa()
                return
            question = replace(question, name=finding.end)

    async def _find(self, question: Question, journey: _Journey) -> Finding:
        """Go down from the deepest known zone until one of its servers answers for the whole name."""
        delegation = await self._start(question, journey)
        shown, steps = delegation.zone, 0
        for _ in range(self._limits.referrals + self._limits.minimised):
            target = next_name(shown, question.name, steps, self._limits)
            is_whole = target == question.name
            part = question if is_whole else Question(target, dns.rdatatype.A)
            try:
                finding, _response = await self._ask_zone(delegation, part, journey)
            except NoAuthority:
                if is_whole:
                    raise
                steps = self._limits.minimised  # some servers fail at names in between: show all (RFC 9156 §2.3)
                continue
            if finding.delegation is not None:
                delegation = finding.delegation
                if delegation.zone == question.name and question.rdtype == dns.rdatatype.DS:
                    raise NoAuthority  # the parent's servers must answer for DS (RFC 4035 §3.1.4.1)
                self._delegations.put(delegation, anyio.current_time())
                shown = delegation.zone
            elif is_whole:
                return finding
            elif finding.kind is Kind.NAME_ERROR:
                steps = self._limits.minimised  # the same: an empty name may be denied by mistake
            else:
                shown, steps = target, steps + 1
        raise NoAuthority

    async def _start(self, question: Question, journey: _Journey) -> Delegation:
        """Return the deepest known zone that a question may be asked of: for DS, the parent's."""
        is_parents = question.rdtype == dns.rdatatype.DS and question.name != dns.name.root
        name = question.name.parent() if is_parents else question.name
        found = self._delegations.closest(name, anyio.current_time())
        return await self._prime(journey) if found is None else found

    async def _prime(self, journey: _Journey) -> Delegation:
        """Ask a root server for the root's servers (RFC 8109). The hints do when none of them answers usefully."""
        async with self._turns.hold(dns.name.root):
            found = self._delegations.closest(dns.name.root, anyio.current_time())
            if found is not None:
                return found
            question = Question(dns.name.root, dns.rdatatype.NS)
            primed = replace(self._hints, ttl=_UNPRIMED_TTL)
            try:
                finding, response = await self._ask_zone(self._hints, question, journey)
            except NoAuthority:
                if journey.spending.is_spent:
                    raise  # says nothing of the servers
            else:
                for rrset in finding.answer:
                    if rrset.rdtype == dns.rdatatype.NS and rrset.name == dns.name.root:
                        listed = read_delegation(rrset, response, dns.name.root, self._limits)
                        if any(self._reach.may_ask(one) for found in listed.servers.values() for one in found):
                            primed = listed
            self._delegations.put(primed, anyio.current_time())
            return primed

    async def _ask_zone(
        self, delegation: Delegation, question: Question, journey: _Journey
    ) -> tuple[Finding, dns.message.Message]:
        find_addresses = partial(self._find_addresses, journey=journey)
        return await self._zones.ask(delegation, question, journey.spending, find_addresses)

    async def _find_addresses(self, server: dns.name.Name, journey: _Journey) -> tuple[IPAddress, ...]:
        """Look up a server's addresses, on the account of the question that needs them."""
        found = self._addresses.get(server, anyio.current_time())
        if found is not None:
            return found
        if server in journey.looked_up or len(journey.looked_up) >= self._limits.depth:
            return ()
        ttl = _MIN_ADDRESS_TTL
        found = ()
        for rdtype in self._reach.types:
            inner = _Journey(Question(server, rdtype), journey.spending, journey.looked_up | {server})
            try:
                await self._resolve(inner)
            except NoAuthority:
                continue
            for rrset in inner.answer:
                if rrset.rdtype == rdtype:
                    found = tuple(ip_address(record.address) for record in list(rrset)[: self._limits.addresses])
                    ttl = max(ttl, min(float(rrset.ttl), _MAX_ADDRESS_TTL))
            if found or inner.rcode == dns.rcode.NXDOMAIN:
                break
        if found or not (journey.looked_up or journey.spending.is_spent):
            self._addresses.put(server, found, ttl, anyio.current_time())  # what a bound cut short is not remembered
        return found


def _write(journey: _Journey) -> dns.message.Message:
    """Make one response of what was found, as a recursive resolver gives it."""
    question = journey.question
    query = dns.message.make_query(question.name, question.rdtype, want_dnssec=question.do)
    response = dns.message.make_response(query, recursion_available=True)
    response.set_rcode(journey.rcode)
    for section, rrsets in ((response.answer, journey.answer), (response.authority, journey.authority)):
        for rrset in rrsets:
            written = response.find_rrset(section, rrset.name, rrset.rdclass, rrset.rdtype, rrset.covers, create=True)
            for record in rrset:
                written.add(record, rrset.ttl)
    return response
