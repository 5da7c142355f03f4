"""Whether a second run agrees with the first: row by row, within their own spreads."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

from interop.bench.peers.labels import row_label, server_label
from interop.bench.peers.results import Results
from interop.bench.report import write_number
from interop.bench.spread import Spread

__all__ = ["Agreement", "compare", "is_agreement", "render_agreement_section", "render_agreements"]

_CLOSE = 0.02
"Medians that lie no further apart than this are as near as a figure of three digits tells."
_SURE = 0.99
"How often two runs of one and the same thing may be called so."
_WORDS = ("agrees", "close", "differs", "missing", "new")


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
        """What became of the row.

        `agrees`: the ranges of the rounds meet. `close`: they do not, but the medians are within 2 % of each other.
        `differs`: neither. `missing`: no figure in the second run. `new`: none in the first.
        """
        if self.first is None:
            return "new"
        if self.second is None:
            return "missing"
        if self.first.meets(self.second):
            return "agrees"
        apart = abs(self.first.middle - self.second.middle)
        return "close" if apart <= _CLOSE * abs(self.first.middle) else "differs"

    @property
    def ratio(self) -> float | None:
        """The second median divided by the first, or None where there are not both."""
        if self.first is None or self.second is None or not self.first.middle:
            return None
        return self.second.middle / self.first.middle


def compare(first: Results, second: Results) -> list[Agreement]:
    """Compare two runs.

    Args:
        first: the older run.
        second: the newer run.

    Returns:
        Every row that has figures in either.
    """
    units = {
        (line.server, line.key): line.unit for run in (first, second) for line in run.lines if line.valid_figures
    }
    return [
        Agreement(server, key, unit, first.spread(server, key), second.spread(server, key))
        for (server, key), unit in units.items()
    ]


def is_agreement(found: list[Agreement]) -> bool:
    """Tell whether two runs found the same.

    Args:
        found: what `compare` found.

    Returns:
        No row is missing in the second run, and no more differ than chance allows.
    """
    words = [row.word for row in found]
    return "missing" not in words and words.count("differs") <= _most_by_chance(_expected_to_miss(found))


def _expected_to_miss(found: list[Agreement]) -> float:
    """Reckon how many rows are expected not to agree by chance alone."""
    return sum(row.first.chance_to_miss(row.second) for row in found if row.first and row.second)


def _most_by_chance(expected: float) -> int:
    """Find the number that is not exceeded in 99 of 100 comparisons (Poisson's distribution).

    Rows of one measurement, such as its percentiles, are not independent. They miss together, so that two runs that
    are alike are called different more often than that.
    """
    number, term = 0, exp(-expected)
    total = term
    while total < _SURE:
        number += 1
        term *= expected / number
        total += term
    return number


def render_agreements(found: list[Agreement]) -> str:
    """Write a table of all rows, with what became of each, and the count below.

    Args:
        found: what `compare` found.

    Returns:
        Text of several lines.
    """
    cells = [("", "server", "row", "first", "second", "ratio", "unit")]
    for row in found:
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        cells.append((row.word, row.server, row.key, _range(row.first), _range(row.second), ratio, row.unit))
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    verdict = "the runs agree" if is_agreement(found) else "the runs do not agree"
    return "\n".join([*table, "", f"{_summary(found)}: {verdict}"])


def render_agreement_section(found: list[Agreement], made: str) -> str:
    """Write the part of the page that says whether an earlier run found the same.

    Args:
        found: what `compare` found.
        made: the day of the earlier run.

    Returns:
        Markdown: how many rows of each kind agree, and those that do not.
    """
    groups = dict.fromkeys(row.key.split("/")[0] for row in found)
    lines = [
        "## Agreement of two runs",
        "",
        f"Beside an earlier run, of {made}, in [earlier.json](earlier.json): a row agrees when the ranges of its "
        "rounds in the two runs meet, and is close when they do not but the medians are within 2 % of each other. "
        f"{_summary(found)}. So the two runs {'agree' if is_agreement(found) else 'do not agree'}.",
        "",
        f"| rows | {' | '.join(_WORDS)} |",
        f"| --- |{' --- |' * len(_WORDS)}",
    ]
    for group in groups:
        words = [row.word for row in found if row.key.split("/")[0] == group]
        lines.append(f"| {group} | {' | '.join(str(words.count(word)) for word in _WORDS)} |")
    if odd := [row for row in found if row.word not in ("agrees", "close")]:
        lines += [
            "",
            "Those that do not:",
            "",
            "| | server | row | earlier | now | ratio |",
            "| --- |" + " --- |" * 5,
        ]
    for row in odd:
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        names = f"{server_label(row.server)} | {row.key.split('/')[0]}: {row_label(row.key)}"
        lines.append(f"| {row.word} | {names} | {_range(row.first)} | {_range(row.second)} | {ratio} |")
    return "\n".join(lines)


def _summary(found: list[Agreement]) -> str:
    """Count."""
    counts = {word: sum(row.word == word for row in found) for word in _WORDS}
    both = sum(counts[word] for word in ("agrees", "close", "differs"))
    chance = _expected_to_miss(found)
    parts = [
        f"{counts['agrees']} of {both} rows agree within their own spreads; by chance alone {chance:.1f} would not, "
        f"and in 99 of 100 comparisons no more than {_most_by_chance(chance)}, were rows independent of each other",
        *([f"{counts['close']} more are close"] if counts["close"] else []),
        *(f"{counts[word]} {word} in the second run" for word in ("missing", "new") if counts[word]),
    ]
    return "; ".join(parts)


def _range(spread: Spread | None) -> str:
    """Write a spread."""
    if spread is None:
        return "-"
    return f"{write_number(spread.middle)} ({write_number(spread.low)}..{write_number(spread.high)})"
