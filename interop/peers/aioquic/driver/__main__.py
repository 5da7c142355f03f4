"""Requests from standard input, answers to standard output, one JSON object to a line."""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.metadata import version

from .verbs import FEATURES, Driver, Values


def _write(message: Values) -> None:
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
    sys.stdout.buffer.flush()


async def _run() -> None:
    """Answer requests until standard input ends; what is not answered then is given up."""
    driver = Driver()
    _write({"peer": "aioquic", "version": f"aioquic {version('aioquic')}", "features": FEATURES})

    async def answer(line: bytes) -> None:
        _write(await driver.answer(line))

    try:
        async with asyncio.TaskGroup() as tasks:
            running: set[asyncio.Task[None]] = set()
            while line := await asyncio.to_thread(sys.stdin.buffer.readline):
                task = tasks.create_task(answer(line))
                running.add(task)
                task.add_done_callback(running.discard)
            for task in running:
                task.cancel()
    finally:
        await driver.aclose()


if __name__ == "__main__":
    asyncio.run(_run())
