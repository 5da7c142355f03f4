"""One run of the comparison: every group of rows, on all servers in turns."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack

from interop.bench.bench import Bench, MemoryTurn, RowTurn, Turn
from interop.bench.lab import Lab
from interop.bench.peers.latency import LatencyTurn
from interop.bench.peers.netem import NetemError, lossy_site
from interop.bench.peers.plan import DELAY, LOSS, plan_ceiling, plan_fairness, plan_loss, plan_tunnels
from interop.bench.plan import Row
from interop.bench.processes import has_priority
from interop.bench.servers import Server, Spec

__all__ = ["MIRROR", "Comparison"]

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
        self.facts["priority"] = (
            "real-time for servers, origins and generator, so that nothing else on the machine takes their cores"
            if has_priority()
            else "none: only root may ask for it, and whatever else runs disturbs what is measured"
        )
        known = self._bench.lab.kit.groups
        wanted = [group for group in groups if group in known]
        for group in groups:
            if group not in known:
                self.skipped[f"rows {group}"] = f"the generator ({self._bench.lab.kit.name}) does not know them"
                print(f"SKIP  rows {group}: {self.skipped[f'rows {group}']}", file=sys.stderr, flush=True)
        with ExitStack() as stack:
            turns = self._plan(stack, wanted)
            try:
                self._go_round(turns)
            finally:
                for turn in turns:
                    self._bench.keep(turn.lines)
                for turn in turns:
                    self.facts |= turn.facts if isinstance(turn, LatencyTurn) else {}

    def _go_round(self, turns: Sequence[Turn]) -> None:
        """Take all turns in every round, so that a row's rounds are spread over the whole run.

        What the machine does meanwhile, in minutes, is then in the spread of every row, and two runs can agree.
        """
        for number in range(1, self._bench.pace.rounds + 1):
            print(f"round {number} of {self._bench.pace.rounds}", file=sys.stderr, flush=True)
            for turn in turns:
                turn.take()

    def _plan(self, stack: ExitStack, groups: Sequence[str]) -> list[Turn]:
        """Start what is needed, and list what is measured in each round."""
        bench, turns = self._bench, list[Turn]()
        pace, targets = bench.pace, bench.lab.targets
        if timed := [group for group in _TIMED if group in groups]:
            servers = stack.enter_context(bench.running(self._specs))
            turns += bench.plan_turns(servers, tuple(timed))
            turns += _all(bench, servers, plan_tunnels(pace, targets) if "tunnels" in groups else [])
            turns += [LatencyTurn(bench, servers)] if "latency" in groups else []
            turns += _all(bench, servers, plan_fairness(pace, targets) if "fairness" in groups else [])
        turns += [MemoryTurn(bench, self._specs)] if "memory" in groups else []
        turns += self._plan_loss(stack) if "loss" in groups else []
        if "ceiling" in groups:
            mirror = bench.lab.start_child(stack, MIRROR, bench.lab.kit.mirror)
            turns += _all(bench, [mirror], plan_ceiling(pace, targets))
        turns += bench.plan_floor_turns(stack) if "floor" in groups else []
        return turns

    def _plan_loss(self, stack: ExitStack) -> list[Turn]:
        """Make a path with loss and delay, by netem or else by the link in user space, with servers behind it."""
        round_trip = f"{2 * DELAY * 1e3:g} ms round trip, {LOSS:.0%} of packets lost each way"
        bench = self._bench
        try:
            site = stack.enter_context(lossy_site(DELAY, LOSS))
        except NetemError as error:
            self.facts["lossy path"] = f"a forwarder in user space, for want of netem ({error}): {round_trip}"
            print(f"no netem, so a forwarder in user space: {error}", file=sys.stderr, flush=True)
            able = [spec for spec in self._specs if "tcp" in spec.kinds]
            servers = [self._behind_link(stack, server) for server in stack.enter_context(bench.running(able))]
        else:
            self.facts["lossy path"] = f"netem between network namespaces: {round_trip}"
            folder = bench.lab.folder / "lossy"
            folder.mkdir()
            inner = Bench(Lab(stack, folder, bench.lab.kit, site), bench.pace)
            inner.failures = bench.failures
            bench = inner
            servers = stack.enter_context(bench.running(self._specs))
        return _all(bench, servers, plan_loss(bench.pace, bench.lab.targets))

    def _behind_link(self, stack: ExitStack, server: Server) -> Server:
        """Put a link in front of a server."""
        shape = [str(value) for value in (server.address[1], DELAY, LOSS, _SEED)]
        command = [sys.executable, "-m", "interop.bench.peers.link", *shape]
        return self._bench.lab.put_before(stack, server, command)


def _all(bench: Bench, servers: Sequence[Server], rows: Sequence[Row]) -> list[Turn]:
    """Measure rows on all servers."""
    return [RowTurn(bench, [(server, row) for server in servers]) for row in rows]
