"""One run of the comparison: every group of rows, on all servers in turns."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median

from interop.bench.bench import Bench, new_lines
from interop.bench.lab import Lab
from interop.bench.peers.netem import NetemError, lossy_site
from interop.bench.peers.plan import (
    CAPACITY_ROW,
    DELAY,
    LOADS,
    LOSS,
    added_latency,
    plan_ceiling,
    plan_fairness,
    plan_latency,
    plan_loss,
    plan_tunnels,
)
from interop.bench.plan import Answer, Row, plan_rows
from interop.bench.report import Line
from interop.bench.servers import Server, Spec

__all__ = ["DIRECT", "MIRROR", "OURS", "Comparison", "generator_ceiling"]

OURS = "relay-qh3"
"The server whose capacity sets the loads of the latency rows."
DIRECT = Spec("direct", lambda _: (), frozenset({"udp"}))
"No server: straight to the origin."
MIRROR = Spec("mirror", lambda _: (), frozenset({"udp"}))
"The generator's own server, which echoes without a target."

_TIMED = ("datagrams", "streams", "handshakes", "tunnels", "latency", "fairness")
_SEED = 1


class Comparison:
    """All servers, measured in turns."""

    def __init__(self, bench: Bench, specs: Sequence[Spec]) -> None:
        """Prepare; measures nothing.

        Args:
            bench: what measures, and keeps the lines.
            specs: the servers.
        """
        self.facts: dict[str, str] = {}
        "What the run found out about itself."
        self.skipped: dict[str, str] = {}
        "Groups that the generator does not know."
        self._bench = bench
        self._specs = specs

    def run(self, groups: Sequence[str]) -> None:
        """Measure groups of rows.

        Args:
            groups: which of the plan's GROUPS.

        Raises:
            ChildError: the generator ended.
        """
        known = self._bench.lab.kit.groups
        wanted = [group for group in groups if group in known]
        for group in groups:
            if group not in known:
                self.skipped[f"rows {group}"] = f"the generator ({self._bench.lab.kit.name}) does not know them"
                print(f"SKIP  rows {group}: {self.skipped[f'rows {group}']}", file=sys.stderr, flush=True)
        timed = [group for group in _TIMED if group in wanted]
        if timed:
            with self._bench.running(self._specs) as servers:
                self._run_timed(servers, timed)
        if "memory" in wanted:
            self._bench.run_memory(self._specs, self._bench.pace.rounds)
        if "loss" in wanted:
            self._run_loss()
        if "ceiling" in wanted:
            self._run_ceiling()
        if "floor" in wanted:
            self._bench.run_floor()

    def _run_timed(self, servers: Sequence[Server], groups: Sequence[str]) -> None:
        """Measure what needs servers that run for long."""
        pace, targets = self._bench.pace, self._bench.lab.targets
        self._bench.run_rows(servers, tuple(groups))
        rows = plan_tunnels(pace, targets) if "tunnels" in groups else []
        for row in rows:
            self._bench.take_turns([(server, row) for server in servers])
        if "latency" in groups:
            self._run_latency(servers)
        rows = plan_fairness(pace, targets) if "fairness" in groups else []
        for row in rows:
            self._bench.take_turns([(server, row) for server in servers])

    def _run_latency(self, servers: Sequence[Server]) -> None:
        """Measure added latency at shares of the relay's capacity, at the same rates for everybody."""
        line = self._capacity_line()
        if line is None or line.figure is None:
            self.skipped["rows latency"] = f"{OURS} has no figure for {CAPACITY_ROW}, so its capacity is not known"
            return
        capacity, ceiling = 1e6 / (2 * line.figure), generator_ceiling(line)
        self.facts["capacity"] = f"{capacity:.0f} echoes a second: what {OURS} could carry on a core of its own"
        self.facts["ceiling"] = (
            f"{ceiling:.0f} echoes a second: what the generator and the origin could do on the core they share"
        )
        for load in LOADS:
            rate = round(capacity * load / 100)
            self.facts[f"latency at {load} %"] = f"{rate} echoes a second"
            row = plan_latency(self._bench.pace, self._bench.lab.targets, load, rate)
            if rate > ceiling:
                reason = f"{rate} echoes a second are above the generator's ceiling of {ceiling:.0f}"
                self.facts[f"latency at {load} %"] = f"not measured: {reason}"
                print(f"latency/{load}: not measured: {reason}", file=sys.stderr, flush=True)
                self._bench.lines += [_unmeasured(line, reason) for server in servers for line in _lines(server, row)]
                continue
            self._run_latency_row(servers, row)

    def _run_latency_row(self, servers: Sequence[Server], row: Row) -> None:
        """Measure one load: straight to the origin first in each round, then through each server."""
        straight: Answer = {}

        def measure(server: Server, own: Row) -> Answer:
            nonlocal straight
            answer = self._bench.lab.measure(server, own)
            if server.spec is not DIRECT:
                return added_latency(answer, straight)
            straight = answer
            return answer

        direct = Server(DIRECT, servers[0].address, servers[0].child)
        straight_row = Row(row.key, row.group, row.measures, {**row.order, "direct": True}, row.kind)
        self._bench.take_turns([(direct, straight_row), *((server, row) for server in servers)], measure)

    def _capacity_line(self) -> Line | None:
        """Find what a datagram costs the relay; measure it when this run has not."""
        bench = self._bench

        def find() -> Line | None:
            return next((line for line in bench.lines if (line.server, line.key) == (OURS, CAPACITY_ROW)), None)

        spec = next((spec for spec in self._specs if spec.name == OURS), None)
        if find() is None and spec is not None:
            rows = plan_rows(("datagrams",), bench.pace, bench.lab.targets)
            (row,) = (row for row in rows if row.key == CAPACITY_ROW)
            with bench.running([spec]) as servers:
                bench.take_turns([(server, row) for server in servers])
        return find()

    def _run_loss(self) -> None:
        """Measure throughput on a path with loss and delay: by netem, or else by the link in user space."""
        round_trip = f"{2 * DELAY * 1e3:g} ms round trip, {LOSS:.0%} of packets lost each way"
        try:
            with lossy_site(DELAY, LOSS) as site, ExitStack() as stack:
                self.facts["lossy path"] = f"netem between network namespaces: {round_trip}"
                folder = self._bench.lab.folder / "lossy"
                folder.mkdir()
                lab = Lab(stack, folder, self._bench.lab.kit, site)
                inner = Bench(lab, self._bench.pace)
                with inner.running(self._specs) as servers:
                    for row in plan_loss(inner.pace, lab.targets):
                        inner.take_turns([(server, row) for server in servers])
                self._bench.lines += inner.lines
                self._bench.failures |= inner.failures
        except NetemError as error:
            self.facts["lossy path"] = f"a forwarder in user space, for want of netem ({error}): {round_trip}"
            print(f"no netem, so a forwarder in user space: {error}", file=sys.stderr, flush=True)
            with self._bench.running(self._specs) as servers, self._links(servers) as seen:
                for row in plan_loss(self._bench.pace, self._bench.lab.targets):
                    self._bench.take_turns([(server, row) for server in seen])

    @contextmanager
    def _links(self, servers: Sequence[Server]) -> Iterator[list[Server]]:
        """Put a link in front of each server."""
        lab = self._bench.lab
        with ExitStack() as stack:
            seen = []
            for server in servers:
                shape = [str(value) for value in (server.address[1], DELAY, LOSS, _SEED)]
                command = [sys.executable, "-m", "interop.bench.peers.link", *shape]
                seen.append(lab.put_before(stack, server, command))
            yield seen

    def _run_ceiling(self) -> None:
        """Measure what the generator can do at most."""
        bench = self._bench
        with ExitStack() as stack:
            mirror = bench.lab.start_child(stack, MIRROR, bench.lab.kit.mirror)
            for row in plan_ceiling(bench.pace, bench.lab.targets):
                bench.take_turns([(mirror, row)])


def generator_ceiling(line: Line) -> float:
    """Reckon how many echoes a second the generator and the origin could do if nothing else held them up.

    Args:
        line: the relay's line of the capacity row: what a datagram costs the server, and how busy both sides were.

    Returns:
        Echoes a second. With a schedule to keep it is less, because batches are smaller; `late` tells.
    """
    assert line.figure
    return 1e6 * median(line.proxy_busy) / (2 * line.figure * median(line.load_busy))


def _lines(server: Server, row: Row) -> list[Line]:
    """Begin the lines of a row, if the server has its kind of tunnels."""
    return new_lines(server.spec, row) if row.kind in server.spec.kinds else []


def _unmeasured(line: Line, reason: str) -> Line:
    """Say in a line why it has no figure."""
    line.failure = reason
    return line
