"""The report: medians, the ratio to Envoy, the gates, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from interop.bench.plan import Answer

__all__ = [
    "GATES",
    "LATE",
    "LATE_TAIL",
    "YARDSTICK",
    "Gate",
    "Line",
    "Verdict",
    "encode_report",
    "judge_gates",
    "render_gates",
    "render_table",
    "write_number",
]

YARDSTICK = "envoy"
"The server that the others are compared with."
LATE = 0.01
"With a larger share of sends that left late it is the generator that was measured, and there is no figure."
LATE_TAIL = 0.001
"The same for p99.9, which so few late sends decide."
_TAIL = "/p999"

_DELIVERED = 0.95
_BUSY = 0.5
_SATURATED = frozenset({"datagrams", "streams"})
"Rows in which a server should have all the work that it can do."
_WITHOUT_RATIO = frozenset({"latency", "fairness"})
"Differences, which can be zero or below, and shares."


@dataclass(slots=True)
class Line:
    """One line of the report: a row on a server, over all rounds."""

    server: str
    "Who was measured."
    key: str
    "The row's name."
    unit: str
    "What the figure counts."
    figures: list[float] = field(default_factory=list)
    "The figure of each round."
    delivered: list[float] = field(default_factory=list)
    "The share of the work asked for that was done, for each round."
    proxy_busy: list[float] = field(default_factory=list)
    "The share of its core that the server used, for each round."
    load_busy: list[float] = field(default_factory=list)
    "The share of their core that generator and origins used, for each round."
    late: list[float] = field(default_factory=list)
    "The share of sends that left late, for each round of a load that keeps a schedule."
    failure: str = ""
    "Why a round gave no figure."

    def add(self, answer: Answer, read: Callable[[Answer], float]) -> None:
        """Add a round.

        Args:
            answer: what the generator said.
            read: takes the figure out of it.
        """
        if "error" in answer:
            self.failure = answer["error"]
            return
        if answer.get("work") == 0:
            self.failure = "nothing arrived"
            return
        figure = read(answer)
        self.figures.append(figure)
        if "work" in answer:
            self.delivered.append(min(1.0, answer["work"] / answer["offered"]) if answer["offered"] else 0.0)
            self.proxy_busy.append(answer["proxy_cpu"] / answer["seconds"])
            self.load_busy.append(answer["load_cpu"] / answer["seconds"])
        if "late" in answer:
            self.late.append(answer["late"])

    @property
    def figure(self) -> float | None:
        """The median of the rounds, or None where there is none, or none that says anything."""
        return median(self.valid_figures) if self.valid_figures else None

    @property
    def valid_figures(self) -> list[float]:
        """The figure of each round; none at all when the generator left its schedule."""
        return [] if self.is_late else self.figures

    @property
    def is_lossy(self) -> bool:
        """Too little of what was asked for was done."""
        return self.share_lost > 1 - _DELIVERED

    @property
    def is_late(self) -> bool:
        """The generator could not keep its schedule."""
        return self.share_late > (LATE_TAIL if self.key.endswith(_TAIL) else LATE)

    @property
    def share_late(self) -> float:
        """The share of sends that left late; the median of the rounds."""
        return median(self.late) if self.late else 0.0

    @property
    def share_lost(self) -> float:
        """The share of what was asked for that was not done; the median of the rounds."""
        return 1 - median(self.delivered) if self.delivered else 0.0

    @property
    def notes(self) -> list[str]:
        """What to know before believing the figure."""
        notes = [self.failure] if self.failure else []
        if self.is_lossy:
            notes.append(f"LOSS: only {median(self.delivered):.0%} delivered")
        if self.is_late:
            notes.append(f"INVALID: the generator sent {self.share_late:.1%} too late")
        if self.key.split("/")[0] in _SATURATED and self.proxy_busy and median(self.proxy_busy) < _BUSY:
            notes.append("core under 50 % busy")
        return notes


@dataclass(frozen=True, slots=True)
class Gate:
    """A promise: the server's figure is at most so many times the yardstick's."""

    server: str
    "Who must keep it."
    key: str
    "The row."
    limit: float
    "The largest ratio."


@dataclass(frozen=True, slots=True)
class Verdict:
    """A gate beside what was measured."""

    gate: Gate
    "The promise."
    ratio: float | None
    "The ratio, or None when one of the two figures is missing or not to be believed."

    @property
    def word(self) -> str:
        """PASS, MISS, or NONE when there is nothing to judge by."""
        if self.ratio is None:
            return "NONE"
        return "PASS" if self.is_kept else "MISS"

    @property
    def is_kept(self) -> bool:
        """The ratio is known and within the limit."""
        return self.ratio is not None and self.ratio <= self.gate.limit


GATES = (
    Gate("relay-qh3", "datagrams/1100/1", 0.6),
    Gate("relay-qh3", "datagrams/1100/60", 0.6),
    Gate("relay-qh3", "streams/down/1", 2.0),
    Gate("relay-qh3", "streams/up/1", 0.7),
)
"What the default engine must keep."


def _ratio(lines: Iterable[Line], line: Line) -> float | None:
    """Divide a figure by the yardstick's of the same row; nothing for rows in which a ratio says nothing."""
    if line.key.split("/")[0] in _WITHOUT_RATIO:
        return None
    for other in lines:
        if other.server == YARDSTICK and other.key == line.key and other.figure and line.figure is not None:
            return line.figure / other.figure
    return None


def judge_gates(lines: Sequence[Line], gates: Sequence[Gate] = GATES) -> list[Verdict]:
    """Compare the figures with the gates.

    Args:
        lines: the report.
        gates: the promises.

    Returns:
        A verdict for each gate. A row with a failure or with too much loss on either side has no ratio.
    """
    verdicts = []
    for gate in gates:
        pair = [line for line in lines if line.key == gate.key and line.server in (gate.server, YARDSTICK)]
        is_sound = all(not line.failure and all(share >= _DELIVERED for share in line.delivered) for line in pair)
        ratios = [_ratio(lines, line) for line in pair if line.server == gate.server]
        verdicts.append(Verdict(gate, ratios[0] if ratios and is_sound else None))
    return verdicts


def render_gates(verdicts: Sequence[Verdict]) -> str:
    """Write one line for each gate.

    Args:
        verdicts: what `judge_gates` found.

    Returns:
        Lines that begin with PASS, MISS or NONE. NONE is not kept: a promise that was not measured is not met.
    """
    return "\n".join(
        f"{verdict.word}  {verdict.gate.server} {verdict.gate.key}: "
        f"{'no figure' if verdict.ratio is None else f'{verdict.ratio:.2f}'}"
        f" of {YARDSTICK}, at most {verdict.gate.limit:.2f}"
        for verdict in verdicts
    )


def _share(values: list[float]) -> str:
    """Write the median of some shares."""
    return f"{median(values):.0%}" if values else "-"


def render_table(lines: Sequence[Line], server: str) -> str:
    """Write the lines of one server.

    Args:
        lines: the whole report, so that the yardstick is among them.
        server: whose lines.

    Returns:
        A table; the spread is that of the rounds.
    """
    head = ("row", "figure", "spread", "unit", "of envoy", "done", "proxy", "load", "notes")
    cells = [head]
    for line in lines:
        if line.server != server:
            continue
        figure, ratio = line.figure, _ratio(lines, line)
        cells.append(
            (
                line.key,
                "-" if figure is None else write_number(figure),
                f"{write_number(min(line.valid_figures))}..{write_number(max(line.valid_figures))}"
                if len(line.valid_figures) > 1
                else "",
                line.unit,
                "-" if ratio is None else f"{ratio:.2f}",
                _share(line.delivered),
                _share(line.proxy_busy),
                _share(line.load_busy),
                "; ".join(line.notes),
            )
        )
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join([server, *(f"  {row}".rstrip() for row in rows)])


def write_number(value: float) -> str:
    """Write a figure with three digits or so.

    Args:
        value: the figure.

    Returns:
        Its text.
    """
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def encode_report(lines: Sequence[Line], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Turn the report into plain data for JSON.

    Args:
        lines: the report.
        verdicts: what `judge_gates` found.

    Returns:
        Every line with its median and its ratio, and every gate.
    """
    return {
        "lines": [
            {**asdict(line), "figure": line.figure, "of_envoy": _ratio(lines, line), "notes": line.notes}
            for line in lines
        ],
        "gates": [
            {**asdict(verdict.gate), "ratio": verdict.ratio, "is_kept": verdict.is_kept} for verdict in verdicts
        ],
    }
