"""What is measured: the rows of the report, and the order that each gives to the generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["FULL", "GROUPS", "QUICK", "Pace", "Row", "plan_floor", "plan_rows"]

GROUPS = ("datagrams", "streams", "handshakes", "memory", "floor")
"The kinds of rows."

_SIZES = (64, 400, 1100)
_WINDOWS = {1: 96, 16: 12, 60: 4}
"Datagrams under way in each tunnel, by the number of tunnels: a few hundred in all, less than sockets hold."
_FLOOR_WINDOW = 200
_FLOORS = ((64, 50), (400, 50), (1100, 50), (1100, 4))
"Payload size and batch of each floor row: what one busy flow offers, and what sixty flows leave."
_MEGABYTE = 1_000_000
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


FULL = Pace(rounds=3, warmup=0.5, seconds=2.0, volume=400 * _MEGABYTE)
"The pace of figures that are quoted."
QUICK = Pace(rounds=1, warmup=0.2, seconds=0.6, volume=150 * _MEGABYTE)
"The pace of a look while developing."


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report."""

    key: str
    "Its name in JSON and for gates."
    group: str
    "One of GROUPS."
    unit: str
    "What the figure counts, printed behind it."
    scale: float
    "Turns CPU seconds for a unit of work into the figure; 0 for the inverse, work for a CPU second."
    order: dict[str, Any]
    "The order to the generator, without the server."

    def figure(self, work: float, proxy_cpu: float) -> float:
        """Turn a measurement into the figure of the report.

        Args:
            work: units of work done, at least one.
            proxy_cpu: CPU seconds that the server took.

        Returns:
            The figure.

        Raises:
            ZeroDivisionError: nothing was done, or nothing was spent.
        """
        return work / proxy_cpu if self.scale == 0 else self.scale * proxy_cpu / work


def plan_rows(groups: tuple[str, ...], pace: Pace, udp_target: int, tcp_target: int, is_slow: bool) -> list[Row]:
    """List the rows that are measured on one server. The memory row makes three lines of the report.

    Args:
        groups: which of GROUPS; the floor is not a server's.
        pace: how long.
        udp_target: the UDP origin's port.
        tcp_target: the TCP origin's port.
        is_slow: the server is so slow that its stream rows carry less.

    Returns:
        The rows; the same keys for every server.
    """
    rows: list[Row] = []
    timing = {"warmup": pace.warmup, "seconds": pace.seconds}
    if "datagrams" in groups:
        for size in _SIZES:
            for tunnels, window in _WINDOWS.items():
                order = {"load": "datagrams", "target": udp_target, "size": size, "tunnels": tunnels}
                key = f"datagrams/{size}/{tunnels}"
                rows.append(Row(key, "datagrams", "us/datagram", 1e6, {**order, "window": window, **timing}))
        lone = {"load": "datagrams", "target": udp_target, "size": _SIZES[-1], "tunnels": 1, "window": 1}
        key = f"datagrams/{_SIZES[-1]}/1/lone"
        rows.append(Row(key, "datagrams", "us/datagram", 1e6, {**lone, **timing}))
    if "streams" in groups:
        volume = pace.volume // _SLOW_SHARE if is_slow else pace.volume
        for direction in ("down", "up"):
            for streams in (1, 8):
                order = {"load": "streams", "target": tcp_target, "direction": direction, "streams": streams}
                order["warmup"] = volume // _WARMUP_SHARE
                key = f"streams/{direction}/{streams}"
                rows.append(Row(key, "streams", "s/GB", 1e9, {**order, "size": volume, "seconds": _LONGEST}))
    if "handshakes" in groups:
        order = {"load": "handshakes", "parallel": _PARALLEL, **timing}
        rows.append(Row("handshakes", "handshakes", "per CPU s", 0, order))
    if "memory" in groups:
        order = {"load": "memory", "udp_target": udp_target, "tcp_target": tcp_target}
        rows.append(Row("memory", "memory", "KiB", 0, {**order, "connections": _CONNECTIONS, "tunnels": _TUNNELS}))
    return rows


def plan_floor(pace: Pace) -> list[Row]:
    """List the rows of the floor.

    Args:
        pace: how long.

    Returns:
        One row for each payload size, and one with small batches.
    """
    order = {"load": "floor", "window": _FLOOR_WINDOW, "warmup": pace.warmup, "seconds": pace.seconds}
    return [
        Row(f"floor/{size}/{batch}", "floor", "us/datagram", 1e6, {**order, "size": size, "batch": batch})
        for size, batch in _FLOORS
    ]
