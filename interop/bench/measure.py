"""What a process costs: CPU time and resident memory, read from the kernel's own account.

CPU time is the process's CPU clock (clock_getcpuclockid(3)): the user and system time of all its threads, the same
sum that /proc/PID/stat gives in hundredths of a second, but in nanoseconds, so that short measurements count too.
A process counts together with its descendants, so a server that forks workers is measured whole.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cores", "Cost", "Meter", "Usage", "choose_cores", "read_usage"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
_CPU_CLOCK = 2
"The kind of a process's CPU clock in the low three bits of its id; the inverted process id is above them."


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the server has for itself, and which one carries the load generator and the origins."""

    proxy: int
    "The core of the server under test."
    load: int
    "The core of everything else; the same core on a machine that has only one."


@dataclass(frozen=True, slots=True)
class Usage:
    """One reading of a process and its descendants."""

    cpu_seconds: float
    "User and system time of all threads so far."
    rss_bytes: int
    "Resident memory now."


@dataclass(frozen=True, slots=True)
class Cost:
    """What one measurement found."""

    work: float
    "Units of work done: datagrams relayed, bytes carried, handshakes."
    offered: float
    "Units of work asked for."
    seconds: float
    "How long it took."
    proxy_cpu: float
    "CPU seconds of the server alone."
    load_cpu: float
    "CPU seconds of the generator and the origins."


class Meter:
    """Reads CPU time at two moments: the server's, and that of the generator and the origins.

    The loads count their work between the same two moments, so start-up, handshakes and warm-up are never part of
    a figure. It runs in the generator's process.
    """

    def __init__(self, pids: list[int]) -> None:
        """Read the first time.

        Args:
            pids: the server's process, then those of the origins.

        Raises:
            OSError: one of them does not exist.
        """
        self._pids = pids
        self._start = self._read()

    def stop(self, work: float, offered: float) -> Cost:
        """Read the second time.

        Args:
            work: units done between the two moments.
            offered: units asked for between them.

        Returns:
            The difference of the readings.

        Raises:
            OSError: one of the processes has ended.
        """
        (wall, proxy, load), (wall_end, proxy_end, load_end) = self._start, self._read()
        return Cost(work, offered, wall_end - wall, proxy_end - proxy, load_end - load)

    def _read(self) -> tuple[float, float, float]:
        """Read the clock, the server's CPU time, and everyone else's."""
        proxy, *origins = (read_usage(pid).cpu_seconds for pid in self._pids)
        return time.monotonic(), proxy, time.process_time() + sum(origins)


def choose_cores() -> Cores:
    """Take the first two cores that this process may use.

    Returns:
        The cores; both are the same where there is only one.
    """
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(proxy=allowed[0], load=allowed[1 if len(allowed) > 1 else 0])


def read_usage(pid: int) -> Usage:
    """Read what a process and its descendants have used.

    Args:
        pid: the process; its threads are part of it.

    Returns:
        The sum over the process and all its descendants that are alive.

    Raises:
        OSError: the process does not exist.
    """
    cpu, rss = _read_one(pid)
    for child in _descendants(pid):
        try:
            child_cpu, child_rss = _read_one(child)
        except OSError:
            continue
        cpu += child_cpu
        rss += child_rss
    return Usage(cpu, rss)


def _read_one(pid: int) -> tuple[float, int]:
    """Read CPU seconds and resident bytes of one process."""
    pages = int((Path("/proc") / str(pid) / "statm").read_text().split()[1])
    return time.clock_gettime(~pid << 3 | _CPU_CLOCK), pages * _PAGE


def _descendants(pid: int) -> list[int]:
    """List the processes that a process and its children have started."""
    found: list[int] = []
    for listing in (Path("/proc") / str(pid) / "task").glob("*/children"):
        try:
            children = [int(word) for word in listing.read_text().split()]
        except OSError:
            continue
        for child in children:
            found.append(child)
            found.extend(_descendants(child))
    return found
