"""One run: the processes, the rounds in which the servers take turns, and the lines that come of them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from interop.bench.batches import Address
from interop.bench.certificate import write_certificate
from interop.bench.measure import choose_cores
from interop.bench.plan import Pace, Row, plan_floor, plan_rows
from interop.bench.processes import Child, ChildError
from interop.bench.relays import Server, start_server
from interop.bench.report import Line

__all__ = ["Bench"]

_SOON = 10.0
_START_SECONDS = 20.0
_LONGEST_ORDER = 120.0
_SLOW = "relay-aioquic"
_MEMORY_LINES = ("connection", "udp_tunnel", "tcp_tunnel")


class Bench:
    """The generator, the origins and the servers of one run; all end with the stack that they were given."""

    def __init__(self, stack: ExitStack, folder: Path, pace: Pace, settings: Sequence[str] = ()) -> None:
        """Start the generator and the origins.

        Args:
            stack: what ends the processes.
            folder: an empty folder for certificate, configuration and logs.
            pace: how long everything takes.
            settings: more settings for the relay.

        Raises:
            ChildError: one of them did not start.
            OSError: the folder cannot be written to.
        """
        self.lines: list[Line] = []
        "What has been measured."
        self.failures: list[str] = []
        "Servers that did not start, and why."
        self._folder = folder
        self._pace = pace
        self._settings = settings
        self._cores = choose_cores()
        self._certificate, self._key = write_certificate(folder)
        module = [sys.executable, "-m", "interop.bench."]
        self._udp, self._tcp = (
            stack.enter_context(
                Child(f"{kind}-origin", [*module[:2], module[2] + "origins", kind], self._cores.load, folder)
            )
            for kind in ("udp", "tcp")
        )
        self._generator = stack.enter_context(
            Child("generator", [*module[:2], module[2] + "generator"], self._cores.load, folder)
        )
        self._udp_target = int(self._udp.read_line(_SOON))
        self._tcp_target = int(self._tcp.read_line(_SOON))

    def run_servers(self, names: Sequence[str], groups: tuple[str, ...]) -> None:
        """Measure servers in turns: every row, every round, one server after the other.

        Args:
            names: which of SERVERS.
            groups: which of GROUPS.

        Raises:
            ChildError: the generator ended.
        """
        timed = tuple(group for group in groups if group != "memory")
        with ExitStack() as stack:
            servers = []
            for name in names:
                server = self._start(stack, name)
                if server is not None:
                    servers.append(server)
            plans = [self._plan(server.name, timed) for server in servers]
            for rows in zip(*plans, strict=True):
                lines = [Line(server.name, row.key, row.unit) for server, row in zip(servers, rows, strict=True)]
                self.lines += lines
                for _ in range(self._pace.rounds):
                    for server, row, line in zip(servers, rows, lines, strict=True):
                        self._measure(server.address, server.child, row, line)
                self._tell(lines)
        if "memory" in groups:
            for name in names:
                self._run_memory(name)

    def run_floor(self) -> None:
        """Measure the kernel alone.

        Raises:
            ChildError: the forwarder or the generator ended.
        """
        command = [sys.executable, "-m", "interop.bench.floor", str(self._udp_target)]
        with Child("floor", command, self._cores.proxy, self._folder) as forwarder:
            address = ("127.0.0.1", int(forwarder.read_line(_SOON)))
            for row in plan_floor(self._pace):
                line = Line("floor", row.key, row.unit)
                self.lines.append(line)
                for _ in range(self._pace.rounds):
                    self._measure(address, forwarder, row, line)
                self._tell([line])

    def _plan(self, name: str, groups: tuple[str, ...]) -> list[Row]:
        """List the rows of one server."""
        return plan_rows(groups, self._pace, self._udp_target, self._tcp_target, name == _SLOW)

    def _start(self, stack: ExitStack, name: str) -> Server | None:
        """Start a server and wait for its first handshake; keep the reason when it fails."""
        if any(failure.startswith(f"{name} ") for failure in self.failures):
            return None
        try:
            server = start_server(name, self._cores.proxy, self._certificate, self._key, self._folder, self._settings)
            stack.enter_context(server.child)
            if self._is_ready(server):
                return server
            reason = server.child.describe("completes no handshake" if server.child.is_running else "has ended")
        except (ChildError, ImportError) as error:
            reason = str(error)
        self.failures.append(f"{name} did not start: {reason}")
        print(self.failures[-1], file=sys.stderr, flush=True)
        return None

    def _is_ready(self, server: Server) -> bool:
        """Wait for a server's first handshake, as long as it runs."""
        deadline = time.monotonic() + _START_SECONDS
        while server.child.is_running and time.monotonic() < deadline:
            if "error" not in self._order(server.address, {"load": "probe", "seconds": 1.0}):
                return True
        return False

    def _run_memory(self, name: str) -> None:
        """Measure one server's memory, freshly started."""
        (row,) = self._plan(name, ("memory",))
        with ExitStack() as stack:
            server = self._start(stack, name)
            if server is None:
                return
            answer = self._order(server.address, {**row.order, "pids": [server.child.pid]})
        lines = [Line(name, f"memory/{key}", row.unit) for key in _MEMORY_LINES]
        for line, key in zip(lines, _MEMORY_LINES, strict=True):
            if "error" in answer:
                line.failure = answer["error"]
            else:
                line.figures.append(answer[key] / 1024)
        self.lines += lines
        self._tell(lines)

    def _measure(self, address: Address, server: Child, row: Row, line: Line) -> None:
        """Measure one row once, and add what came of it to its line."""
        if line.failure:
            return
        pids = [server.pid, self._udp.pid, self._tcp.pid]
        answer = self._order(address, {**row.order, "pids": pids})
        if "error" in answer:
            line.failure = answer["error"] if server.is_running else "the server has ended"
            return
        if not answer["work"]:
            line.failure = "nothing arrived"
            return
        line.figures.append(row.figure(answer["work"], answer["proxy_cpu"]))
        line.delivered.append(min(1.0, answer["work"] / answer["offered"]) if answer["offered"] else 0.0)
        line.proxy_busy.append(answer["proxy_cpu"] / answer["seconds"])
        line.load_busy.append(answer["load_cpu"] / answer["seconds"])

    def _order(self, address: Address, order: dict[str, Any]) -> dict[str, Any]:
        """Give the generator an order and wait for its answer."""
        self._generator.write_line(json.dumps({**order, "server": list(address)}))
        answer: dict[str, Any] = json.loads(self._generator.read_line(_LONGEST_ORDER))
        return answer

    def _tell(self, lines: Sequence[Line]) -> None:
        """Show that the run goes on."""
        for line in lines:
            figure = "-" if line.figure is None else f"{line.figure:.2f} {line.unit}"
            print(f"{line.server}  {line.key}  {figure}", file=sys.stderr, flush=True)
