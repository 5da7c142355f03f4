"""Two network namespaces and a wire: the relay and its addresses in one, the origin in the other.

    relay  10.88.0.2, fd88::2  ----  origin  10.88.0.1, fd88::1
           10.88.1.1 and so on: egress addresses; fd88:1:49::/64 and fd88:1:33::/64 are routed to the relay

A namespace belongs to a process that ends when its standard input does, so none is left behind, however we end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address

__all__ = ["ORIGIN4", "ORIGIN6", "Site", "SiteError", "make_site", "run"]

ORIGIN4, ORIGIN6 = "10.88.0.1", "fd88::1"
_FIRST = IPv4Address("10.88.1.1")
_SECONDS = 20.0
_TOOLS = {"ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux"}


class SiteError(Exception):
    """The namespaces cannot be made. The text says why."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where things run, and which addresses there are."""

    relay: tuple[str, ...]
    "What to put before a command to run it where the relay is."
    origin: tuple[str, ...]
    "The same, where the origin is."
    addresses: tuple[str, ...]
    "IPv4 egress addresses."
    networks: tuple[str, str] = ("fd88:1:49::/64", "fd88:1:33::/64")
    "IPv6 egress networks."


@contextmanager
def make_site(addresses: int) -> Iterator[Site]:
    """Make the namespaces for the time of the context.

    Args:
        addresses: how many IPv4 egress addresses the relay has.

    Raises:
        SiteError: we are not root, or a tool is missing or refuses.
    """
    if os.geteuid() != 0:
        raise SiteError("only root may make network namespaces")
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            raise SiteError(f"{tool} is missing: install {package}")
    with ExitStack() as stack:
        relay, origin = (_hold(stack) for _ in range(2))
        site = Site(_enter(relay), _enter(origin), tuple(str(_FIRST + number) for number in range(addresses)))
        run(
            "ip",
            "link",
            "add",
            "wire",
            "netns",
            str(relay),
            "type",
            "veth",
            "peer",
            "name",
            "wire",
            "netns",
            str(origin),
        )
        for enter, host in ((site.relay, 2), (site.origin, 1)):
            lines = [
                "link set lo up",
                "link set wire up",
                f"address add 10.88.0.{host}/16 dev wire",
                f"address add fd88::{host}/64 dev wire nodad",
            ]
            if host == 2:
                lines += [f"address add {address}/32 dev wire" for address in site.addresses]
                lines += [f"-6 route add local {network} dev lo" for network in site.networks]
                lines += [f"route add default via {ORIGIN4}", f"-6 route add default via {ORIGIN6}"]
            else:
                lines += [f"-6 route add {network} via fd88::2" for network in site.networks]
            for family in ("", "-6 "):
                batch = [line.removeprefix(family) for line in lines if line.startswith("-6 ") == bool(family)]
                run(*enter, "ip", *family.split(), "-batch", "-", given="\n".join(batch) + "\n")
        yield site


def _hold(stack: ExitStack) -> int:
    """Start the process that a namespace belongs to; returns its id."""
    holder = stack.enter_context(
        subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write(b"\n")
    holder.stdin.flush()
    if holder.stdout.readline() != b"\n":
        raise SiteError("unshare: the kernel makes no network namespace")
    return holder.pid


def _enter(pid: int) -> tuple[str, ...]:
    return ("nsenter", f"--net=/proc/{pid}/ns/net")


def run(*command: str, given: str = "") -> None:
    """Run a tool. Raises SiteError when it refuses."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise SiteError(f"{command[0]}: {reason[-1] if reason else done.returncode}")
