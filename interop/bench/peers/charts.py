"""The plots of the report, drawn from the results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from interop.bench.peers.labels import COLOURS, OTHER_COLOUR, load_label, row_label, server_label
from interop.bench.peers.plan import LOADS, PERCENTILES
from interop.bench.peers.results import Results
from interop.bench.peers.svg import Drawing
from interop.bench.report import Line, write_number
from interop.bench.spread import Spread

__all__ = ["CHARTS", "draw_bars", "draw_charts", "draw_latency"]

_WIDTH = 860
_LEFT = 250
_RIGHT = 150
_TOP = 76
_BAR = 13
_GAP = 12
_FAINT = "#d0d7de"
_SOFT = "#57606a"
_PANEL_HEIGHT = 260
_AXIS = 76
_OWN_SCALE = "one datagram at a time"
"How a row's label ends whose bars would make all others short."
_FLOOR_US = 1.0
"The lowest latency that is drawn: an added microsecond is below what the clocks tell apart."

_Group = tuple[str, list[tuple[str, Spread]]]
"A row's label and its bars: who, and how much."


@dataclass(frozen=True, slots=True)
class _BarChart:
    """A plot of bars."""

    title: str
    subtitle: str
    groups: tuple[str, ...]


CHARTS = {
    "datagrams": _BarChart(
        "CPU for a relayed datagram", "microseconds of the server's CPU; less is better", ("datagrams",)
    ),
    "streams": _BarChart("CPU for bytes in TCP tunnels", "CPU seconds for 10^9 bytes; less is better", ("streams",)),
    "connections": _BarChart(
        "Handshakes and new tunnels", "in one CPU second of the server; more is better", ("handshakes", "tunnels")
    ),
    "capacity": _BarChart("Capacity", "echoes a second that are carried in time; more is better", ("capacity",)),
    "memory": _BarChart("Memory for what is idle", "KiB of resident memory; less is better", ("memory",)),
    "loss": _BarChart(
        "Throughput with loss", "10^6 bits a second; 1 % of packets lost each way, 50 ms round trip", ("loss",)
    ),
}
"The plots of bars by their file's name."


def draw_charts(results: Results) -> dict[str, str]:
    """Draw every plot that has figures.

    Args:
        results: the run.

    Returns:
        SVG documents by name.
    """
    drawn = {
        name: draw_bars(results, chart.title, chart.subtitle, results.keys(chart.groups))
        for name, chart in CHARTS.items()
        if any(results.spread(server, key) for server in results.servers for key in results.keys(chart.groups))
    }
    if any(results.spread(server, key) for server in results.servers for key in results.keys(("latency",))):
        drawn["latency"] = draw_latency(results)
    return drawn


def draw_bars(results: Results, title: str, subtitle: str, keys: Sequence[str]) -> str:
    """Draw a group of bars for each row, with a bar for each server and its spread on it.

    Args:
        results: the run.
        title: what it shows.
        subtitle: the unit, and which way is better.
        keys: the rows.

    Returns:
        An SVG document.
    """
    groups: list[_Group] = []
    for key in keys:
        bars = [(server, spread) for server in results.servers if (spread := results.spread(server, key))]
        if bars:
            groups.append((row_label(key), bars))
    height = _TOP + sum(len(bars) * _BAR + _GAP for _, bars in groups) + 10
    drawing = Drawing(_WIDTH, height, f"{title}: {subtitle}")
    _draw_head(drawing, title, subtitle, list(dict.fromkeys(name for _, bars in groups for name, _ in bars)))
    common = _largest(group for group in groups if not group[0].endswith(_OWN_SCALE))
    y = float(_TOP)
    for label, bars in groups:
        middle = y + len(bars) * _BAR / 2
        drawing.text(_LEFT - 10, middle + 4, label, anchor="end")
        scale = (_WIDTH - _LEFT - _RIGHT) / common
        if label.endswith(_OWN_SCALE):
            scale = (_WIDTH - _LEFT - _RIGHT) / _largest([(label, bars)])
            drawing.text(_LEFT - 10, middle + 18, "on a scale of its own", 10, "end", _SOFT)
        for server, spread in bars:
            _draw_bar(drawing, y, server, spread, scale)
            y += _BAR
        y += _GAP
    drawing.line(_LEFT, _TOP - 4, _LEFT, height - 14, _SOFT)
    return drawing.render()


def _largest(groups: Iterable[_Group]) -> float:
    """Find the end of the longest bar."""
    return max((spread.high for _, bars in groups for _, spread in bars), default=0.0) or 1.0


def _draw_bar(drawing: Drawing, y: float, server: str, spread: Spread, scale: float) -> None:
    """Draw one bar, the spread as a line across its end, and the figure behind it."""
    middle = y + _BAR / 2 - 1
    drawing.rectangle(_LEFT, y, spread.middle * scale, _BAR - 2, COLOURS.get(server, OTHER_COLOUR))
    low, high = _LEFT + spread.low * scale, _LEFT + spread.high * scale
    if high - low > 1:
        drawing.line(low, middle, high, middle, "#1f2328")
        for x in (low, high):
            drawing.line(x, middle - 3, x, middle + 3, "#1f2328")
    drawing.text(max(high, _LEFT) + 6, y + _BAR - 3, f"{write_number(spread.middle)}  {server_label(server)}", 10)


def _draw_head(drawing: Drawing, title: str, subtitle: str, servers: Sequence[str]) -> None:
    """Write title, unit and legend."""
    drawing.text(16, 24, title, 16, bold=True)
    drawing.text(16, 42, subtitle, 12, colour=_SOFT)
    x = 16.0
    for server in servers:
        drawing.rectangle(x, 52, 10, 10, COLOURS.get(server, OTHER_COLOUR))
        label = server_label(server)
        drawing.text(x + 15, 61, label, 11)
        x += 15 + 6.4 * len(label) + 16


def draw_latency(results: Results) -> str:
    """Draw the percentiles of added latency, a panel for each load, on a logarithmic scale.

    Args:
        results: the run.

    Returns:
        An SVG document.
    """
    names = [name for name in results.servers if any(line.server == name for line in _latency_lines(results))]
    title, subtitle = "Added latency of an echo", "microseconds, through the server minus straight to the origin"
    drawing = Drawing(_WIDTH, _TOP + _PANEL_HEIGHT + 60, f"{title}: {subtitle}")
    _draw_head(drawing, title, f"{subtitle}; a ring: more than 5 % lost", names)
    values = [value for line in _latency_lines(results) for value in line.valid_figures]
    top = max(1, math.ceil(math.log10(max([*values, 10 * _FLOOR_US]))))
    for step in range(top + 1):
        y = _latency_y(10.0**step, top)
        drawing.line(_AXIS, y, _WIDTH - 20, y, _FAINT)
        drawing.text(_AXIS - 6, y + 4, f"{10**step:,}".replace(",", " "), 11, "end", _SOFT)
    width = (_WIDTH - 20 - _AXIS) / len(LOADS)
    for index, load in enumerate(LOADS):
        _draw_panel(drawing, results, names, load, (_AXIS + index * width, width), top)
    return drawing.render()


def _latency_lines(results: Results) -> list[Line]:
    """List the lines of added latency."""
    keys = {f"latency/{load}/{percentile}" for load in LOADS for percentile in PERCENTILES}
    return [line for line in results.lines if line.key in keys and line.server in results.servers]


def _latency_y(value: float, top: int) -> float:
    """Find the height of a latency."""
    share = math.log10(max(value, _FLOOR_US)) / top
    return _TOP + 10 + _PANEL_HEIGHT * (1 - share)


def _draw_panel(
    drawing: Drawing, results: Results, names: Sequence[str], load: str, place: tuple[float, float], top: int
) -> None:
    """Draw the percentiles at one load."""
    left, width = place
    drawing.line(left, _TOP + 10, left, _TOP + 10 + _PANEL_HEIGHT, _FAINT)
    drawing.text(left + width / 2, _TOP + _PANEL_HEIGHT + 46, load_label(load), 12, "middle")
    places = [left + width * (index + 0.5) / len(PERCENTILES) for index in range(len(PERCENTILES))]
    for x, percentile in zip(places, PERCENTILES, strict=True):
        words = row_label(f"latency/{load}/{percentile}").rsplit(" ", 1)[-1]
        drawing.text(x, _TOP + _PANEL_HEIGHT + 28, words, 11, "middle", _SOFT)
    drawn = False
    for name in names:
        points = []
        is_lossy = False
        for x, percentile in zip(places, PERCENTILES, strict=True):
            line = results.line(name, f"latency/{load}/{percentile}")
            if line is not None and line.figure is not None:
                points.append((x, _latency_y(line.figure, top)))
                is_lossy = is_lossy or line.is_lossy
        drawn = drawn or bool(points)
        colour = COLOURS.get(name, OTHER_COLOUR)
        if len(points) > 1:
            drawing.path(points, colour)
        for x, y in points:
            drawing.dot(x, y, colour, is_lossy)
    if not drawn:
        drawing.text(left + width / 2, _TOP + _PANEL_HEIGHT / 2, "not measured", 12, "middle", _SOFT)
