"""Asks the servers of one zone, one after another, until one gives a usable answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import anyio
import dns.exception
import dns.message
import dns.name

from masque.target import IPAddress
from relay.resolver.recursion.delegation import Delegation
from relay.resolver.recursion.exchange import ask_server
from relay.resolver.recursion.limits import NoAuthority, RecursionLimits, Spending
from relay.resolver.recursion.reading import Finding, Kind, read_response
from relay.resolver.recursion.servers import ServerBook
from relay.resolver.upstream import Question
from relay.settings import Upstream
from relay.telemetry import Metric, Metrics

__all__ = ["FindAddresses", "ZoneServers"]

FindAddresses = Callable[[dns.name.Name], Awaitable[tuple[IPAddress, ...]]]
"Looks up a server's addresses."

_ROUNDS = 2
"How often a silent server is asked in one step."


class ZoneServers:
    """Asks servers of zones, and learns how they are."""

    def __init__(
        self,
        book: ServerBook,
        limits: RecursionLimits,
        metrics: Metrics,
        port: int,
        may_ask: Callable[[IPAddress], bool],
    ) -> None:
        """Keep what is needed.

        Args:
            book: what is known of servers.
            limits: the bounds of one question.
            metrics: where queries are counted.
            port: of all servers.
            may_ask: whether a server may have this address.
        """
        self._book = book
        self._limits = limits
        self._metrics = metrics
        self._port = port
        self._may_ask = may_ask

    async def ask(
        self,
        delegation: Delegation,
        question: Question,
        spending: Spending,
        find_addresses: FindAddresses,
    ) -> tuple[Finding, dns.message.Message]:
        """Ask until a server gives a usable answer.

        Args:
            delegation: the zone and its servers.
            question: what to ask.
            spending: what the question has cost.
            find_addresses: looks up the address of a server that came without; used sparingly.

        Raises:
            NoAuthority: none did, or the question has cost enough.
        """
        attempts = 0
        useless: set[IPAddress] = set()
        async with aclosing(self._addresses(delegation, find_addresses)) as addresses:
            async for address in addresses:
                if address in useless:
                    continue
                if attempts == self._limits.attempts:
                    break
                attempts += 1
                response = await self._ask_one(address, question, spending)
                if response is None:
                    continue
                finding = read_response(response, delegation.zone, question, self._limits)
                if finding.kind not in {Kind.LAME, Kind.FAILED}:
                    return finding, response
                useless.add(address)
                if finding.kind is Kind.LAME:
                    self._book.note_lame(address, delegation.zone, anyio.current_time())
        raise NoAuthority

    async def _addresses(
        self, delegation: Delegation, find_addresses: FindAddresses
    ) -> AsyncGenerator[IPAddress, None]:
        """Yield the addresses that came with the delegation, twice; then those of a few names looked up."""
        given = [address for addresses in delegation.servers.values() for address in addresses]
        for _ in range(_ROUNDS):
            for address in self._choose(given, delegation.zone):
                yield address
        # A server named in its own zone and without an address cannot be found by asking that zone.
        named = [
            server
            for server, addresses in delegation.servers.items()
            if not addresses and not server.is_subdomain(delegation.zone)
        ]
        for server in named[: self._limits.server_names]:
            found = await find_addresses(server)
            for _ in range(_ROUNDS):
                for address in self._choose(found, delegation.zone):
                    yield address

    def _choose(self, addresses: tuple[IPAddress, ...] | list[IPAddress], zone: dns.name.Name) -> list[IPAddress]:
        allowed = [address for address in addresses if self._may_ask(address)]
        return self._book.order(dict.fromkeys(allowed), zone, anyio.current_time())

    async def _ask_one(
        self, address: IPAddress, question: Question, spending: Spending
    ) -> dns.message.Message | None:
        """Ask one server; None when it is silent, out of reach or talks nonsense."""
        started = anyio.current_time()
        has_edns = self._book.knows_edns(address, started)
        timeout = self._book.timeout(address, started)

        def count() -> None:
            spending.add_query()
            self._metrics.count(Metric.DNS_QUERIES)

        count()
        try:
            with anyio.fail_after(timeout) as scope:

                def extend() -> None:
                    count()
                    scope.deadline += 2 * timeout

                server = Upstream(address, self._port)
                response, took_edns = await ask_server(server, question, extend, has_edns=has_edns)
        except (OSError, EOFError, dns.exception.DNSException):  # TimeoutError is an OSError
            self._book.note_silence(address, anyio.current_time())
            return None
        now = anyio.current_time()
        self._book.note_answer(address, now - started, now)
        if has_edns and not took_edns:
            self._book.note_no_edns(address, now)
        return response
