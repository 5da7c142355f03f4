"""Results of a run: cells in columns, how they are kept in results.json, and what counts as worse than before."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

__all__ = [
    "Cell",
    "Change",
    "Column",
    "Matrix",
    "Result",
    "ResultsError",
    "Side",
    "Weight",
    "compare",
    "encode_results",
    "merge",
    "parse_results",
    "stable_reason",
]

_FORMAT = 1
_PORT = re.compile(r"(?<=[\d\]a-z]:)\d{4,5}\b")
_ADDRESS = re.compile(r"\b(?!127\.)(?:\d{1,3}\.){3}\d{1,3}\b")
_KEY = re.compile(r"\b[0-9a-f]{16,}\b")


class ResultsError(Exception):
    """A results.json cannot be read. The text says why."""


class Result(StrEnum):
    """What came of a case."""

    PASS = "PASS"
    FAIL = "FAIL"
    SKIP = "SKIP"
    "The peer could not be built here: a tool is missing."
    NONE = "n/a"
    "The peer's package or the server lacks what the case needs."


class Side(StrEnum):
    """Which of the two matrices."""

    CLIENTS = "clients"
    "Clients in other languages through our relay."
    SERVERS = "servers"
    "Our client through other servers."


@dataclass(frozen=True, slots=True)
class Cell:
    """One case with one peer."""

    case: str
    "The case's name."
    result: Result
    "What came of it."
    reason: str = ""
    "Why it is no PASS; or what a server should have done and did not."
    seconds: float = 0.0
    "How long it took; not kept."


@dataclass(frozen=True, slots=True)
class Column:
    """One peer with its cases."""

    side: Side
    "Which matrix it is in."
    name: str
    "The peer's name."
    about: str
    "What is tested."
    language: str
    "What it is written in."
    version: str = ""
    "What the driver said of its packages; empty when it could not be asked."
    planned: str = ""
    "What its driver waits for, when there is none yet."
    cells: Mapping[str, Cell] = field(default_factory=dict)
    "By case."


Matrix = Sequence[Column]
"Clients first, then servers, each by name."


class Weight(StrEnum):
    """What a change means."""

    WORSE = "worse"
    "A regression."
    OTHER = "other"
    "It failed before too, and for another reason."
    UNSEEN = "not seen"
    "It passed before and was skipped now."
    BETTER = "better"
    "The kept results can be updated."


@dataclass(frozen=True, slots=True)
class Change:
    """A cell that is not what it was."""

    weight: Weight
    "What it means."
    text: str
    "Which cell, what it was and is."


def compare(before: Matrix, now: Matrix, *, is_whole: bool) -> list[Change]:
    """Find what changed.

    Args:
        before: the kept results.
        now: this run's.
        is_whole: every peer and case was run, so what is not there is gone.

    Returns:
        The changes, in the order of the matrix.
    """
    old = {(column.side, column.name): column for column in before}
    changes = []
    for column in now:
        kept = old.get((column.side, column.name))
        for cell in column.cells.values():
            was = None if kept is None else kept.cells.get(cell.case)
            change = _weigh(was, cell)
            if change is not None:
                was_text = "not listed" if was is None else was.result.value
                reason = f": {cell.reason}" if cell.reason else ""
                changes.append(Change(change, f"{column.name} {cell.case}: was {was_text}, is {cell.result}{reason}"))
    return changes + (_find_gone(before, now) if is_whole else [])


def _weigh(was: Cell | None, cell: Cell) -> Weight | None:
    """Judge one cell; None when it is as good as before."""
    passed = was is not None and was.result is Result.PASS
    failed = was is not None and was.result is Result.FAIL
    match cell.result:
        case Result.PASS:
            return None if passed else Weight.BETTER
        case Result.FAIL if was is not None and failed:
            return None if stable_reason(cell.reason) == was.reason else Weight.OTHER
        case Result.FAIL:
            return Weight.WORSE
        case Result.SKIP:
            return Weight.UNSEEN if passed else None
        case Result.NONE:
            return Weight.WORSE if passed else None


def _find_gone(before: Matrix, now: Matrix) -> list[Change]:
    """Cells that passed and are not in the matrix any more."""
    there = {(column.side, column.name, case) for column in now for case in column.cells}
    return [
        Change(Weight.WORSE, f"{column.name} {cell.case}: was PASS, is gone")
        for column in before
        for cell in column.cells.values()
        if cell.result is Result.PASS and (column.side, column.name, cell.case) not in there
    ]


def merge(before: Matrix, now: Matrix, cases: Sequence[str], *, is_whole: bool) -> list[Column]:
    """Put a run's results over those that were kept. A skipped cell keeps what it was.

    Args:
        before: the kept results.
        now: this run's.
        cases: the names of all cases, in the order of the report.
        is_whole: every peer and case was run, so what is not there goes.

    Returns:
        What to keep.
    """
    columns = {} if is_whole else {(column.side, column.name): column for column in before}
    kept = {(column.side, column.name): column for column in before}
    for column in now:
        key = (column.side, column.name)
        was = kept.get(key)
        old = {} if was is None else was.cells
        cells = {} if is_whole else dict(old)
        for name, cell in column.cells.items():
            is_known = cell.result is Result.SKIP and name in old
            cells[name] = old[name] if is_known else _as_kept(cell)
        version = column.version or ("" if was is None else was.version)
        ordered = {name: cells[name] for name in _in_order(cells, cases)}
        columns[key] = replace(column, cells=ordered, version=version)
    return sorted(columns.values(), key=lambda column: (column.side, column.name))


def _as_kept(cell: Cell) -> Cell:
    """Leave out what differs from run to run: times, and notes, some of which are about who came first."""
    return Cell(cell.case, cell.result, "" if cell.result is Result.PASS else stable_reason(cell.reason))


def _in_order(names: Iterable[str], order: Sequence[str]) -> list[str]:
    places = {name: place for place, name in enumerate(order)}
    return sorted(names, key=lambda name: (places.get(name, len(places)), name))


def stable_reason(text: str) -> str:
    """Make a reason that a second run repeats, here or elsewhere: its first line, without ports, addresses and keys.

    Args:
        text: the reason.
    """
    first = text.strip().partition("\n")[0].rstrip(":")
    return _KEY.sub("KEY", _ADDRESS.sub("ADDRESS", _PORT.sub("PORT", first)))


def encode_results(matrix: Matrix, *, with_seconds: bool = False) -> str:
    """Write results as JSON.

    Args:
        matrix: the results.
        with_seconds: tell how long each took; such a file differs from run to run.
    """
    sides: dict[str, list[dict[str, Any]]] = {side.value: [] for side in Side}
    for column in matrix:
        cells = [_encode_cell(cell, with_seconds=with_seconds) for cell in column.cells.values()]
        entry = {"name": column.name, "about": column.about, "language": column.language, "version": column.version}
        planned = {"planned": column.planned} if column.planned else {}
        sides[column.side.value].append({**entry, **planned, "cases": cells})
    return json.dumps({"format": _FORMAT, **sides}, indent=1, ensure_ascii=False) + "\n"


def _encode_cell(cell: Cell, *, with_seconds: bool) -> dict[str, Any]:
    seconds = {"seconds": round(cell.seconds, 2)} if with_seconds else {}
    return {"case": cell.case, "result": cell.result.value, "reason": cell.reason, **seconds}


def parse_results(text: str) -> list[Column]:
    """Read what `encode_results` wrote.

    Args:
        text: the file's content.

    Raises:
        ResultsError: it is something else.
    """
    try:
        value = json.loads(text)
        if value["format"] != _FORMAT:
            raise ResultsError(f"format {value['format']} is not known")
        return [_parse_column(side, entry) for side in Side for entry in value[side.value]]
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"not results of this suite: {type(error).__name__}: {error}") from None


def _parse_column(side: Side, entry: Mapping[str, Any]) -> Column:
    cells = [Cell(item["case"], Result(item["result"]), item["reason"]) for item in entry["cases"]]
    texts = {name: str(entry[name]) for name in ("name", "about", "language", "version")}
    return Column(side, **texts, planned=str(entry.get("planned", "")), cells={cell.case: cell for cell in cells})
