"""What is measured beside the base rows: new tunnels, added latency, fairness, throughput with loss."""

from __future__ import annotations

from interop.bench.plan import MEGABYTE, Answer, Measure, Pace, Row, Targets, rate
from interop.bench.spread import jain_index, smallest_share

__all__ = [
    "CAPACITY_ROW",
    "DELAY",
    "FULL",
    "GROUPS",
    "LOADS",
    "LOSS",
    "PERCENTILES",
    "QUICK",
    "added_latency",
    "plan_ceiling",
    "plan_fairness",
    "plan_latency",
    "plan_loss",
    "plan_tunnels",
]

GROUPS = (
    "datagrams",
    "streams",
    "handshakes",
    "tunnels",
    "latency",
    "fairness",
    "memory",
    "loss",
    "ceiling",
    "floor",
)
"The kinds of rows."

FULL = Pace(rounds=5, warmup=0.4, seconds=1.6, volume=400 * MEGABYTE)
"The pace of figures that are quoted."
QUICK = Pace(rounds=1, warmup=0.2, seconds=0.6, volume=100 * MEGABYTE)
"The pace of a look while developing."

CAPACITY_ROW = "datagrams/1100/16"
"The row whose cost per datagram tells what the relay could carry at most."
LOADS = (10, 50, 80)
"Per cent of the relay's capacity at which latency is measured."
PERCENTILES = ("p50", "p99", "p999")
"What is told of latency, by its name in an answer."
DELAY = 0.025
"Seconds that the lossy path holds a packet back, each way: 50 ms for the round."
LOSS = 0.01
"The share of packets that the lossy path loses, each way."

_SIZE = 1100
_TUNNELS = 16
_WINDOW = 12
_PARALLEL = 16
_LOSSY = (("down", 1), ("down", 8), ("up", 8))
_LOSSY_SHARE = 5.0
"How many times longer than other rows the lossy ones take: there are few round trips in a second."


def plan_tunnels(pace: Pace, targets: Targets) -> list[Row]:
    """List the rows of tunnels that are opened and closed at once.

    Args:
        pace: how long.
        targets: the origins.

    Returns:
        A row for each kind.
    """
    order = {"load": "tunnels", "parallel": _PARALLEL, "warmup": pace.warmup, "seconds": pace.seconds}
    ports = {"udp": targets.udp, "tcp": targets.tcp}
    return [
        Row(f"tunnels/{kind}", "tunnels", rate("per CPU s"), {**order, "kind": kind, "target": port}, kind)
        for kind, port in ports.items()
    ]


def plan_latency(pace: Pace, targets: Targets, load: int, rate_: float) -> Row:
    """Describe the row of added latency at one load.

    Args:
        pace: how long.
        targets: the origins.
        load: per cent of the relay's capacity, for the key.
        rate_: echoes in a second.

    Returns:
        A row whose figures are microseconds, and how busy the server was; it wants answers from `added_latency`.
    """
    order = {"load": "latency", "size": _SIZE, "tunnels": _TUNNELS, "rate": rate_}
    measures = tuple(
        Measure("us", lambda answer, key=key: 1e6 * answer[key], f"/{key}")  # type: ignore[misc]
        for key in PERCENTILES
    )
    order |= {"warmup": pace.warmup, "seconds": pace.seconds}
    busy = Measure("% of a core", lambda answer: 100 * answer["proxy_cpu"] / answer["seconds"], "/busy")
    return Row(f"latency/{load}", "latency", (*measures, busy), order, "udp")


def added_latency(through: Answer, direct: Answer) -> Answer:
    """Take from a latency what the same echo costs without a server.

    Args:
        through: the answer for the way through the server.
        direct: the answer for the way straight to the origin, at the same rate.

    Returns:
        The first answer with the difference of its percentiles; an answer with `error` when either failed.
    """
    if "error" in through:
        return through
    if "error" in direct:
        return {"error": f"straight to the origin: {direct['error']}"}
    return {**through, **{key: through[key] - direct[key] for key in PERCENTILES}}


def plan_fairness(pace: Pace, targets: Targets) -> list[Row]:
    """List the rows that tell how evenly tunnels are served.

    Args:
        pace: how long.
        targets: the origins.

    Returns:
        Datagrams in 16 tunnels of four connections, and eight downloads of one connection.
    """
    measures = (
        Measure("Jain's index", lambda answer: jain_index(answer["counts"]), "/jain"),
        Measure("least/most", lambda answer: smallest_share(answer["counts"]), "/least"),
    )
    order = {"load": "fairness", "warmup": pace.warmup, "seconds": pace.seconds}
    datagrams = {**order, "kind": "datagrams", "target": targets.udp, "size": _SIZE, "window": _WINDOW}
    down = {**order, "kind": "down", "target": targets.tcp}
    return [
        Row("fairness/datagrams", "fairness", measures, {**datagrams, "tunnels": 16, "connections": 4}, "udp"),
        Row("fairness/down", "fairness", measures, {**down, "tunnels": 8, "connections": 1}, "tcp"),
    ]


def plan_loss(pace: Pace, targets: Targets) -> list[Row]:
    """List the rows of bytes over a path with loss and delay.

    Args:
        pace: how long.
        targets: the origins.

    Returns:
        Downloads and uploads, in 10^6 bits a second.
    """
    measures = (Measure("Mbit/s", lambda answer: 8e-6 * answer["work"] / answer["seconds"]),)
    order = {"load": "paced-streams", "target": targets.tcp, "seconds": pace.seconds * _LOSSY_SHARE}
    order["warmup"] = pace.seconds
    return [
        Row(
            f"loss/{direction}/{streams}",
            "loss",
            measures,
            {**order, "direction": direction, "streams": streams},
            "tcp",
        )
        for direction, streams in _LOSSY
    ]


def plan_ceiling(pace: Pace, targets: Targets) -> list[Row]:
    """List the rows that show what the generator can do, with a server that only mirrors.

    Args:
        pace: how long.
        targets: the origins; the mirror uses none.

    Returns:
        A row for the smallest and one for the largest payload: datagrams in a CPU second of the generator.
    """
    measures = (Measure("per CPU s", lambda answer: float(answer["work"] / answer["load_cpu"])),)
    order = {"load": "datagrams", "target": targets.udp, "tunnels": _TUNNELS, "window": _WINDOW}
    order |= {"warmup": pace.warmup, "seconds": pace.seconds}
    return [Row(f"ceiling/{size}", "ceiling", measures, {**order, "size": size}, "udp") for size in (64, _SIZE)]
