"""Added latency: what echoes take longer through a server, at shares of what that server can carry.

First each server's own capacity is found, with the same pattern as all that follows. Then echoes go straight and
through the server in turns, at the same rate, in every round.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from interop.bench.bench import Bench
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
from interop.bench.report import LATE_TAIL
from interop.bench.servers import Server, Spec

__all__ = ["LatencyRun"]

_TRIES = 3
"How often something is measured in which the generator itself was late; the least late counts."
_LIMITS = {
    Verdict.OVERLOADED: "",
    Verdict.LATE: ", or more: above that the generator itself was late",
    Verdict.CARRIED: ", or more: no larger rate was tried",
}
"What a capacity is limited by, if not by the server."


class LatencyRun:
    """The latency rows of servers that run."""

    def __init__(self, bench: Bench, servers: Sequence[Server]) -> None:
        """Prepare; measures nothing.

        Args:
            bench: what measures, and keeps the lines.
            servers: those that run; the ones without UDP tunnels are left out.
        """
        self.facts: dict[str, str] = {}
        "What was found out: capacities and rates."
        self._bench = bench
        self._servers = [server for server in servers if "udp" in server.spec.kinds]
        self._limits: dict[str, Verdict] = {}
        self._repeated = 0

    def run(self) -> None:
        """Find capacities, then measure each load.

        Raises:
            ChildError: the generator ended.
        """
        capacities = self._find_capacities()
        for load in LOADS:
            rates = _rates(load, capacities)
            if load == SHARED:
                rate = next(iter(rates.values()), 0)
                self.facts["shared rate"] = (
                    f"{rate} echoes a second" if rate else f"none, without {server_label(OURS)}"
                )
            self._run_load(load, rates)
        if self._repeated:
            self.facts["repeated"] = (
                f"{self._repeated} measurements of latency, because the generator was late in them"
            )

    def _find_capacities(self) -> dict[str, float]:
        """Find what each server can carry, in every round."""
        pairs = [(server, plan_capacity(0)) for server in self._servers]
        known: dict[str, float] = {}

        def measure(server: Server, _: Row) -> Answer:
            answer: Answer = {}

            def probe(rate: float) -> Verdict:
                nonlocal answer
                found = self._bench.lab.measure(server, plan_capacity(round(rate)))
                verdict = judge_probe(found)
                if verdict is Verdict.CARRIED or not answer:
                    answer = found
                return verdict

            rate, self._limits[server.name] = find_capacity(probe, known.get(server.name))
            if not rate:
                return {"error": answer.get("error", "carries not even the smallest rate")}
            known[server.name] = rate
            return {**answer, "capacity": rate}

        lines = self._bench.take_turns(pairs, measure)
        capacities = {line.server: median(line.figures) for line in lines if line.figures and not line.failure}
        for name, capacity in capacities.items():
            rate = f"{capacity:.0f} echoes a second"
            self.facts[f"capacity of {server_label(name)}"] = rate + _LIMITS[self._limits[name]]
        return capacities

    def _run_load(self, load: str, rates: dict[str, int]) -> None:
        """Measure one load: for each server straight to the origin first, then through it, in each round."""
        straight: Answer = {}

        def measure(server: Server, row: Row) -> Answer:
            nonlocal straight
            answer = self._measure_in_time(server, row)
            if not row.order.get("direct"):
                return added_latency(answer, straight)
            straight = answer
            return answer

        pairs: list[tuple[Server, Row]] = []
        for server in self._servers:
            if server.name in rates:
                direct = Server(Spec(DIRECT + server.name, server.spec.command), server.address, server.child)
                rows = [plan_latency(self._bench.pace, load, rates[server.name], way) for way in (True, False)]
                pairs += zip((direct, server), rows, strict=True)
        self._bench.take_turns(pairs, measure)

    def _measure_in_time(self, server: Server, row: Row) -> Answer:
        """Measure, and again when the generator was late: that says nothing of the server."""
        answers = [self._bench.lab.measure(server, row)]
        while answers[-1].get("late", 0.0) > LATE_TAIL and len(answers) < _TRIES:
            answers.append(self._bench.lab.measure(server, row))
            self._repeated += 1
        return min(answers, key=lambda answer: answer.get("late", 1.0))


def _rates(load: str, capacities: dict[str, float]) -> dict[str, int]:
    """Tell the rate of each server at a load; none where the capacity that decides it is not known."""
    if load != SHARED:
        return {name: round(capacity * int(load) / 100) for name, capacity in capacities.items()}
    ours = capacities.get(OURS)
    return dict.fromkeys(capacities, round(ours * SHARED_SHARE / 100)) if ours else {}
