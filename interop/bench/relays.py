"""The servers that come with the benchmark: the relay on each of its QUIC engines, and Envoy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from interop.bench.envoy import envoy_command
from interop.bench.servers import Place, Spec

__all__ = ["SERVERS", "relay_command", "server_specs"]

SERVERS = ("relay-qh3", "relay-aioquic", "envoy")
"The names of all servers, in the order of the report."

_RELAY = "relay-"


def relay_command(engine: str, place: Place, settings: Sequence[str] = ()) -> list[str]:
    """Write the command that runs the relay with no authentication and loopback allowed.

    Args:
        engine: `qh3` or `aioquic`.
        place: where it shall be.
        settings: more settings, each `name=value`.

    Returns:
        The command.
    """
    wanted = [
        f"listen.host={place.host}",
        f"listen.port={place.port}",
        f"quic.engine={engine}",
        f"tls.certificate={place.certificate}",
        f"tls.private_key={place.key}",
        "auth.open=true",
        'policy.allow=["127.0.0.0/8"]',
        *settings,
    ]
    command = [sys.executable, "-m", "relay", "serve"]
    for setting in wanted:
        command += ["--set", setting]
    return command


def server_specs(settings: Sequence[str] = ()) -> dict[str, Spec]:
    """List the servers.

    Args:
        settings: more settings for a relay, each `name=value`.

    Returns:
        What is known of each of SERVERS, in their order.
    """
    return {
        name: Spec(
            name,
            partial(relay_command, name.removeprefix(_RELAY), settings=settings)
            if name.startswith(_RELAY)
            else envoy_command,
            is_slow=name == "relay-aioquic",
        )
        for name in SERVERS
    }
