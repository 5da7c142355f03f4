"""What a server under test is: how it is started, where, and which tunnels it has."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from interop.bench.batches import Address
from interop.bench.processes import CHECKOUT, Child

__all__ = ["BOTH", "Place", "Server", "Spec", "choose_port"]

BOTH = frozenset({"udp", "tcp"})
"Both kinds of tunnels."
_PORTS = range(20_000, 32_000)
"Below the ports that the kernel gives to sockets which ask for none: nobody takes one between choosing and use."


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server shall be, and what it needs to be there."""

    host: str
    "The IPv4 address to listen on."
    port: int
    "The UDP port to listen on."
    certificate: Path
    "The certificate's file."
    key: Path
    "The key's file."
    folder: Path
    "Where its configuration goes."


@dataclass(frozen=True, slots=True)
class Spec:
    """A server that can be started."""

    name: str
    "What to call it."
    command: Callable[[Place], Sequence[str]]
    "Writes the command. Raises ImportError when a package is missing."
    kinds: frozenset[str] = BOTH
    "The tunnels it has: `udp`, `tcp`."
    is_slow: bool = False
    "It is so slow that its stream rows carry less."
    home: Path = CHECKOUT
    "Where its command runs."

    def start(self, place: Place, core: int, inside: Sequence[str] = ()) -> Server:
        """Start it. It is ready once it completes a handshake (`run_probe`), not when this returns.

        Args:
            place: where.
            core: the core it has for itself.
            inside: what goes before its command, for example to enter a network namespace.

        Returns:
            The running server; the caller stops its process.

        Raises:
            ChildError: it cannot be started.
            ImportError: a package is missing.
        """
        command = [*inside, *self.command(place)]
        child = Child(self.name, command, core, place.folder, is_silent=True, home=self.home)
        return Server(self, (place.host, place.port), child)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    spec: Spec
    "What it is."
    address: Address
    "Where it listens."
    child: Child
    "Its process."
    helpers: tuple[int, ...] = ()
    "Processes in front of it, which count as load."

    @property
    def name(self) -> str:
        """What to call it."""
        return self.spec.name


def choose_port(host: str) -> int:
    """Find a UDP port that is free now.

    Args:
        host: the address it is for.

    Raises:
        OSError: there is none.
    """
    for _ in range(100):
        port = secrets.choice(_PORTS)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                sock.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError("no UDP port is free")
