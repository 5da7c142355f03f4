"""One run of the comparison: every group of rows, on all servers in turns."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from interop.bench.bench import Bench
from interop.bench.lab import Lab
from interop.bench.peers.latency import LatencyRun
from interop.bench.peers.netem import NetemError, lossy_site
from interop.bench.peers.plan import DELAY, LOSS, plan_ceiling, plan_fairness, plan_loss, plan_tunnels
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
            latency = LatencyRun(self._bench, servers)
            latency.run()
            self.facts |= latency.facts
        rows = plan_fairness(pace, targets) if "fairness" in groups else []
        for row in rows:
            self._bench.take_turns([(server, row) for server in servers])

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
