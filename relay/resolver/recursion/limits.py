"""How much work one question may cause: queries sent, names of servers looked up, depth, time.

A zone's owner decides how many servers it has and where they are, so without a bound one question becomes thousands,
aimed at somebody else (RFC 9520 §2, and the NXNS attack of 2020).
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from relay.resolver.upstream import Answer, Asker, Question

__all__ = ["BoundedAsker", "NoAuthority", "RecursionLimits", "Spending", "spending_for"]


@dataclass(frozen=True, slots=True)
class RecursionLimits:
    """The bounds of one question's resolution."""

    queries: int = 96
    "Queries sent to servers, those for DNSSEC and for servers' own addresses included."
    attempts: int = 6
    "Queries sent for one step, over all of a zone's servers."
    depth: int = 3
    "Look-ups of a server's address inside a look-up of a server's address."
    server_names: int = 3
    "Names of servers, of those that a delegation gives no address for, that are looked up."
    servers: int = 13
    "Names of servers that are kept of a delegation."
    addresses: int = 4
    "Addresses of a server that are kept, of each family."
    referrals: int = 24
    "Zone cuts on the way to one name."
    aliases: int = 8
    "CNAME records that are followed."
    minimised: int = 10
    "Steps in which the name is shown in part only (RFC 9156 §2.3, MAX_MINIMISE_COUNT)."
    one_label: int = 4
    "Of these, steps that add one label (RFC 9156 §2.3, MINIMISE_ONE_LAB)."
    first_wait: float = 0.6
    "Seconds that a server of which nothing is known may take."
    least_wait: float = 0.2
    "Seconds that any server may take."
    longest_wait: float = 2.0
    "Seconds that a slow server may take."


class NoAuthority(Exception):
    """No server of a zone gave a usable answer, or the question has cost enough."""


class Spending:
    """What one question has cost so far, and when it must be over."""

    __slots__ = ("_limit", "queries")

    def __init__(self, limits: RecursionLimits) -> None:
        self._limit = limits.queries
        self.queries = 0

    @property
    def is_spent(self) -> bool:
        """Whether no further query may be sent."""
        return self.queries >= self._limit

    def add_query(self) -> None:
        """Count a query that is about to be sent.

        Raises:
            NoAuthority: the question has cost enough.
        """
        if self.is_spent:
            raise NoAuthority
        self.queries += 1


_current: ContextVar[Spending | None] = ContextVar("recursion_spending", default=None)


def spending_for(limits: RecursionLimits) -> Spending:
    """Return what the question that is being answered has spent, or a new account when nobody opened one."""
    found = _current.get()
    return Spending(limits) if found is None else found


class BoundedAsker:
    """Opens one account for a question and all that a validator below asks on its behalf."""

    def __init__(self, below: Asker, limits: RecursionLimits) -> None:
        self._below = below
        self._limits = limits

    async def ask(self, question: Question, deadline: float) -> Answer:
        """Ask the asker below; see there for what it returns and raises."""
        token = _current.set(Spending(self._limits))
        try:
            return await self._below.ask(question, deadline)
        finally:
            _current.reset(token)
