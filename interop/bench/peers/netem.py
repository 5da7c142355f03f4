"""A path with delay and loss by the kernel: three network namespaces, and netem on the router between two of them.

    client 10.77.1.1 -- 10.77.1.2 router 10.77.2.2 -- 10.77.2.1 server and origins

netem would take a GSO batch for one packet and lose it whole. The ends therefore give the router single packets
(gso_max_segs 1), and netem sits on the router's two sides, where it delays and loses each on its own.
Namespaces end with the run, and with them their devices and queues.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interop.bench.lab import Site

__all__ = ["NetemError", "lossy_site"]

_PREFIX = "relay-bench-"
_QUEUE = "10000"
_SECONDS = 10.0


class NetemError(Exception):
    """The kernel, or our rights, do not allow it. The text says why."""


@contextmanager
def lossy_site(delay: float, loss: float) -> Iterator[Site]:
    """Make the namespaces, and take them away at last.

    Args:
        delay: seconds that a packet is held back, each way.
        loss: the share of packets that is lost, each way.

    Yields:
        The site: servers and origins inside, the generator outside.

    Raises:
        NetemError: we are not root, a tool is missing, or the kernel has no netem.
    """
    if os.geteuid() != 0:
        raise NetemError("only root may make network namespaces")
    if missing := [tool for tool in ("ip", "tc") if shutil.which(tool) is None]:
        raise NetemError(f"{' and '.join(missing)} missing: install iproute2")
    _remove_stale()
    client, router, server = (f"{_PREFIX}{os.getpid()}-{end}" for end in ("client", "router", "server"))
    try:
        for name in (client, router, server):
            _run("ip", "netns", "add", name)
        _join(client, router, 1)
        _join(server, router, 2)
        _run("ip", "netns", "exec", router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        shape = ("netem", "delay", f"{delay * 1e3:g}ms", "loss", f"{loss * 100:g}%", "limit", _QUEUE)
        for number in (1, 2):
            _run("tc", "-n", router, "qdisc", "add", "dev", f"link{number}", "root", *shape)
        enter = ("ip", "netns", "exec")
        yield Site("10.77.2.1", inside=(*enter, server), outside=(*enter, client))
    finally:
        for name in (client, router, server):
            _remove(name)


def _join(end: str, router: str, number: int) -> None:
    """Lay a wire from an end to the router, and give the end its address and its way out."""
    _run("ip", "-n", end, "link", "set", "lo", "up")
    wire = ("link", "add", "wire", "type", "veth", "peer", "name", f"link{number}", "netns", router)
    _run("ip", "-n", end, *wire)
    _run("ip", "-n", end, "link", "set", "wire", "gso_max_segs", "1")
    for name, device, host in ((end, "wire", 1), (router, f"link{number}", 2)):
        _run("ip", "-n", name, "address", "add", f"10.77.{number}.{host}/24", "dev", device)
        _run("ip", "-n", name, "link", "set", device, "up")
    _run("ip", "-n", end, "route", "add", "default", "via", f"10.77.{number}.2")


def _run(*command: str) -> None:
    """Run a tool."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetemError(f"{command[0]}: {error}") from error
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise NetemError(f"{command[0]}: {reason[-1] if reason else done.returncode}")


def _remove(name: str) -> None:
    """Take a namespace away, if it is there."""
    if name in _namespaces():
        subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=_SECONDS, check=False)


def _remove_stale() -> None:
    """Take away what a run that was killed has left: its number is nobody's any more."""
    for name in _namespaces():
        pid, _, end = name.removeprefix(_PREFIX).partition("-")
        if name.startswith(_PREFIX) and end and pid.isdigit() and not (Path("/proc") / pid).exists():
            _remove(name)


def _namespaces() -> list[str]:
    """List the namespaces that have a name."""
    folder = Path("/run/netns")
    return [file.name for file in folder.iterdir()] if folder.is_dir() else []
