"""Whether a second run agrees with the first: row by row, within their own spreads."""

from __future__ import annotations

from dataclasses import dataclass

from interop.bench.peers.results import Results
from interop.bench.spread import Spread

__all__ = ["Agreement", "compare", "render_agreements"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """One row of both runs."""

    server: str
    "Who was measured."
    key: str
    "The row."
    unit: str
    "What the figures count."
    first: Spread | None
    "The first run, or None where it has no figure."
    second: Spread | None
    "The second run, or None where it has no figure."

    @property
    def word(self) -> str:
        """`agrees`, `differs`, `missing` (in the second run) or `new` (in it)."""
        if self.first is None:
            return "new"
        if self.second is None:
            return "missing"
        return "agrees" if self.first.meets(self.second) else "differs"


def compare(first: Results, second: Results) -> list[Agreement]:
    """Compare two runs.

    Args:
        first: the older run.
        second: the newer run.

    Returns:
        Every row that has figures in either.
    """
    units = {(line.server, line.key): line.unit for run in (first, second) for line in run.lines if line.figures}
    return [
        Agreement(server, key, unit, first.spread(server, key), second.spread(server, key))
        for (server, key), unit in units.items()
    ]


def render_agreements(found: list[Agreement]) -> str:
    """Write a table of all rows, those that differ marked, and the count below.

    Args:
        found: what `compare` found.

    Returns:
        Text of several lines.
    """
    cells = [("", "server", "row", "first", "second", "ratio", "unit")]
    for row in found:
        ratio = row.second.middle / row.first.middle if row.first and row.second and row.first.middle else None
        cells.append(
            (
                "" if row.word == "agrees" else row.word,
                row.server,
                row.key,
                _range(row.first),
                _range(row.second),
                "-" if ratio is None else f"{ratio:.2f}",
                row.unit,
            )
        )
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    counts = {word: sum(row.word == word for row in found) for word in ("agrees", "differs", "missing", "new")}
    both = counts["agrees"] + counts["differs"]
    chance = sum(row.first.chance_to_miss(row.second) for row in found if row.first and row.second)
    tail = f"{counts['agrees']} of {both} rows agree within their own spreads; by chance alone {chance:.1f} would not"
    rest = [f"{counts[word]} {word} in the second run" for word in ("missing", "new") if counts[word]]
    return "\n".join([*table, "", "; ".join([tail, *rest])])


def _range(spread: Spread | None) -> str:
    """Write a spread."""
    return "-" if spread is None else f"{spread.middle:.4g} ({spread.low:.4g}..{spread.high:.4g})"
