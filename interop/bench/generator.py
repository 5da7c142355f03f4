"""The load generator's process: takes one order a line, answers one line of JSON.

    python -m interop.bench.generator

An order is `{"load": NAME, ...}` with the arguments of the load's function; an address is a list of two. The
answer is what the load gives back, or `{"error": WHY}`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from interop.bench.connections import run_handshakes, run_memory, run_probe
from interop.bench.datagrams import run_datagrams, run_floor
from interop.bench.measure import Cost
from interop.bench.pool import NoAnswerError
from interop.bench.streams import run_streams

__all__ = ["serve"]

_LOADS: dict[str, Callable[..., Cost | dict[str, float]]] = {
    "datagrams": run_datagrams,
    "floor": run_floor,
    "handshakes": run_handshakes,
    "memory": run_memory,
    "probe": run_probe,
    "streams": run_streams,
}


def serve() -> None:
    """Carry out orders until the input ends."""
    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        load = _LOADS[order.pop("load")]
        order["server"] = tuple(order["server"])
        try:
            found = load(**order)
            answer: dict[str, Any] = asdict(found) if isinstance(found, Cost) else found
        except (NoAnswerError, OSError) as error:
            answer = {"error": str(error) or type(error).__name__}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
