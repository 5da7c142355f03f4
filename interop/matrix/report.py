"""What a terminal shows: the line of a cell, a failure with its logs, the matrix, the list of cases."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from interop.matrix.peers import PeerSpec, Spec
from interop.matrix.results import Cell, Column, Matrix, Result, Side
from interop.matrix.runner import Played
from interop.matrix.transcript import read_tail
from relay.conformance.case import Case

__all__ = ["TITLES", "group_reasons", "render_failure", "render_line", "render_list", "render_matrix"]

_WIDTH = 110
TITLES = {
    Side.CLIENTS: "Clients through our relay",
    Side.SERVERS: "Our client through other servers",
}
"The heading of each matrix."
_LOGS = {
    "driver.log": "the driver's standard error",
    "relay.log": "the relay's log",
    "server.log": "the server's log",
}
_TAIL_BYTES = 2000
_SHOWN_NAMES = 4
_UNPLAYED = (Result.NONE, Result.SKIP)


def render_line(played: Played) -> str:
    """Write one line of a cell.

    Args:
        played: the cell.
    """
    cell = played.cell
    took = f"{cell.seconds:6.1f} s" if played.folder is not None else " " * 8
    reason = f"  {cell.reason}" if cell.reason else ""
    return f"{cell.result:<4} {took}  {played.contestant.spec.key} {cell.case}{reason}"


def render_failure(played: Played, root: Path) -> str:
    """Write all that helps with a failure: case, reason, ends of logs, and where the rest is.

    Args:
        played: a cell that failed.
        root: the checkout, which paths are shown relative to.
    """
    case, cell = played.case, played.cell
    lines = [f"FAIL {played.contestant.spec.key} {case.name}", f"  proves: {case.proves} ({case.source})"]
    lines.append(f"  reason: {cell.reason}")
    if played.detail:
        lines.append(textwrap.indent(played.detail, "    "))
    if played.folder is not None:
        for name, what in _LOGS.items():
            tail = read_tail(played.folder / name, _TAIL_BYTES)
            if tail:
                lines += [f"  {what}, the end:", textwrap.indent(tail, "    ")]
        folder = played.folder
        shown = folder.relative_to(root) if folder.is_relative_to(root) else folder
        lines.append(f"  everything: {shown}")
    return "\n".join(lines)


def render_matrix(matrix: Matrix) -> str:
    """Write both matrices for a terminal: a row for each case, a column for each peer.

    Args:
        matrix: the columns of both.
    """
    parts = []
    for side in Side:
        columns = [column for column in matrix if column.side is side]
        if columns:
            parts.append("\n".join([TITLES[side], "", *_render_table(columns), *_render_planned(columns)]))
    return "\n\n".join(parts)


def _render_table(columns: Sequence[Column]) -> list[str]:
    """Write rows of fixed width."""
    shown = [column for column in columns if not column.planned]
    names = _row_names(shown)
    if not names:
        return []
    first = max(map(len, names))
    widths = [max(len(column.name), 4) for column in shown]
    head = " " * first + "".join(f"  {column.name:<{width}}" for column, width in zip(shown, widths, strict=True))
    rows = [
        f"{name:<{first}}"
        + "".join(f"  {_word(column.cells.get(name)):<{width}}" for column, width in zip(shown, widths, strict=True))
        for name in names
    ]
    return [
        head.rstrip(),
        *(row.rstrip() for row in rows),
        "",
        *(line for column in shown for line in _describe_column(column)),
    ]


def _render_planned(columns: Sequence[Column]) -> list[str]:
    return [f"{column.name}: planned, {column.planned}" for column in columns if column.planned]


def _row_names(columns: Sequence[Column]) -> list[str]:
    """The cases of all columns, each once."""
    return list(dict.fromkeys(name for column in columns for name in column.cells))


def _word(cell: Cell | None) -> str:
    return "" if cell is None else cell.result.value


def _describe_column(column: Column) -> list[str]:
    """Write how many cases came out how, and why those that are no PASS are none, those of one reason in one line."""
    results = [cell.result for cell in column.cells.values()]
    counts = ", ".join(f"{results.count(result)} {result}" for result in Result if result in results)
    return [f"{column.name}: {counts}", *(f"  {line}" for line in group_reasons(column, _SHOWN_NAMES))]


def group_reasons(column: Column, most: int) -> list[str]:
    """Write why cells are no PASS, or what a server should have done, with all cases of a reason in one line.

    Args:
        column: the cells.
        most: more cases that are n/a or skipped than this are counted instead of named.
    """
    groups: dict[tuple[Result, str], list[str]] = {}
    for cell in column.cells.values():
        if cell.reason:
            groups.setdefault((cell.result, cell.reason), []).append(cell.case)
    return [
        f"{result}, {reason}: "
        + (f"{len(names)} cases" if len(names) > most and result in _UNPLAYED else ", ".join(names))
        for (result, reason), names in groups.items()
    ]


def render_list(specs: Sequence[Spec], cases: Sequence[Case]) -> str:
    """Write what there is: peers and servers, and cases with what each proves.

    Args:
        specs: peers and servers.
        cases: all cases.
    """
    lines = ["peers and servers:", ""]
    for spec in specs:
        planned = f" (planned: {spec.planned})" if isinstance(spec, PeerSpec) and spec.planned else ""
        lines.append(f"  {spec.name:<18} {spec.about} [{spec.language}]{planned}")
    lines += ["", "cases:", ""]
    for case in cases:
        lines += textwrap.wrap(
            f"{case.name:<24}{case.proves} ({case.source})",
            _WIDTH,
            initial_indent="  ",
            subsequent_indent=" " * 26,
            break_on_hyphens=False,
        )
    return "\n".join(lines)
