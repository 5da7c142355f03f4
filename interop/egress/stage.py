"""Relay, origin and client as processes of their own, each in its namespace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interop.egress.site import Site
from relay.auth import generate_key, preshared_entry
from relay.egress import read_status
from relay.quic.development import write_certificates

__all__ = ["HINTS", "Stage", "set_stage", "write_pools"]

HINTS = ("u33d-DE", "u09t-FR")
"Hints of the two pools."
_CHECKOUT = Path(__file__).parents[2]
_ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
_PYTHON = (sys.executable, "-m")
_STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs."""

    site: Site
    folder: Path
    relay: subprocess.Popen[str]
    client: subprocess.Popen[str]

    def order(self, **order: object) -> list[dict[str, Any]]:
        """Have the client do something; returns what each session saw."""
        assert self.client.stdin is not None
        assert self.client.stdout is not None
        self.client.stdin.write(json.dumps(order) + "\n")
        self.client.stdin.flush()
        seen: list[dict[str, Any]] = json.loads(self.client.stdout.readline())
        return seen

    def states(self) -> dict[str, dict[str, Any]]:
        """What the relay says of each source, by network."""
        status = read_status(self.folder / "status")
        assert status is not None
        return {source["network"]: source for pool in status["pools"] for source in pool["sources"]}

    def reload(self, quarantine: Sequence[str]) -> None:
        """Put networks into quarantine while the relay serves, and wait until it knows."""
        write_pools(self.site, self.folder / "pools.toml", quarantine)
        self.relay.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + _STOP_SECONDS
        while any(self.states()[network]["state"] != "quarantined" for network in quarantine):
            assert time.monotonic() < deadline, "the relay did not reload"
            time.sleep(0.01)


def write_pools(site: Site, path: Path, quarantine: Sequence[str] = ()) -> None:
    """Write the pools' file: the first half of the addresses for Germany, the rest for France."""
    half = len(site.addresses) // 2
    shares = (("berlin", "DE", "u33d", site.addresses[:half], 0), ("paris", "FR", "u09t", site.addresses[half:], 1))
    lines = [f"quarantine = {json.dumps(list(quarantine))}"]
    for name, country, geohash, addresses, number in shares:
        lines += ["[[pools]]", f'name = "{name}"', f'country = "{country}"', f'geohash = "{geohash}"']
        lines += [f"addresses = {json.dumps([*addresses, site.networks[number]])}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextmanager
def set_stage(site: Site, folder: Path, **settings: str) -> Iterator[Stage]:
    """Start everything, and end it at last.

    Args:
        site: the namespaces.
        folder: where files go.
        settings: of the relay, as `limits__drain="1s"`.
    """
    key = generate_key()
    write_certificates(folder, ["127.0.0.1"])
    write_pools(site, folder / "pools.toml")
    values = {
        "tls.certificate": str(folder / "server.pem"),
        "tls.private_key": str(folder / "server.key"),
        "auth.preshared": json.dumps([preshared_entry(key)]),
        "policy.allow": '["10.88.0.0/16", "fd88::/16"]',
        "resolver.upstreams": '["127.0.0.1"]',
        "egress.file": str(folder / "pools.toml"),
        "egress.status": str(folder / "status"),
        "egress.retry": "100ms",
        "limits.drain": "1s",
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    options = [f"--set={name}={value}" for name, value in values.items()]
    client = (*_PYTHON, "interop.egress.client", "https://127.0.0.1:4433", str(folder / "ca.pem"), key)
    with ExitStack() as stack:
        origin = _start(stack, site.origin, *_PYTHON, "interop.egress.origin")
        relay = _start(stack, site.relay, *_PYTHON, "relay", "serve", *options)
        stage = Stage(site, folder, relay, _start(stack, site.relay, *client))
        for process in (origin, relay):
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError("the origin or the relay did not start")
        yield stage


def _start(stack: ExitStack, enter: Sequence[str], *command: str) -> subprocess.Popen[str]:
    """Start a process that is ended with the stage."""
    process = subprocess.Popen(
        [*enter, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_CHECKOUT, env=_ENVIRONMENT
    )
    stack.enter_context(process)
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
