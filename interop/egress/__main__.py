"""Proof of egress in network namespaces: `python -m interop.egress [--addresses 200] [--tunnels 10000]`. Needs root.

The origin says which address every tunnel came from: TCP and UDP, IPv4 and IPv6, all tunnels open at the same time.
Half of the sessions ask for Germany and half for France, and each country has half of the addresses.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from interop.egress.client import KINDS
from interop.egress.report import judge
from interop.egress.site import SiteError, make_site
from interop.egress.stage import HINTS, set_stage

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the proof and print what was seen.

    Returns:
        0; 1 when something is not as it should be, or namespaces cannot be made.
    """
    parser = argparse.ArgumentParser(prog="python -m interop.egress", description=__doc__)
    parser.add_argument("--addresses", type=int, default=200, help="IPv4 egress addresses")
    parser.add_argument("--tunnels", type=int, default=10_000, help="tunnels, all open at once")
    options = parser.parse_args(arguments)
    sessions = options.tunnels // len(KINDS)
    try:
        with (
            make_site(options.addresses) as site,
            tempfile.TemporaryDirectory() as name,
            set_stage(site, Path(name), limits__idle="10m", limits__tcp_idle="10m", limits__udp_idle="10m") as stage,
        ):
            started = time.monotonic()
            seen = stage.order(sessions=sessions, hints=HINTS)
            seconds = time.monotonic() - started
            counted = sum(state["tunnels"] for state in stage.states().values())
            cpu = _cpu_seconds(stage.relay.pid)
    except SiteError as error:
        print(f"egress: {error}", file=sys.stderr)
        return 1
    lines, wrong = judge(site, seen)
    if counted != sessions * len(KINDS):
        wrong.append(f"the relay counts {counted} tunnels")
    print(f"{sessions * len(KINDS)} tunnels of {sessions} sessions, all open at once, opened in {seconds:.1f} s")
    print(f"CPU of the relay: {cpu:.1f} s, start and handshakes included")
    for line in [*lines, *(f"WRONG: {fault}" for fault in wrong)]:
        print(line)
    return 1 if wrong else 0


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    sys.exit(main())
