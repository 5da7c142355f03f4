"""What was said between a case and a driver, kept in a file: one JSON object to a line, long texts cut."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

__all__ = ["Transcript", "read_tail", "shorten"]

_MAX_TEXT = 200
_MAX_ITEMS = 16
_MAX_BYTES = 16 << 20
_TAIL_BYTES = 4000


class Transcript:
    """A file of who said what, and when. Bounded: what comes after the bound is left out, and the file says so."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Args:
            path: the file, which is replaced.

        Raises:
            OSError: it cannot be written.
        """
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._started = time.monotonic()
        self._left = _MAX_BYTES

    def add(self, who: str, value: Any) -> None:
        """Write one line.

        Args:
            who: who said it.
            value: what was said, as JSON has it.
        """
        if self._left <= 0 or self._file.closed:
            return
        at = round(time.monotonic() - self._started, 4)
        line = json.dumps({"at": at, "from": who, "line": _cut(value)}) + "\n"
        self._left -= len(line)
        self._file.write(line)
        if self._left <= 0:
            self._file.write(
                json.dumps({"at": at, "from": "transcript", "line": "too long; the rest is left out"}) + "\n"
            )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _cut(value: Any) -> Any:
    """Cut long texts and lists, and say how long they were."""
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        return f"{value[:_MAX_TEXT]}... ({len(value)} characters)"
    if isinstance(value, dict):
        return {name: _cut(item) for name, item in value.items()}
    if isinstance(value, list):
        rest = [f"... ({len(value)} items)"] if len(value) > _MAX_ITEMS else []
        return [_cut(item) for item in value[:_MAX_ITEMS]] + rest
    return value


def shorten(value: object) -> str:
    """Write a value for a message: on one line, and not longer than a message should be."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."


def read_tail(path: Path, size: int = _TAIL_BYTES) -> str:
    """Read the end of a log.

    Args:
        path: the file; one that is not there is empty.
        size: how many bytes at most.

    Returns:
        Whole lines where there is more than one, without white space around them.
    """
    try:
        with path.open("rb") as file:
            length = file.seek(0, 2)
            file.seek(max(0, length - size))
            data = file.read()
    except OSError:
        return ""
    if length > size and b"\n" in data[:-1]:
        data = data.partition(b"\n")[2]
    return data.decode(errors="replace").strip()
