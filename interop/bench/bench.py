"""The rounds in which the servers take turns, and the lines of the report that come of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

from interop.bench.lab import Lab
from interop.bench.plan import Answer, Pace, Row, plan_floor, plan_memory, plan_rows
from interop.bench.processes import ChildError
from interop.bench.report import Line
from interop.bench.servers import Server, Spec

__all__ = ["FLOOR", "Bench", "MemoryTurn", "RowTurn", "Turn"]

FLOOR = Spec("floor", lambda _: (), frozenset({"udp"}))
"The kernel alone: a forwarder that speaks no QUIC."

Measuring = Callable[[Server, Row], Answer]
"Measures a row on a server once."


class Turn(Protocol):
    """What is measured once in every round, on all servers."""

    @property
    def lines(self) -> list[Line]:
        """What has been measured so far."""

    def take(self) -> None:
        """Measure once more.

        Raises:
            ChildError: the generator ended.
        """


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
            turn = MemoryTurn(self, specs)
            turn.take()
            self.keep(turn.lines)

    def run_rows(self, servers: Sequence[Server], groups: tuple[str, ...]) -> None:
        """Measure the rows of some groups on servers that run.

        Args:
            servers: the servers.
            groups: which of the plan's GROUPS, without memory.

        Raises:
            ChildError: the generator ended.
        """
        for turn in self.plan_turns(servers, groups):
            self.repeat(turn)

    def plan_turns(self, servers: Sequence[Server], groups: tuple[str, ...]) -> list[Turn]:
        """Plan the rows of some groups on servers that run.

        Args:
            servers: the servers.
            groups: which of the plan's GROUPS, without memory.

        Returns:
            A turn for each row.
        """
        plans = [plan_rows(groups, self.pace, self.lab.targets, server.spec.is_slow) for server in servers]
        return [RowTurn(self, list(zip(servers, rows, strict=True))) for rows in zip(*plans, strict=True)]

    def repeat(self, turn: Turn) -> None:
        """Take a turn in every round, one after the other, and keep its lines.

        Args:
            turn: what is measured.

        Raises:
            ChildError: the generator ended.
        """
        for _ in range(self.pace.rounds):
            turn.take()
        self.keep(turn.lines)

    def run_floor(self) -> None:
        """Measure the kernel alone.

        Raises:
            ChildError: the forwarder or the generator ended.
        """
        with ExitStack() as stack:
            for turn in self.plan_floor_turns(stack):
                self.repeat(turn)

    def plan_floor_turns(self, stack: ExitStack) -> list[Turn]:
        """Start the forwarder that is the kernel's floor, and plan its rows.

        Args:
            stack: what ends it.

        Returns:
            A turn for each row.

        Raises:
            ChildError: the forwarder did not start.
        """
        command = [sys.executable, "-m", "interop.bench.floor", str(self.lab.targets.udp)]
        forwarder = self.lab.start_child(stack, FLOOR, command)
        return [RowTurn(self, [(forwarder, row)]) for row in plan_floor(self.pace)]

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

    def keep(self, lines: list[Line]) -> None:
        """Keep lines, and show that the run goes on.

        Args:
            lines: what a turn has measured.
        """
        self.lines += lines
        for line in lines:
            figure = f"- {'; '.join(line.notes)}" if line.figure is None else f"{line.figure:.2f} {line.unit}"
            print(f"{line.server}  {line.key}  {figure}", file=sys.stderr, flush=True)


class RowTurn:
    """One row on each server that has its kind of tunnels, one server after the other."""

    def __init__(self, bench: Bench, pairs: Sequence[tuple[Server, Row]], measuring: Measuring | None = None) -> None:
        """Prepare.

        Args:
            bench: where it is measured.
            pairs: the servers, each with its form of the row.
            measuring: how to measure; by the generator's answer alone when None.
        """
        self._measuring = measuring or bench.lab.measure
        able = [(server, row) for server, row in pairs if not row.kind or row.kind in server.spec.kinds]
        self._parts = [(server, row, _new_lines(server.spec, row)) for server, row in able]

    @property
    def lines(self) -> list[Line]:
        """What has been measured so far."""
        return [line for *_, lines in self._parts for line in lines]

    def take(self) -> None:
        """Measure once more.

        Raises:
            ChildError: the generator ended.
        """
        for server, row, lines in self._parts:
            _measure(self._measuring, server, row, lines)


class MemoryTurn:
    """The memory of servers, each freshly started."""

    def __init__(self, bench: Bench, specs: Sequence[Spec]) -> None:
        """Prepare; starts nothing.

        Args:
            bench: where it is measured.
            specs: the servers.
        """
        self._bench = bench
        rows = [plan_memory(bench.lab.targets, spec.kinds) for spec in specs]
        self._parts = [(spec, row, _new_lines(spec, row)) for spec, row in zip(specs, rows, strict=True)]

    @property
    def lines(self) -> list[Line]:
        """What has been measured so far; nothing of servers that do not start."""
        return [line for *_, lines in self._parts for line in lines if line.figures or line.failure]

    def take(self) -> None:
        """Start each server, measure it, and end it.

        Raises:
            ChildError: the generator ended.
        """
        for spec, row, lines in self._parts:
            with self._bench.running([spec]) as servers:
                for server in servers:
                    _measure(self._bench.lab.measure, server, row, lines)


def _new_lines(spec: Spec, row: Row) -> list[Line]:
    """Begin the lines of a row: one without figures for each of its measures."""
    return [Line(spec.name, row.key + measure.suffix, measure.unit) for measure in row.measures]


def _measure(measuring: Measuring, server: Server, row: Row, lines: Sequence[Line]) -> None:
    """Measure one row once, and add what came of it to its lines."""
    if any(line.failure for line in lines):
        return
    answer = measuring(server, row)
    for line, measure in zip(lines, row.measures, strict=True):
        line.add(answer, measure.read)
