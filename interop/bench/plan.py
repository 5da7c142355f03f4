"""What is measured: the rows of the report, and the order that the generator gets for each."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "FULL",
    "GROUPS",
    "MEGABYTE",
    "QUICK",
    "Answer",
    "Measure",
    "Pace",
    "Row",
    "Targets",
    "cost",
    "plan_floor",
    "plan_memory",
    "plan_rows",
    "rate",
]

Answer = dict[str, Any]
"What the generator answers to an order."

GROUPS = ("datagrams", "streams", "handshakes", "memory", "floor", "tokens", "names")
"The kinds of rows."

MEGABYTE = 1_000_000
"Bytes."

_SIZES = (64, 400, 1100)
_WINDOWS = {1: 96, 16: 12, 60: 4}
"Datagrams under way in each tunnel, by the number of tunnels: a few hundred in all, less than sockets hold."
_FLOOR_WINDOW = 200
_FLOORS = ((64, 50), (400, 50), (1100, 50), (1100, 4))
"Payload size and batch of each floor row: what one busy flow offers, and what sixty flows leave."
_SLOW_SHARE = 10
"The aioquic engine is about ten times slower, so it carries a tenth of the bytes."
_WARMUP_SHARE = 10
"Part of the volume that a stream row carries before it is measured."
_LONGEST = 30.0
_PARALLEL = 4
_CONNECTIONS = 200
_TUNNELS = 500


@dataclass(frozen=True, slots=True)
class Pace:
    """How long everything takes."""

    rounds: int
    "How often each row is measured on each server, in turns."
    warmup: float
    "Seconds before a measurement."
    seconds: float
    "Seconds of a measurement."
    volume: int
    "Bytes of a stream row."


FULL = Pace(rounds=3, warmup=0.5, seconds=2.0, volume=400 * MEGABYTE)
"The pace of figures that are quoted."
QUICK = Pace(rounds=1, warmup=0.2, seconds=0.6, volume=150 * MEGABYTE)
"The pace of a look while developing."


@dataclass(frozen=True, slots=True)
class Targets:
    """Where the tunnels go."""

    udp: int
    "The UDP origin's port."
    tcp: int
    "The TCP origin's port."


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the report that a row gives."""

    unit: str
    "What the figure counts, printed behind it."
    read: Callable[[Answer], float]
    "Takes the figure out of an answer in which some work was done."
    suffix: str = ""
    "What the line's key has behind the row's."


def cost(unit: str, scale: float) -> tuple[Measure, ...]:
    """Measure the server's CPU time for a unit of work.

    Args:
        unit: what the figure counts.
        scale: turns CPU seconds for a unit of work into the figure.

    Returns:
        The one measure of a row.
    """
    return (Measure(unit, lambda answer: float(scale * answer["proxy_cpu"] / answer["work"])),)


def rate(unit: str) -> tuple[Measure, ...]:
    """Measure the work done in a CPU second of the server.

    Args:
        unit: what the figure counts.

    Returns:
        The one measure of a row.
    """
    return (Measure(unit, lambda answer: float(answer["work"] / answer["proxy_cpu"])),)


def _memory(key: str) -> Measure:
    """Measure one kind of memory in KiB."""
    return Measure("KiB", lambda answer: float(answer[key] / 1024), f"/{key}")


@dataclass(frozen=True, slots=True)
class Row:
    """What is measured by one order. It gives a line of the report for each of its measures."""

    key: str
    "Its name in JSON and for gates."
    group: str
    "One of GROUPS."
    measures: tuple[Measure, ...]
    "What is read from the answer."
    order: dict[str, Any] = field(default_factory=dict)
    "The order to the generator, without the server."
    kind: str = ""
    "`udp` or `tcp`: which tunnels the server must have; empty when it needs none, or both."


def plan_rows(groups: tuple[str, ...], pace: Pace, targets: Targets, is_slow: bool = False) -> list[Row]:
    """List the rows that are measured on one server.

    Args:
        groups: which of GROUPS; the floor is not a server's.
        pace: how long.
        targets: the origins.
        is_slow: the server is so slow that its stream rows carry less.

    Returns:
        The rows; the same keys for every server.
    """
    rows: list[Row] = []
    if "datagrams" in groups:
        rows += _plan_datagrams(pace, targets.udp)
    if "streams" in groups:
        rows += _plan_streams(pace, targets.tcp, is_slow)
    if "handshakes" in groups:
        order = {"load": "handshakes", "parallel": _PARALLEL, "warmup": pace.warmup, "seconds": pace.seconds}
        rows.append(Row("handshakes", "handshakes", rate("per CPU s"), order))
    if "memory" in groups:
        rows.append(plan_memory(targets))
    return rows


def plan_memory(targets: Targets, kinds: Collection[str] = ("udp", "tcp")) -> Row:
    """Describe the row of what is idle.

    Args:
        targets: the origins.
        kinds: the tunnels that the server has: `udp`, `tcp`.

    Returns:
        The row; only a server that has been freshly started should be asked.
    """
    ports = {"udp": targets.udp, "tcp": targets.tcp}
    order: dict[str, Any] = {"load": "memory", "connections": _CONNECTIONS, "tunnels": _TUNNELS}
    order |= {f"{kind}_target": port if kind in kinds else None for kind, port in ports.items()}
    measures = (_memory("connection"), *(_memory(f"{kind}_tunnel") for kind in ports if kind in kinds))
    return Row("memory", "memory", measures, order)


def _plan_datagrams(pace: Pace, target: int) -> list[Row]:
    """List the rows of echoed datagrams: every size in every number of tunnels, and one alone."""
    cases = [(f"{size}/{tunnels}", size, tunnels, window) for size in _SIZES for tunnels, window in _WINDOWS.items()]
    cases.append((f"{_SIZES[-1]}/1/lone", _SIZES[-1], 1, 1))
    order = {"load": "datagrams", "target": target, "warmup": pace.warmup, "seconds": pace.seconds}
    return [
        Row(
            f"datagrams/{name}",
            "datagrams",
            cost("us/datagram", 1e6),
            {**order, "size": size, "tunnels": tunnels, "window": window},
            "udp",
        )
        for name, size, tunnels, window in cases
    ]


def _plan_streams(pace: Pace, target: int, is_slow: bool) -> list[Row]:
    """List the rows of bytes through TCP tunnels."""
    volume = pace.volume // _SLOW_SHARE if is_slow else pace.volume
    order = {"load": "streams", "target": target, "size": volume, "warmup": volume // _WARMUP_SHARE}
    return [
        Row(
            f"streams/{direction}/{streams}",
            "streams",
            cost("s/GB", 1e9),
            {**order, "direction": direction, "streams": streams, "seconds": _LONGEST},
            "tcp",
        )
        for direction in ("down", "up")
        for streams in (1, 8)
    ]


def plan_floor(pace: Pace) -> list[Row]:
    """List the rows of the floor.

    Args:
        pace: how long.

    Returns:
        One row for each payload size, and one with small batches.
    """
    order = {"load": "floor", "window": _FLOOR_WINDOW, "warmup": pace.warmup, "seconds": pace.seconds}
    return [
        Row(
            f"floor/{size}/{batch}", "floor", cost("us/datagram", 1e6), {**order, "size": size, "batch": batch}, "udp"
        )
        for size, batch in _FLOORS
    ]
