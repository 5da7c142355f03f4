"""What every measurement needs: the generator, the origins, a certificate, and a core for each side."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from interop.bench.measure import choose_cores
from interop.bench.plan import Answer, Row, Targets
from interop.bench.processes import Child, ChildError
from interop.bench.servers import Place, Server, Spec, choose_port
from relay.quic.development import write_certificates

__all__ = ["LOOPBACK", "PYTHON_KIT", "Kit", "Lab", "Site"]

_SOON = 10.0
_START_SECONDS = 20.0
_LONGEST_ORDER = 120.0
_MODULE = (sys.executable, "-m")


@dataclass(frozen=True, slots=True)
class Kit:
    """The programs that make the load and take it."""

    name: str
    "What to call them in the report."
    generator: tuple[str, ...]
    "Takes orders (`interop.bench.generator`)."
    udp_origin: tuple[str, ...]
    "Echoes datagrams (`interop.bench.origins`)."
    tcp_origin: tuple[str, ...]
    "Serves downloads and uploads (`interop.bench.origins`)."
    mirror: tuple[str, ...] = ()
    "Answers every request and echoes datagrams itself; empty when there is none."
    groups: frozenset[str] = field(default=frozenset({"datagrams", "streams", "handshakes", "memory", "floor"}))
    "The groups of rows whose orders the generator knows."


PYTHON_KIT = Kit(
    "Python on qh3",
    (*_MODULE, "interop.bench.generator"),
    (*_MODULE, "interop.bench.origins", "udp"),
    (*_MODULE, "interop.bench.origins", "tcp"),
)
"The kit that needs no compiler."


@dataclass(frozen=True, slots=True)
class Site:
    """Where the two sides are."""

    host: str = "127.0.0.1"
    "The address that servers listen on."
    inside: tuple[str, ...] = ()
    "What goes before the command of a server or an origin."
    outside: tuple[str, ...] = ()
    "What goes before the generator's command."


LOOPBACK = Site()
"Everything in one place."


class Lab:
    """The generator and the origins of one run; they end with the stack that they were given."""

    def __init__(self, stack: ExitStack, folder: Path, kit: Kit = PYTHON_KIT, site: Site = LOOPBACK) -> None:
        """Start the generator and the origins.

        Args:
            stack: what ends the processes.
            folder: an empty folder for certificate, configurations and logs.
            kit: the programs.
            site: where they are.

        Raises:
            ChildError: one of them did not start.
            OSError: the folder cannot be written to.
        """
        self.kit = kit
        "The programs."
        self.folder = folder
        "Certificate, configurations and logs."
        self.cores = choose_cores()
        "Who runs where."
        self._site = site
        write_certificates(folder, ["localhost", "127.0.0.1"])

        def start(name: str, command: Sequence[str]) -> Child:
            return stack.enter_context(Child(name, command, self.cores.load, folder))

        self._udp = start("udp-origin", [*site.inside, *kit.udp_origin])
        self._tcp = start("tcp-origin", [*site.inside, *kit.tcp_origin])
        self._generator = start("generator", [*site.outside, *kit.generator])
        self.targets = Targets(int(self._udp.read_line(_SOON)), int(self._tcp.read_line(_SOON)))
        "The origins' ports."

    def start(self, stack: ExitStack, spec: Spec) -> Server:
        """Start a server on a free port and wait for its first handshake.

        Args:
            stack: what ends it.
            spec: the server.

        Returns:
            The server, ready.

        Raises:
            ChildError: it did not start, or completes no handshake.
            ImportError: a package is missing.
        """
        certificate, key = self.folder / "server.pem", self.folder / "server.key"
        place = Place(self._site.host, choose_port("127.0.0.1"), certificate, key, self.folder)
        server = spec.start(place, self.cores.proxy, self._site.inside)
        stack.enter_context(server.child)
        deadline = time.monotonic() + _START_SECONDS
        while server.child.is_running and time.monotonic() < deadline:
            if "error" not in self._order(server, {"load": "probe", "seconds": 1.0}):
                return server
        what = "completes no handshake" if server.child.is_running else "has ended"
        raise ChildError(server.child.describe(what))

    def start_child(self, stack: ExitStack, spec: Spec, command: Sequence[str]) -> Server:
        """Start a server that prints its port first.

        Args:
            stack: what ends it.
            spec: what it is.
            command: the program and its arguments.

        Returns:
            The server.

        Raises:
            ChildError: it did not start.
        """
        child = stack.enter_context(Child(spec.name, [*self._site.inside, *command], self.cores.proxy, self.folder))
        return Server(spec, (self._site.host, int(child.read_line(_SOON))), child)

    def measure(self, server: Server, row: Row) -> Answer:
        """Measure a row on a server once.

        Args:
            server: the server; its process is charged.
            row: what to measure.

        Returns:
            The generator's answer; `error` in it says why there is no figure.

        Raises:
            ChildError: the generator ended.
        """
        pids = [server.child.pid, self._udp.pid, self._tcp.pid, *server.helpers]
        answer = self._order(server, {**row.order, "pids": pids})
        if "error" in answer and not server.child.is_running:
            answer["error"] = server.child.describe("has ended")
        return answer

    def put_before(self, stack: ExitStack, server: Server, command: Sequence[str]) -> Server:
        """Put a process in front of a server that forwards to it, and prints its own port first.

        Args:
            stack: what ends the process.
            server: the server.
            command: the program and its arguments.

        Returns:
            The server as it is reached through the process.

        Raises:
            ChildError: the process did not start.
        """
        child = stack.enter_context(Child(f"before-{server.name}", command, self.cores.load, self.folder))
        return replace(server, address=(self._site.host, int(child.read_line(_SOON))), helpers=(child.pid,))

    def _order(self, server: Server, order: Answer) -> Answer:
        """Give the generator an order and wait for its answer."""
        self._generator.write_line(json.dumps({**order, "server": list(server.address)}))
        answer: Answer = json.loads(self._generator.read_line(_LONGEST_ORDER))
        return answer
