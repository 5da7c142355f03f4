"""Added latency: what echoes take longer through a server, at shares of what that server can carry.

In every round each server's own capacity is found first, with the same pattern as all that follows. Then echoes go
straight and through the server in turns, at the same share of what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from interop.bench.bench import Bench, RowTurn
from interop.bench.peers.capacity import Verdict, find_capacity, judge_probe
from interop.bench.peers.labels import server_label
from interop.bench.peers.plan import (
    DIRECT,
    LOADS,
    OURS,
    SHARED,
    SHARED_SHARE,
    added_latency,
    plan_capacity,
    plan_latency,
)
from interop.bench.plan import Answer, Row
from interop.bench.report import LATE_TAIL, Line
from interop.bench.servers import Server, Spec

__all__ = ["LatencyTurn"]

_TRIES = 3
"How often something is measured in which the generator itself was late; the least late counts."
_LIMITS = {
    Verdict.OVERLOADED: "",
    Verdict.LATE: ", or more: above that the generator itself was late",
    Verdict.CARRIED: ", or more: no larger rate was tried",
}
"What a capacity is limited by, if not by the server."


class LatencyTurn:
    """The capacities and the latency rows of servers that run."""

    def __init__(self, bench: Bench, servers: Sequence[Server]) -> None:
        """Prepare; measures nothing.

        Args:
            bench: what measures.
            servers: those that run; the ones without UDP tunnels are left out.
        """
        self._bench = bench
        self._servers = [server for server in servers if "udp" in server.spec.kinds]
        self._capacities: dict[str, float] = {}
        "What each server carried in this round."
        self._shared = 0
        self._straight: Answer = {}
        self._limits: dict[str, Verdict] = {}
        self._repeated = 0
        capacity = [(server, plan_capacity(0)) for server in self._servers]
        self._turns = [RowTurn(bench, capacity, self._find_capacity)]
        self._turns += [RowTurn(bench, self._pairs(load), self._measure) for load in LOADS]

    @property
    def lines(self) -> list[Line]:
        """What has been measured so far."""
        return [line for turn in self._turns for line in turn.lines]

    @property
    def facts(self) -> dict[str, str]:
        """What was found out beside: capacities and rates."""
        facts = {}
        for line in self._turns[0].lines:
            if line.figure is not None and line.server in self._limits:
                limit = _LIMITS[self._limits[line.server]]
                facts[f"capacity of {server_label(line.server)}"] = f"{line.figure:.0f} echoes a second{limit}"
        rate = f"{self._shared} echoes a second" if self._shared else f"none, without {server_label(OURS)}"
        facts["shared rate"] = rate
        if self._repeated:
            facts["repeated"] = f"{self._repeated} measurements of latency, because the generator was late in them"
        return facts

    def take(self) -> None:
        """Find capacities, then measure each load.

        Raises:
            ChildError: the generator ended.
        """
        for turn in self._turns:
            turn.take()

    def _pairs(self, load: str) -> list[tuple[Server, Row]]:
        """Plan one load: for each server straight to the origin first, then through it. Rates come with the round."""
        if load == SHARED and all(server.name != OURS for server in self._servers):
            return []
        pairs: list[tuple[Server, Row]] = []
        for server in self._servers:
            direct = Server(Spec(DIRECT + server.name, server.spec.command), server.address, server.child)
            rows = [plan_latency(self._bench.pace, load, 0, way) for way in (True, False)]
            pairs += zip((direct, server), rows, strict=True)
        return pairs

    def _find_capacity(self, server: Server, _: Row) -> Answer:
        """Find what a server can carry."""
        answer: Answer = {}

        def probe(rate: float) -> Verdict:
            nonlocal answer
            found = self._bench.lab.measure(server, plan_capacity(round(rate)))
            verdict = judge_probe(found)
            if verdict is Verdict.CARRIED or not answer:
                answer = found
            return verdict

        rate, self._limits[server.name] = find_capacity(probe, self._capacities.pop(server.name, None))
        if not rate:
            return {"error": answer.get("error", "carries not even the smallest rate")}
        self._capacities[server.name] = rate
        if server.name == OURS and not self._shared:
            self._shared = max(1, round(rate * SHARED_SHARE / 100_000)) * 1000
        return {**answer, "capacity": rate}

    def _measure(self, server: Server, row: Row) -> Answer:
        """Measure at the rate that this round has found for the server."""
        is_direct = server.name.startswith(DIRECT)
        capacity = self._capacities.get(server.name.removeprefix(DIRECT))
        load = row.key.rpartition("/")[2]
        if capacity is None or (load == SHARED and not self._shared):
            return {"error": "no capacity was found"}
        rate = self._shared if load == SHARED else round(capacity * int(load) / 100)
        answer = self._measure_in_time(server, replace(row, order={**row.order, "rate": rate}))
        if not is_direct:
            return added_latency(answer, self._straight)
        self._straight = answer
        return answer

    def _measure_in_time(self, server: Server, row: Row) -> Answer:
        """Measure, and again when the generator was late: that says nothing of the server."""
        answers = [self._bench.lab.measure(server, row)]
        while answers[-1].get("late", 0.0) > LATE_TAIL and len(answers) < _TRIES:
            answers.append(self._bench.lab.measure(server, row))
            self._repeated += 1
        return min(answers, key=lambda answer: answer.get("late", 1.0))
