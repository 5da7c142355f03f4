"""The relay's own resolver: names to addresses, asked of configured upstreams, never of the C library.

A and AAAA are asked together and kept each for itself. Questions, answers and names stay in memory for their
time to live and reach no log.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address

import anyio
import dns.exception
import dns.name
import dns.rdatatype

from relay.errors import Failure, FailureKind, RelayError, Side
from relay.hooks import Resolution
from relay.resolver.answer import NEGATIVE_TTL, Reading, failed_reading
from relay.resolver.cache import AnswerCache
from relay.resolver.flight import Flights
from relay.resolver.forward import ask_upstreams
from relay.resolver.upstream import Question
from relay.settings import ResolverSettings, Upstream
from relay.telemetry import Metric, Metrics, NoMetrics

__all__ = ["SECOND_FAMILY_GRACE", "Resolver"]

SECOND_FAMILY_GRACE = 0.25
"""Seconds that the second family may take once the first has addresses. RFC 8305 §3 advises 50 ms where a late
answer can still be used; here it cannot, so it gets a little more."""

_SLACK = 0.05
"""Seconds by which one who waits for another's question outlasts one's own, so that a question is not cut off just
before it ends by itself."""

_FAMILIES = (dns.rdatatype.AAAA, dns.rdatatype.A)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_LOOPBACK = (ip_address("::1"), ip_address("127.0.0.1"))
_NEVER_ASKED = frozenset({"local", "invalid", "onion", "alt"})
"Top-level names that the public DNS does not have: RFC 6762 §3, RFC 6761 §6.4, RFC 7686 §2, RFC 9476 §2."


class Resolver:
    """Resolves names for tunnels. One for each worker; needs no closing."""

    def __init__(
        self,
        settings: ResolverSettings,
        upstreams: Sequence[Upstream],
        *,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a resolver with an empty cache.

        Args:
            settings: the bounds.
            upstreams: recursive resolvers in order of preference; at least one.
            metrics: where queries, cache hits and failures are counted; by default nowhere.
            clock: what the cache takes the time from.

        Raises:
            ValueError: there is no upstream.
        """
        if not upstreams:
            raise ValueError("a resolver needs at least one upstream")
        self._upstreams = tuple(upstreams)
        self._timeout = settings.timeout.total_seconds()
        self._min_ttl = settings.min_ttl.total_seconds()
        self._max_ttl = settings.max_ttl.total_seconds()
        self._metrics: Metrics = NoMetrics() if metrics is None else metrics
        self._clock = clock
        self._cache: AnswerCache[Question, Reading] = AnswerCache(settings.cache_entries)
        self._flights: Flights[Question, Reading] = Flights()
        self._limiter = anyio.CapacityLimiter(settings.max_queries)

    async def resolve(self, name: str) -> Resolution:
        """Find the addresses of a name.

        Args:
            name: a host name in ASCII, with or without the final dot; never an IP literal.

        Returns:
            At least one address, those of IPv6 first, and the aliases on the way.

        Raises:
            RelayError: DNS_ERROR with the response code, or `NODATA`; DNS_TIMEOUT.
        """
        try:
            answers = await self._resolve(name)
            return _combine(answers)
        except RelayError:
            self._metrics.count(Metric.DNS_FAILURES)
            raise

    async def _resolve(self, name: str) -> dict[dns.rdatatype.RdataType, Reading]:
        """Ask for both families, and wait for the second one only a little once the first has addresses."""
        qname = _parse_name(name)
        top = qname.labels[-2].lower().decode("ascii")
        if top == "localhost":
            return {dns.rdatatype.AAAA: Reading(_LOOPBACK[:1]), dns.rdatatype.A: Reading(_LOOPBACK[1:])}
        if top in _NEVER_ASKED:
            return {dns.rdatatype.A: failed_reading(FailureKind.DNS_ERROR, "NXDOMAIN")}
        answers: dict[dns.rdatatype.RdataType, Reading] = {}
        async with anyio.create_task_group() as group:

            async def ask(question: Question) -> None:
                answers[question.rdtype] = answer = await self._ask(question)
                if answer.addresses:
                    group.cancel_scope.deadline = anyio.current_time() + SECOND_FAMILY_GRACE

            for rdtype in _FAMILIES:
                group.start_soon(ask, Question(qname, rdtype))
        for rdtype in _FAMILIES:
            if rdtype not in answers:
                self._keep(Question(qname, rdtype), failed_reading(FailureKind.DNS_TIMEOUT))
        return answers

    async def _ask(self, question: Question) -> Reading:
        """Reading from the cache, or join the question that is under way, or ask."""
        cached = self._cache.get(question, self._clock())
        if cached is not None:
            self._metrics.count(Metric.DNS_CACHE_HITS)
            return cached
        deadline = anyio.current_time() + self._timeout
        with anyio.CancelScope(deadline=deadline + _SLACK):
            return await self._flights.join(question, partial(self._fetch, question, deadline))
        return failed_reading(FailureKind.DNS_TIMEOUT)

    async def _fetch(self, question: Question, deadline: float) -> Reading:
        """Ask the upstreams, and keep what they say. Ends by itself at the deadline."""
        answer = failed_reading(FailureKind.DNS_TIMEOUT)
        with anyio.CancelScope(deadline=deadline) as waiting:
            async with self._limiter:
                waiting.deadline = math.inf  # from here on the work ends by itself, and knows why
                answer = await ask_upstreams(question, self._upstreams, deadline, self._metrics)
        self._keep(question, answer)
        return answer

    def _keep(self, question: Question, answer: Reading) -> None:
        """Put an answer into the cache, within the operator's bounds."""
        if answer.failure is None:
            ttl = min(max(answer.ttl, self._min_ttl), self._max_ttl)
        else:
            ttl = min(answer.ttl, self._max_ttl, NEGATIVE_TTL)
        self._cache.put(question, answer, ttl, self._clock())


def _parse_name(name: str) -> dns.name.Name:
    """Turn text into a name; what cannot be a host name does not exist."""
    if _NAME.fullmatch(name):
        try:
            return dns.name.from_text(name)
        except dns.exception.DNSException:
            pass
    raise RelayError(Failure(FailureKind.DNS_ERROR, Side.CLIENT, rcode="NXDOMAIN", context="not a host name"))


def _combine(answers: dict[dns.rdatatype.RdataType, Reading]) -> Resolution:
    """Make one resolution of both families' answers, or raise the failure that says most."""
    found = [answers[rdtype] for rdtype in _FAMILIES if rdtype in answers]
    addresses = tuple(address for answer in found for address in answer.addresses)
    if addresses:
        aliases = next((answer.aliases for answer in found if answer.addresses), ())
        return Resolution(addresses, aliases)
    failures = [answer.failure for answer in found if answer.failure is not None]
    raise RelayError(min(failures, key=_weight))


def _weight(failure: Failure) -> int:
    """Order failures: a name that surely is not, an upstream's error, silence, and one family's absence last."""
    if failure.rcode == "NXDOMAIN":
        return 0
    if failure.rcode == "NODATA":
        return 3
    return 1 if failure.kind is FailureKind.DNS_ERROR else 2
