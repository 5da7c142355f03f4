"""The rounds in which the servers take turns, and the lines of the report that come of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from interop.bench.lab import Lab
from interop.bench.plan import Answer, Pace, Row, plan_floor, plan_memory, plan_rows
from interop.bench.processes import ChildError
from interop.bench.report import Line
from interop.bench.servers import Server, Spec

__all__ = ["FLOOR", "Bench", "new_lines"]

FLOOR = Spec("floor", lambda _: (), frozenset({"udp"}))
"The kernel alone: a forwarder that speaks no QUIC."

Measuring = Callable[[Server, Row], Answer]
"Measures a row on a server once."


def new_lines(spec: Spec, row: Row) -> list[Line]:
    """Begin the lines of a row.

    Args:
        spec: the server that is measured.
        row: what is measured.

    Returns:
        A line without figures for each of the row's measures.
    """
    return [Line(spec.name, row.key + measure.suffix, measure.unit) for measure in row.measures]


class Bench:
    """Measures rows on servers and keeps the lines."""

    def __init__(self, lab: Lab, pace: Pace) -> None:
        """Measure in a laboratory.

        Args:
            lab: the generator and the origins.
            pace: how long everything takes.
        """
        self.lab = lab
        "The generator and the origins."
        self.pace = pace
        "How long everything takes."
        self.lines: list[Line] = []
        "What has been measured."
        self.failures: dict[str, str] = {}
        "Servers that did not start, and why."

    def run_servers(self, specs: Sequence[Spec], groups: tuple[str, ...]) -> None:
        """Measure servers in turns: every row, every round, one server after the other.

        Args:
            specs: the servers.
            groups: which of the plan's GROUPS.

        Raises:
            ChildError: the generator ended.
        """
        with self.running(specs) as servers:
            self.run_rows(servers, tuple(group for group in groups if group != "memory"))
        if "memory" in groups:
            self.run_memory(specs)

    def run_rows(self, servers: Sequence[Server], groups: tuple[str, ...]) -> None:
        """Measure the rows of some groups on servers that run.

        Args:
            servers: the servers.
            groups: which of the plan's GROUPS, without memory.

        Raises:
            ChildError: the generator ended.
        """
        plans = [plan_rows(groups, self.pace, self.lab.targets, server.spec.is_slow) for server in servers]
        for rows in zip(*plans, strict=True):
            self.take_turns(list(zip(servers, rows, strict=True)))

    def run_memory(self, specs: Sequence[Spec], rounds: int = 1) -> None:
        """Measure the memory of servers, each freshly started.

        Args:
            specs: the servers.
            rounds: how often.

        Raises:
            ChildError: the generator ended.
        """
        rows = [plan_memory(self.lab.targets, spec.kinds) for spec in specs]
        lines = [new_lines(spec, row) for spec, row in zip(specs, rows, strict=True)]
        for _ in range(rounds):
            for spec, row, own in zip(specs, rows, lines, strict=True):
                with self.running([spec]) as servers:
                    for server in servers:
                        self._measure(self.lab.measure, server, row, own)
        self._keep([line for own in lines for line in own if line.figures or line.failure])

    def run_floor(self) -> None:
        """Measure the kernel alone.

        Raises:
            ChildError: the forwarder or the generator ended.
        """
        command = [sys.executable, "-m", "interop.bench.floor", str(self.lab.targets.udp)]
        with ExitStack() as stack:
            forwarder = self.lab.start_child(stack, FLOOR, command)
            for row in plan_floor(self.pace):
                self.take_turns([(forwarder, row)])

    def take_turns(self, pairs: Sequence[tuple[Server, Row]], measuring: Measuring | None = None) -> list[Line]:
        """Measure one row on each server that has its kind of tunnels, in every round.

        Args:
            pairs: the servers, each with its form of the row.
            measuring: how to measure; by the generator's answer alone when None.

        Returns:
            The new lines; they are kept as well.

        Raises:
            ChildError: the generator ended.
        """
        able = [(server, row) for server, row in pairs if not row.kind or row.kind in server.spec.kinds]
        lines = [new_lines(server.spec, row) for server, row in able]
        for _ in range(self.pace.rounds):
            for (server, row), own in zip(able, lines, strict=True):
                self._measure(measuring or self.lab.measure, server, row, own)
        return self._keep([line for own in lines for line in own])

    @contextmanager
    def running(self, specs: Sequence[Spec]) -> Iterator[list[Server]]:
        """Start servers, and end them at last.

        Args:
            specs: the servers.

        Yields:
            Those that started. Why another did not is kept, and it is not tried again.
        """
        with ExitStack() as stack:
            servers = []
            for spec in specs:
                if spec.name in self.failures:
                    continue
                try:
                    servers.append(self.lab.start(stack, spec))
                except (ChildError, ImportError) as error:
                    self.failures[spec.name] = str(error)
                    print(f"{spec.name} did not start: {error}", file=sys.stderr, flush=True)
            yield servers

    def _measure(self, measuring: Measuring, server: Server, row: Row, lines: Sequence[Line]) -> None:
        """Measure one row once, and add what came of it to its lines."""
        if any(line.failure for line in lines):
            return
        answer = measuring(server, row)
        for line, measure in zip(lines, row.measures, strict=True):
            line.add(answer, measure.read)

    def _keep(self, lines: list[Line]) -> list[Line]:
        """Keep lines, and show that the run goes on."""
        self.lines += lines
        for line in lines:
            figure = f"- {'; '.join(line.notes)}" if line.figure is None else f"{line.figure:.2f} {line.unit}"
            print(f"{line.server}  {line.key}  {figure}", file=sys.stderr, flush=True)
        return lines
