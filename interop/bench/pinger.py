"""Writes the time to standard output, again and again: `python -m interop.bench.pinger CORE SECONDS`.

Whoever reads it sees how late it comes to what arrives. Each stamp is the monotonic clock's, 8 bytes, in nanoseconds;
that clock is the same for all processes. It sleeps until shortly before each is due, and then watches the clock.
"""

from __future__ import annotations

import os
import sys
import time

__all__ = ["INTERVAL", "main"]

INTERVAL = 0.001
"Seconds between two stamps."
_AWAKE = 0.0002


def main(core: int, seconds: float) -> None:
    """Write stamps for so long."""
    os.sched_setaffinity(0, {core})
    due = time.monotonic()
    end = due + seconds
    while due < end:
        due = max(due + INTERVAL, time.monotonic())
        time.sleep(max(0.0, due - _AWAKE - time.monotonic()))
        while time.monotonic() < due:
            pass
        os.write(1, time.monotonic_ns().to_bytes(8, "big"))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
