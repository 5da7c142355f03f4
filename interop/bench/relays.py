"""The servers that can be measured: the relay on each of its QUIC engines, and Envoy; how each is started."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from interop.bench.batches import Address
from interop.bench.envoy import envoy_command
from interop.bench.processes import Child

__all__ = ["SERVERS", "Server", "relay_command", "start_server"]

SERVERS = ("relay-qh3", "relay-aioquic", "envoy")
"The names of all servers, in the order of the report."

_RELAY = "relay-"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    name: str
    "One of SERVERS."
    address: Address
    "Where it listens."
    child: Child
    "Its process."


def relay_command(engine: str, port: int, certificate: Path, key: Path, settings: Sequence[str] = ()) -> list[str]:
    """Write the command that runs the relay with no authentication and loopback allowed.

    Args:
        engine: `qh3` or `aioquic`.
        port: the UDP port to listen on, at 127.0.0.1.
        certificate: the certificate's file.
        key: the key's file.
        settings: more settings, each `name=value`.

    Returns:
        The command.
    """
    wanted = [
        "listen.host=127.0.0.1",
        f"listen.port={port}",
        f"quic.engine={engine}",
        f"tls.certificate={certificate}",
        f"tls.private_key={key}",
        "auth.open=true",
        'policy.allow=["127.0.0.0/8"]',
        *settings,
    ]
    command = [sys.executable, "-m", "relay", "serve"]
    for setting in wanted:
        command += ["--set", setting]
    return command


def start_server(
    name: str, core: int, certificate: Path, key: Path, folder: Path, settings: Sequence[str] = ()
) -> Server:
    """Start a server on a free port. It is ready once it completes a handshake (`run_probe`), not when this returns.

    Args:
        name: one of SERVERS.
        core: the core it has for itself.
        certificate: the certificate's file.
        key: the key's file.
        folder: where its log and configuration go.
        settings: more settings for a relay, each `name=value`.

    Returns:
        The running server; the caller stops its process.

    Raises:
        ChildError: it cannot be started.
        ImportError: Envoy is not installed.
    """
    port = _free_port()
    if name.startswith(_RELAY):
        command = relay_command(name.removeprefix(_RELAY), port, certificate, key, settings)
    else:
        command = envoy_command(port, certificate, key, folder)
    return Server(name, ("127.0.0.1", port), Child(name, command, core, folder, is_silent=True))


def _free_port() -> int:
    """Find a UDP port that is free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
