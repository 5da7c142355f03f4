"""One question's way to a reading: the cache, a question already under way, the one who is asked, an old answer.

Questions, answers and names stay in memory for as long as answers are kept, and reach no log.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import anyio
import anyio.abc
import dns.name
import dns.rdatatype

from relay.errors import FailureKind, RelayError
from relay.resolver.answer import MAX_ALIASES, NEGATIVE_TTL, Reading, failed_reading, joined_reading, read_answer
from relay.resolver.cache import AnswerCache, Entry
from relay.resolver.flight import Abandoned, Flights
from relay.resolver.upstream import Asker, Question, Subnet
from relay.settings import ResolverSettings
from relay.telemetry import Metric, Metrics

__all__ = ["Lookup", "LookupKey"]

LookupKey: TypeAlias = tuple[str, dns.rdatatype.RdataType, Subnet | None]
"A question without what is the same in all: the name's one spelling, the type, the egress location's network."

_SLACK = 0.05
"""Seconds by which one who waits for another's question outlasts one's own, so that a question is not cut off just
before it ends by itself."""


class Lookup:
    """Answers questions, from memory where it can."""

    def __init__(
        self,
        settings: ResolverSettings,
        asker: Asker,
        tasks: anyio.abc.TaskGroup,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        """Know nothing yet.

        Args:
            settings: the bounds.
            asker: asked for what is not known.
            tasks: owns the questions under way.
            metrics: where cache hits and old answers are counted.
            clock: what the cache takes the time from.
        """
        self._asker = asker
        self._timeout = settings.timeout.total_seconds()
        self._min_ttl = settings.min_ttl.total_seconds()
        self._max_ttl = settings.max_ttl.total_seconds()
        self._stale_after = settings.stale_after.total_seconds()
        self._refreshes = settings.refresh
        self._metrics = metrics
        self._clock = clock
        self._cache = AnswerCache(settings.cache_entries, settings.cache_size, settings.max_stale.total_seconds())
        self._flights: Flights[LookupKey, Reading] = Flights(tasks)
        self._limiter = anyio.CapacityLimiter(settings.max_queries)
        self._asked: set[LookupKey] = set()

    def known(self, key: LookupKey) -> Reading | None:
        """Return what the cache has and is still good. A hot answer about to end is asked for again, meanwhile."""
        now = self._clock()
        entry = self._cache.get(key, now)
        if entry is None or entry.ends <= now:
            return None
        self._metrics.count(Metric.DNS_CACHE_HITS)
        if self._refreshes and entry.wants_refresh(now) and self._has_room():
            self._flights.launch(key, partial(self._fetch, key))
        return entry.reading

    async def find(self, key: LookupKey) -> Reading:
        """Return what is known, or ask; an old answer stands in for one that does not come (RFC 8767 §5)."""
        try:
            return await self._find(key)
        except Abandoned:
            return failed_reading(FailureKind.DNS_TIMEOUT)

    async def _find(self, key: LookupKey) -> Reading:
        known = self.known(key)
        if known is not None:
            return known
        old = self._stale(key)
        if old is None:
            with anyio.move_on_after(self._timeout + _SLACK):
                return await self._flights.join(key, partial(self._fetch, key))
            return failed_reading(FailureKind.DNS_TIMEOUT)
        if self._clock() < old.recheck_at:
            return self._use_stale(old)
        self._flights.launch(key, partial(self._fetch, key))  # goes on when the old answer is taken
        with anyio.move_on_after(min(self._stale_after, self._timeout)):
            found = await self._flights.join(key, partial(self._fetch, key))
            if found.is_final or found.is_bogus:
                return found
        return self._use_stale(old)

    def is_asked(self, key: LookupKey) -> bool:
        """Say whether somebody is being asked, rather than that the question waits for room."""
        return key in self._asked

    def keep_silence(self, key: LookupKey) -> None:
        """Remember for a moment that nobody answered."""
        self._keep(key, failed_reading(FailureKind.DNS_TIMEOUT))

    def _has_room(self) -> bool:
        """Say whether questions that nobody waits for would leave enough room for the others."""
        return self._limiter.borrowed_tokens * 2 < self._limiter.total_tokens

    def _stale(self, key: LookupKey) -> Entry | None:
        entry = self._cache.get(key, self._clock())
        return entry if entry is not None and entry.reading.failure is None else None

    def _use_stale(self, entry: Entry) -> Reading:
        self._metrics.count(Metric.DNS_STALE_ANSWERS)
        return entry.reading

    async def _fetch(self, key: LookupKey) -> Reading:
        """Ask, and keep what is said. Ends by itself when its time is over.

        That there was no room, or hardly any time left, says nothing of the name, and is not kept.
        """
        deadline = anyio.current_time() + self._timeout
        with anyio.CancelScope(deadline=deadline) as waiting:
            async with self._limiter:
                waiting.deadline = math.inf  # from here on the work ends by itself, and knows why
                had_time = deadline - anyio.current_time() > self._timeout / 2
                self._asked.add(key)
                try:
                    reading = await self._ask(_question(key), deadline)
                finally:
                    self._asked.discard(key)
            if had_time or reading.failure is None or reading.failure.kind is not FailureKind.DNS_TIMEOUT:
                self._keep(key, reading)
            return reading
        return failed_reading(FailureKind.DNS_TIMEOUT)

    async def _ask(self, question: Question, deadline: float) -> Reading:
        """Ask, and ask for the last alias as well when the answer ended there (RFC 1034 §3.6.2)."""
        reading: Reading | None = None
        for _ in range(MAX_ALIASES):
            try:
                answer = await self._asker.ask(question, deadline)
            except RelayError as error:
                failure = error.failure
                return failed_reading(failure.kind, failure.rcode, failure.info_code)
            found = replace(read_answer(answer.message, question), is_authenticated=answer.is_authenticated)
            reading = found if reading is None else joined_reading(reading, found)
            if reading.goes_on is None:
                return reading
            question = Question(reading.goes_on, question.rdtype, question.do, question.cd, question.ecs)
        return failed_reading(FailureKind.DNS_ERROR)

    def _keep(self, key: LookupKey, reading: Reading) -> None:
        """Put a reading into the cache for as long as the operator's bounds allow."""
        if reading.failure is None:
            ttl = min(max(reading.ttl, self._min_ttl), self._max_ttl)
        else:
            ttl = min(reading.ttl, self._max_ttl, NEGATIVE_TTL)
        self._cache.put(key, reading, ttl, self._clock())


def _question(key: LookupKey) -> Question:
    name, rdtype, subnet = key
    return Question(dns.name.from_text(name), rdtype, ecs=subnet)
