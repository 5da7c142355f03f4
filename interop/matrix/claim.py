"""Two runs in one checkout: each builds when the other does not, and writes logs where the other does not."""

from __future__ import annotations

import asyncio
import fcntl
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO

__all__ = ["alone", "claim_results"]

_POLL_SECONDS = 0.1


@contextmanager
def claim_results(home: Path) -> Iterator[Path]:
    """Have a folder for results for the time of the context.

    Args:
        home: an existing folder.

    Yields:
        `results` in it, or a fresh folder while another run has that one.
    """
    with (home / "results.lock").open("w") as file:
        if _is_taken(file):
            yield Path(tempfile.mkdtemp(prefix="results-", dir=home))
        else:
            yield home / "results"


@asynccontextmanager
async def alone(lock: Path) -> AsyncIterator[None]:
    """Wait until no other process is in this context with the same file.

    Args:
        lock: the file; it is made.
    """
    with lock.open("w") as file:
        while _is_taken(file):  # noqa: ASYNC110  the kernel's own waiting would hold up the whole loop
            await asyncio.sleep(_POLL_SECONDS)
        yield


def _is_taken(file: IO[str]) -> bool:
    """Take a lock that lasts until the file is closed; true when somebody else has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
