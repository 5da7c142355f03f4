"""What a case is, and the stage on which it plays: a client under remote control, a server, and origins behind it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from masque.privacypass import TokenType
from relay.conformance.driver import Answer, Driver, DriverError, Feature, Headers, Kind
from relay.conformance.origins import Origins, Seen
from relay.conformance.tokens import TokenDriver, TokenKeys

__all__ = ["Case", "CaseFailed", "CaseList", "Check", "Need", "Server", "Stage"]


_MANY = 200
_PARALLEL = 20


class CaseFailed(Exception):
    """The server did not do what the case demands."""


class Need(StrEnum):
    """What a case needs of the server's side beyond tunnels."""

    TCP = "CONNECT"
    UDP = "CONNECT-UDP"
    IPV6 = "targets over IPv6"
    NAME = "a name for the origins"
    AUTH = "credentials"
    DRAIN = "a way to make it drain"
    IDLE = "a short idle limit"
    REFUSALS = "a target that it must refuse"
    TOKENS = "admission by tokens of an issuer whose key is known"


@dataclass(frozen=True, slots=True)
class Server:
    """What is known of the server under test."""

    offers: frozenset[Need]
    "What it has."
    host: str
    "The address under which it reaches the origins."
    host6: str = ""
    "The same over IPv6."
    name: str = ""
    "A name that it resolves to `host`."
    missing_name: str = "missing.invalid"
    "A name that does not exist (RFC 6761 §6.4)."
    forbidden: tuple[str, int] = ("", 0)
    "A target that it must refuse; harmless when it does not."
    credentials: Headers = ()
    "The field lines of a client that is admitted."
    wrong_credentials: Headers = ()
    "The field lines of one that is not."
    drain: Callable[[], Awaitable[None]] | None = None
    "Makes it stop in order."
    streams: int = 100
    "How many tunnels one client may have at once; RFC 9114 §6.1 asks for 100."
    token_keys: Mapping[TokenType, TokenKeys] = field(default_factory=dict)
    "The keys of an issuer whose tokens it takes."
    is_strict: bool = False
    "What it only should do counts like what it must do: for our own relay."


@dataclass(slots=True)
class Stage:
    """What a case works with. Every case gets a fresh one, with a client that is not connected yet."""

    driver: Driver
    "The client."
    server: Server
    "The server under test."
    origins: Origins
    "The targets."
    tokens: TokenDriver | None = None
    "An implementation of Privacy Pass."
    patience: float = 2.0
    "Seconds to wait for a datagram before it counts as lost."
    notes: list[str] = field(default_factory=list)
    "What the server should have done and did not."

    @property
    def features(self) -> frozenset[Feature]:
        """What the client can do, and whether there is an implementation of tokens."""
        return self.driver.features | (frozenset({Feature.TOKENS}) if self.tokens is not None else frozenset())

    def must(self, fact: object, reason: str) -> None:
        """Demand something.

        Args:
            fact: true when it is so.
            reason: what is wrong when it is not, in one line.

        Raises:
            CaseFailed: it is not so.
        """
        if not fact:
            raise CaseFailed(reason)

    def should(self, fact: object, reason: str) -> None:
        """Demand something of our own relay, and take note of it with any other server. See `must`."""
        if not fact:
            if self.server.is_strict:
                raise CaseFailed(reason)
            self.notes.append(reason)

    async def ask(
        self,
        kind: Kind,
        host: str | None = None,
        port: int | None = None,
        *,
        headers: Headers | None = None,
        early: bytes = b"",
    ) -> Answer:
        """Ask for a tunnel and take any answer.

        Args:
            kind: which tunnel.
            host: the target; the origin without it.
            port: its port; the origin's without it.
            headers: field lines; the good credentials without them.
            early: what is sent before the answer.

        Raises:
            DriverError: there was no answer.
        """
        server = self.server
        host = server.host if host is None else host
        ports = self.origins.tcp if kind is Kind.TCP else self.origins.udp
        if port is None:
            port = ports.get(host, ports[server.host])
        fields = server.credentials if headers is None else headers
        return await self.driver.open(kind, host, port, fields, early=early)

    async def open(self, kind: Kind, host: str | None = None, port: int | None = None, *, early: bytes = b"") -> int:
        """Open a tunnel that must be granted; arguments as `ask`.

        Returns:
            The tunnel's number.

        Raises:
            CaseFailed: the server refused.
            DriverError: there was no answer.
        """
        answer = await self.ask(kind, host, port, early=early)
        if answer.tunnel is None:
            raise CaseFailed(f"refused with {self.describe(answer)}")
        return answer.tunnel

    def refused(self, answer: Answer, statuses: tuple[int, ...], error: str) -> None:
        """Check a refusal.

        Args:
            answer: what the server answered.
            statuses: those that are right.
            error: the error that Proxy-Status should name (RFC 9209 §2.3).

        Raises:
            CaseFailed: it is no refusal, or our relay gave another reason.
        """
        self.must(answer.tunnel is None, f"granted with {answer.status}")
        if Feature.HIDDEN_STATUS in self.driver.features:
            return
        self.must(answer.status >= 400, f"answered {answer.status}, no status of a refusal")
        expected = " or ".join(map(str, statuses))
        self.should(answer.status in statuses, f"answered {answer.status}, expected {expected}")
        reason = answer.header("proxy-status")
        self.should(reason is not None and error in reason, f"proxy-status is {reason!r}, expected {error}")

    async def together(self, jobs: Iterable[Coroutine[object, object, None]]) -> None:
        """Run jobs at the same time; the first failure ends the others and is raised."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for job in jobs:
                    tasks.create_task(job)
        except* (CaseFailed, DriverError) as group:
            raise _first(group) from None

    async def many(self, job: Callable[[int, asyncio.Semaphore], Coroutine[object, object, None]]) -> None:
        """Run a job for as many tunnels as the server allows, 200 at most, and all of them at once.

        Args:
            job: given its number, and what to hold while it opens its tunnel, so that only a few do at a time.

        Raises:
            CaseFailed, DriverError: the first failure.
        """
        turn = asyncio.Semaphore(_PARALLEL)
        await self.together(job(number, turn) for number in range(min(_MANY, self.server.streams)))

    async def seen(self, key: str) -> Seen:
        """How the origin's connection ended that named this key. Raises DriverTimeout."""
        return await self.origins.seen(key, 5 * self.patience)

    def key(self) -> str:
        """A fresh key for the origins."""
        return secrets.token_hex(8)

    @staticmethod
    def describe(answer: Answer) -> str:
        """A refusal in words."""
        reason = answer.header("proxy-status")
        return f"{answer.status} ({reason})" if reason else str(answer.status)


Check = Callable[[Stage], Awaitable[None]]
"Plays a case; returns when it passed, raises CaseFailed or DriverError when not."


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is proven."""

    name: str
    "Short, with hyphens; for the command line and the report."
    proves: str
    "What it proves, in one line."
    source: str
    "Where it is demanded: RFC and section."
    check: Check
    "Plays it."
    features: frozenset[Feature]
    "What the client must be able to do."
    needs: frozenset[Need]
    "What the server must offer."
    settings: Mapping[str, str] = field(default_factory=dict)
    "Settings that a relay of ours gets for it."

    def missing(self, features: frozenset[Feature], offers: frozenset[Need]) -> str:
        """Why it cannot be played with that client and server, empty when it can; no AUTH, no need of headers."""
        spare = frozenset() if Need.AUTH in offers else frozenset({Feature.HEADERS})
        lacking = sorted(self.features - features - spare)
        if lacking:
            return "the client lacks " + ", ".join(lacking)
        wanting = sorted(self.needs - offers)
        return "the server lacks " + ", ".join(wanting) if wanting else ""


class CaseList:
    """Cases of one subject. Its `add` is a decorator, so that a case's facts stand beside its code."""

    def __init__(self, *common: Feature | Need) -> None:
        """Start with none.

        Args:
            common: what each of these cases needs of client and server.
        """
        self.cases: list[Case] = []
        "In the order of the report."
        self._common = common

    def add(
        self, name: str, source: str, *more: Feature | Need, settings: Mapping[str, str] | None = None
    ) -> Callable[[Check], Check]:
        """Make a check a case; its docstring says what it proves, the arguments are as in `Case`."""
        wanted = (*self._common, *more)
        features = frozenset(item for item in wanted if isinstance(item, Feature))
        needs = frozenset(item for item in wanted if isinstance(item, Need))

        def enter(check: Check) -> Check:
            proves = (check.__doc__ or "").strip().rstrip(".")
            self.cases.append(Case(name, proves, source, check, features, needs, settings or {}))
            return check

        return enter


def _first(group: BaseExceptionGroup[CaseFailed | DriverError]) -> CaseFailed | DriverError:
    """The first single exception of a group."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
