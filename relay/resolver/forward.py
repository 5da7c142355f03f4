"""Asks upstream resolvers: the best one first, the next beside it when that takes too long, all within one deadline.

Nobody waits for an upstream that has been failing: it rests, and is probed in the background until it answers again.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import anyio.abc
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from relay.errors import Failure, FailureKind, RelayError, Side
from relay.resolver.health import Health
from relay.resolver.transport import Transport, make_transport
from relay.resolver.upstream import Answer, Question
from relay.settings import ResolverSettings, Upstream, UpstreamTransport
from relay.telemetry import Metric, Metrics, get_logger

__all__ = ["Forwarder"]

_log = get_logger()
_ROUNDS = 3
"How often a silent upstream is asked by UDP."
_FINAL = frozenset({dns.rcode.NOERROR, dns.rcode.NXDOMAIN})
_WITHOUT_EDNS = frozenset({dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS})
_PLAIN_TIME = 900.0
"Seconds that an upstream is believed to take no EDNS."
_PROBE = Question(dns.name.root, dns.rdatatype.NS)
_PROBE_TIMEOUT = 2.0


class _Peer:
    """One upstream, and what is known of it."""

    def __init__(self, upstream: Upstream, place: int, transport: Transport) -> None:
        self._transport = transport
        self._plain_ends = 0.0
        self.is_encrypted = upstream.transport.is_encrypted
        self.rounds = _ROUNDS if upstream.transport is UpstreamTransport.UDP else 1
        self.place = place
        self.health = Health()

    async def ask(self, question: Question) -> Answer:
        """Ask, and once more without EDNS when the upstream turns out to be older than that (RFC 6891 §7)."""
        now = anyio.current_time()
        has_edns = now >= self._plain_ends
        message = await self._transport.ask(question, has_edns=has_edns)
        if has_edns and message.edns < 0 and message.rcode() in _WITHOUT_EDNS:
            message = await self._transport.ask(question, has_edns=False)
            if message.rcode() in _FINAL:
                self._plain_ends = now + _PLAIN_TIME
        return Answer(message, self.is_encrypted, bool(message.flags & dns.flags.AD))


class _Race:
    """One question's attempts: who answered, and who must not be asked again."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.won: Answer | None = None
        self.error: Answer | None = None
        self.is_broken = False
        self.out: set[_Peer] = set()
        self.under_way: set[_Peer] = set()
        self.blamed: set[_Peer] = set()


class Forwarder:
    """Asks several upstreams, in order of preference."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        settings: ResolverSettings,
        tasks: anyio.abc.TaskGroup,
        metrics: Metrics,
    ) -> None:
        """Connect to nobody yet.

        Args:
            upstreams: in order of preference; at least one.
            settings: how they are spoken to.
            tasks: owns what goes on between questions.
            metrics: where queries are counted.

        Raises:
            ValueError: there is no upstream.
            SettingsError: an upstream's certificate cannot be checked.
        """
        if not upstreams:
            raise ValueError("a resolver needs at least one upstream")
        self._peers = [
            _Peer(one, place, make_transport(one, settings, tasks)) for place, one in enumerate(upstreams, 1)
        ]
        self._tasks = tasks
        self._metrics = metrics

    async def ask(self, question: Question, deadline: float) -> Answer:
        """Ask until one upstream knows, or none is left, or the time is over.

        An upstream that answers with an error, such as SERVFAIL, is not asked again, and the next one is.

        Args:
            question: what to ask.
            deadline: when all attempts together end, on the loop's clock.

        Returns:
            The first answer that is final; else the last error that an upstream gave.

        Raises:
            RelayError: DNS_TIMEOUT when all were silent, DNS_ERROR when none could be asked.
        """
        race = _Race(question)
        with anyio.CancelScope(deadline=deadline):
            async with anyio.create_task_group() as group:
                await self._run(race, group, deadline)
        answer = race.won or race.error
        if answer is not None:
            return answer
        kind = FailureKind.DNS_ERROR if race.is_broken and not race.under_way else FailureKind.DNS_TIMEOUT
        raise RelayError(Failure(kind, Side.TARGET))

    async def _run(self, race: _Race, group: anyio.abc.TaskGroup, deadline: float) -> None:
        """Start one attempt after the other, each when the one before has had its time or has failed."""
        plan = self._plan()
        for number, peer in enumerate(plan):
            if peer in race.out or (peer in race.under_way and peer.rounds == 1):
                continue
            self._metrics.count(Metric.DNS_QUERIES)
            turn = anyio.Event()
            race.under_way.add(peer)
            share = (deadline - anyio.current_time()) / (len(plan) - number)
            patience = min(peer.health.patience, share)
            group.start_soon(self._attempt, race, group, peer, turn, patience)
            with anyio.move_on_after(patience):
                await turn.wait()
            if race.won is not None:
                return

    def _plan(self) -> list[_Peer]:
        """Order the upstreams: those that rest come last. Have those probed whose rest is over."""
        now = anyio.current_time()
        well = [peer for peer in self._peers if peer.health.is_well]
        resting = [peer for peer in self._peers if not peer.health.is_well]
        for peer in resting:
            if peer.health.wants_probe(now):
                peer.health.is_probed = True
                self._tasks.start_soon(self._probe, peer)
        order = [*well, *resting]
        return [peer for turn in range(_ROUNDS) for peer in order if turn < peer.rounds]

    async def _attempt(
        self, race: _Race, group: anyio.abc.TaskGroup, peer: _Peer, turn: anyio.Event, patience: float
    ) -> None:
        """Ask one upstream once. Its answer may end the race; its silence or error starts the next attempt."""
        started = anyio.current_time()
        try:
            answer = await peer.ask(race.question)
        except (OSError, EOFError):
            self._blame(race, peer)
            race.is_broken = True
            race.out.add(peer)
        except dns.exception.DNSException:
            race.is_broken = True
            race.out.add(peer)
        except anyio.get_cancelled_exc_class():
            if anyio.current_time() - started >= patience:
                self._blame(race, peer)
            raise
        else:
            self._succeeded(peer, anyio.current_time() - started)
            if answer.message.rcode() in _FINAL:
                race.won = race.won or answer
                group.cancel_scope.cancel()
            else:
                race.error = answer
                race.out.add(peer)
        race.under_way.discard(peer)
        turn.set()

    async def _probe(self, peer: _Peer) -> None:
        """Ask a resting upstream something that costs nobody's time."""
        started = anyio.current_time()
        try:
            with anyio.fail_after(_PROBE_TIMEOUT):
                await peer.ask(_PROBE)
        except Exception:  # noqa: BLE001 - whatever an upstream does, the tasks beside this one go on
            self._failed(peer)
        else:
            self._succeeded(peer, anyio.current_time() - started)
        finally:
            peer.health.is_probed = False

    def _blame(self, race: _Race, peer: _Peer) -> None:
        """Count a failure, one for each question: asking thrice for a name that nobody knows says little."""
        if peer not in race.blamed:
            race.blamed.add(peer)
            self._failed(peer)

    def _failed(self, peer: _Peer) -> None:
        if peer.health.failed(anyio.current_time()):
            _log.warning("upstream_rests", count=peer.place)

    def _succeeded(self, peer: _Peer, seconds: float) -> None:
        if peer.health.succeeded(seconds):
            _log.info("upstream_answers_again", count=peer.place)
