"""RESULTS.md: machine, versions, tables with spread and ratios, and what to know before believing them."""

from __future__ import annotations

from collections.abc import Sequence

from interop.bench.peers.charts import draw_charts
from interop.bench.peers.compare import compare, render_agreement_section
from interop.bench.peers.labels import row_label, server_label
from interop.bench.peers.plan import DIRECT
from interop.bench.peers.results import Results
from interop.bench.peers.sections import SECTIONS, YARDSTICKS, Section
from interop.bench.report import YARDSTICK, write_number
from interop.bench.spread import Spread

__all__ = ["render_page"]


_LEGEND = """\
A cell has the median of the rounds, in brackets the smallest and the largest, and behind `x` the ratio to Envoy's
median. A share that is lost was sent and did not come back. A row is invalid, and has no figure, when the generator
itself sent more than 1 % of it over 0.1 ms late (for p99.9: more than 0.1 %).
Servers take turns within each row. Each has one core for itself while it is measured; the generator and the
origins share another. CPU time is the kernel's account of the server's process, user and system, all threads."""


def render_page(results: Results, earlier: Results | None = None) -> str:
    """Write the page.

    Args:
        results: the run.
        earlier: another run of the same, to say whether they agree.

    Returns:
        A Markdown document; its plots are in `plots`.
    """
    charts = draw_charts(results)
    parts = [
        "# Results\n\nWritten by `make bench-peers` from [results.json](results.json); what is behind the figures is "
        "in [docs/performance.md](../../docs/performance.md).",
        _render_run(results),
        _LEGEND,
    ]
    for section in SECTIONS:
        parts += _render_section(results, section, results.servers, charts)
    for section in YARDSTICKS:
        parts += _render_section(results, section, ["floor", "mirror"], charts)
    parts += _render_direct(results)
    if earlier is not None:
        parts.append(render_agreement_section(compare(earlier, results), earlier.made))
    parts += _render_notes(results)
    return "\n\n".join(parts) + "\n"


def _render_run(results: Results) -> str:
    """Write what was run, where, and how."""
    pace = results.pace
    rows = [
        ("day", results.made),
        *results.machine.items(),
        *results.versions.items(),
        ("command", f"`{results.command}`"),
        ("pace", f"{pace.get('rounds', 0):g} rounds of {pace.get('seconds', 0):g} s, each warmed up"),
        *results.facts.items(),
    ]
    return _table(["run", ""], [list(row) for row in rows])


def _render_section(results: Results, section: Section, servers: Sequence[str], charts: dict[str, str]) -> list[str]:
    """Write a table with its plot; nothing when there are no figures."""
    keys = results.keys(section.groups)
    shown = [name for name in servers if any(results.line(name, key) for key in keys)]
    if not shown:
        return []
    parts = [f"## {section.title}", section.text]
    if section.chart in charts:
        parts.append(f"![{section.title}](plots/{section.chart}.svg)")
    rows = [
        [row_label(key), *(_cell(results, name, key, section.has_ratio) for name in shown)]
        for key in keys
        if any(results.line(name, key) for name in shown)
    ]
    parts.append(_table(["", *map(server_label, shown)], rows))
    return parts


def _cell(results: Results, server: str, key: str, has_ratio: bool) -> str:
    """Write one figure with its spread, its ratio, and its loss."""
    line, spread = results.line(server, key), results.spread(server, key)
    if line is None:
        return "-"
    if line.is_late:
        return f"*invalid: {line.share_late:.1%} sent late*"
    if spread is None:
        return "not measured" if line.failure else "-"
    words = [_spread(spread)]
    yardstick = results.spread(YARDSTICK, key)
    if has_ratio and yardstick is not None and yardstick.middle and server != YARDSTICK:
        words.append(f"x{spread.middle / yardstick.middle:.2f}")
    if line.is_lossy:
        words.append(f"**{line.share_lost:.0%} lost**")
    return " ".join(words)


def _spread(spread: Spread) -> str:
    """Write a spread."""
    middle = write_number(spread.middle)
    return f"{middle} ({write_number(spread.low)}..{write_number(spread.high)})" if spread.count > 1 else middle


def _render_direct(results: Results) -> list[str]:
    """Write what was taken from the latencies."""
    ways = [f"{DIRECT}{name}" for name in results.servers]
    ways = [way for way in ways if any(line.server == way for line in results.lines)]
    keys = [key for key in results.keys(("latency",)) if any(results.line(way, key) for way in ways)]
    if not ways:
        return []
    rows = [[row_label(key), *(_cell(results, way, key, False) for way in ways)] for key in keys]
    text = (
        "Microseconds of the same echo with no server between, at the rates of each server: what has been taken from "
        "the latencies above."
    )
    return ["## Straight to the origin", text, _table(["", *map(server_label, ways)], rows)]


def _render_notes(results: Results) -> list[str]:
    """Write what was left out, what failed, and what else to know."""
    notes = [f"- Skipped: {name}: {_flat(reason)}" for name, reason in results.skipped.items()]
    notes += [f"- **Failed**: {name}: {_flat(reason)}" for name, reason in results.failures.items()]
    by_note: dict[str, list[str]] = {}
    for line in results.lines:
        for note in line.notes:
            by_note.setdefault(_flat(note), []).append(f"{server_label(line.server)} {line.key}")
    notes += [f"- {note}: {', '.join(rows)}" for note, rows in by_note.items()]
    return ["## Notes", "\n".join(notes)] if notes else []


def _flat(text: str) -> str:
    """Put a text on one line."""
    return " ".join(text.split())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
