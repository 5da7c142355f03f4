"""What a run found, as plain data: written to JSON, read again, and the source of tables and plots."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from interop.bench.report import Line
from interop.bench.spread import Spread, spread_of

__all__ = ["Results", "ResultsError", "load_results", "save_results", "without_paths"]

_FORMAT = 1
_DIGITS = 6
_PATH = re.compile(r"(?<![\w./:}])/(?:[\w.@+-]+/)+([\w.@+-]*)")
"An absolute path of two names or more; the last one is kept. Templates and addresses are none."


class ResultsError(Exception):
    """A file holds no results of this format."""


@dataclass(slots=True)
class Results:
    """One run."""

    made: str = ""
    "The day, as YYYY-MM-DD."
    machine: dict[str, str] = field(default_factory=dict)
    "What it ran on."
    versions: dict[str, str] = field(default_factory=dict)
    "What was measured, and with what."
    command: str = ""
    "How to run it again."
    pace: dict[str, float] = field(default_factory=dict)
    "Rounds, and how long everything took."
    facts: dict[str, str] = field(default_factory=dict)
    "What the run found out about itself."
    skipped: dict[str, str] = field(default_factory=dict)
    "What was not measured, and why."
    failures: dict[str, str] = field(default_factory=dict)
    "What failed, and why."
    servers: list[str] = field(default_factory=list)
    "Who was measured, in the order of the report."
    lines: list[Line] = field(default_factory=list)
    "The figures."

    def line(self, server: str, key: str) -> Line | None:
        """Find a line.

        Args:
            server: who was measured.
            key: the row.

        Returns:
            The line, or None when there is none.
        """
        return next((line for line in self.lines if line.server == server and line.key == key), None)

    def spread(self, server: str, key: str) -> Spread | None:
        """Find a line's figures.

        Args:
            server: who was measured.
            key: the row.

        Returns:
            Their spread, or None when there are none.
        """
        line = self.line(server, key)
        return None if line is None else spread_of(line.valid_figures)

    def keys(self, groups: Iterable[str]) -> list[str]:
        """List the rows of some groups.

        Args:
            groups: the first words of their keys.

        Returns:
            The keys, each once, in the order of the run.
        """
        wanted = set(groups)
        return list(dict.fromkeys(line.key for line in self.lines if line.key.split("/")[0] in wanted))


def save_results(results: Results, file: Path) -> None:
    """Write results as JSON, each line of figures on a line of its own.

    Args:
        results: the run.
        file: where to.

    Raises:
        OSError: the file cannot be written.
    """
    data = {"format": _FORMAT, **asdict(without_paths(results))}
    lines = [json.dumps(_rounded(_lean(line))) for line in data.pop("lines")]
    head = json.dumps(data, indent=1)
    file.write_text(f'{head[:-2]},\n "lines": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n")


def load_results(file: Path) -> Results:
    """Read results.

    Args:
        file: what `save_results` wrote.

    Returns:
        The run.

    Raises:
        OSError: the file cannot be read.
        ResultsError: it holds something else.
    """
    try:
        data: dict[str, Any] = json.loads(file.read_text())
        if data.pop("format") != _FORMAT:
            raise ResultsError(f"{file}: another format than {_FORMAT}")
        lines = [Line(**line) for line in data.pop("lines")]
        return Results(**data, lines=lines)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ResultsError(f"{file} holds no results: {error}") from error


def without_paths(results: Results) -> Results:
    """Leave out where on this machine things are: messages of compilers and servers tell it.

    Args:
        results: the run.

    Returns:
        The same with the last name of each path only.
    """
    return replace(
        results,
        command=_without_path(results.command),
        facts=_all_without_path(results.facts),
        skipped=_all_without_path(results.skipped),
        failures=_all_without_path(results.failures),
        lines=[replace(line, failure=_without_path(line.failure)) for line in results.lines],
    )


def _all_without_path(texts: dict[str, str]) -> dict[str, str]:
    """Cut paths in all of some texts."""
    return {name: _without_path(text) for name, text in texts.items()}


def _without_path(text: str) -> str:
    """Cut paths to their last name."""
    return _PATH.sub(r"\1", text)


def _lean(line: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is empty."""
    return {name: value for name, value in line.items() if value not in ([], "") or name in ("figures", "unit")}


def _rounded(value: Any) -> Any:
    """Cut figures to a few digits."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return {name: _rounded(item) for name, item in value.items()} if isinstance(value, dict) else value
