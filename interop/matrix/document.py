"""RESULTS.md: the kept results for readers. The same results make the same file."""

from __future__ import annotations

from collections.abc import Sequence

from interop.matrix.report import TITLES, group_reasons
from interop.matrix.results import Column, Matrix, Result, Side
from relay.conformance.case import Case

__all__ = ["render_markdown"]

_SHOWN_NAMES = 100


def render_markdown(matrix: Matrix, cases: Sequence[Case]) -> str:
    """Write RESULTS.md: the same for the same results.

    Args:
        matrix: the columns of both matrices.
        cases: all cases.
    """
    lines = [
        "# Interop results",
        "",
        "Written by `make interop`; [README.md](README.md) says how to run and read it. The relay and our client run",
        "on the QUIC library qh3, the default.",
        "",
        "PASS: what the case proves is so. FAIL: it is not; the reason is below. n/a: the peer's package or the",
        "server lacks what the case needs. SKIP: not built where the suite last ran, for want of a tool.",
    ]
    for side in Side:
        columns = [column for column in matrix if column.side is side]
        if columns:
            lines += ["", f"## {TITLES[side]}", "", *_markdown_peers(columns), "", *_markdown_table(columns, cases)]
            lines += _markdown_reasons(columns)
    return "\n".join(lines) + "\n"


def _markdown_peers(columns: Sequence[Column]) -> list[str]:
    lines = ["| peer | language | version | passed |", "| --- | --- | --- | --- |"]
    for column in columns:
        played = [cell for cell in column.cells.values() if cell.result in (Result.PASS, Result.FAIL)]
        passed = sum(cell.result is Result.PASS for cell in played)
        count = (
            f"{passed} of {len(played)}" if played else (f"planned: {column.planned}" if column.planned else "none")
        )
        lines.append(
            f"| {column.name} | {column.language} | {_escape(column.version or column.about)} | {_escape(count)} |"
        )
    return lines


def _markdown_table(columns: Sequence[Column], cases: Sequence[Case]) -> list[str]:
    shown = [column for column in columns if column.cells]
    names = {name for column in shown for name in column.cells}
    lines = [
        f"| case | proves | source | {' | '.join(column.name for column in shown)} |",
        f"| --- | --- | --- |{' --- |' * len(shown)}",
    ]
    for case in cases:
        if case.name in names:
            words = " | ".join(_word(column, case) for column in shown)
            lines.append(f"| {case.name} | {_escape(case.proves)} | {_escape(case.source)} | {words} |")
    return lines


def _markdown_reasons(columns: Sequence[Column]) -> list[str]:
    """Write why cells are no PASS."""
    lines: list[str] = []
    for column in columns:
        reasons = group_reasons(column, _SHOWN_NAMES)
        if reasons:
            lines += ["", f"### {column.name}", "", *(f"- {_escape(reason)}" for reason in reasons)]
    return lines


def _word(column: Column, case: Case) -> str:
    cell = column.cells.get(case.name)
    return "" if cell is None else cell.result.value


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
