"""What is measured beside the base rows: new tunnels, added latency, fairness, throughput with loss."""

from __future__ import annotations

from interop.bench.plan import MEGABYTE, Answer, Measure, Pace, Row, Targets, rate
from interop.bench.spread import jain_index, smallest_share

__all__ = [
    "DELAY",
    "DIRECT",
    "FULL",
    "GROUPS",
    "LOADS",
    "LOSS",
    "OURS",
    "PERCENTILES",
    "QUICK",
    "SHARED",
    "SHARED_SHARE",
    "added_latency",
    "plan_capacity",
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

FULL = Pace(rounds=5, warmup=0.2, seconds=0.8, volume=300 * MEGABYTE)
"The pace of figures that are quoted."
QUICK = Pace(rounds=1, warmup=0.1, seconds=0.3, volume=50 * MEGABYTE)
"The pace of a look while developing."

DIRECT = "direct/"
"Goes before the name of a server whose rates are sent straight to the origin."
OURS = "relay-qh3"
"The server whose capacity sets the rate that all are measured at."
SHARED = "shared"
"The load that is the same rate for every server."
SHARED_SHARE = 10
"Per cent of the capacity of OURS that this rate is."
LOADS = (SHARED, "10", "50", "80")
"Where latency is measured: at that rate, and at per cents of each server's own capacity."
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
_LOSSY_SHARE = 4.0
"How many times longer than other rows the lossy ones take: there are few round trips in a second."
_STRETCH = 0.4
"Seconds that the generator measures without a rest: a try, and the way straight to the origin, take one stretch."
_STRETCH_WARMUP = 0.1


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


def plan_capacity(rate_: float) -> Row:
    """Describe a try whether a server carries a rate.

    Args:
        rate_: echoes in a second.

    Returns:
        A row like those of latency, and shorter; its figure is whatever rate was found in the end.
    """
    order = _latency_order(rate_, _STRETCH_WARMUP, _STRETCH)
    measure = Measure("echoes/s", lambda answer: float(answer["capacity"]))
    return Row("capacity", "latency", (measure,), order, "udp")


def plan_latency(pace: Pace, load: str, rate_: float, direct: bool = False) -> Row:
    """Describe the row of added latency at one load.

    Args:
        pace: how long.
        load: one of LOADS, for the key.
        rate_: echoes in a second.
        direct: go straight to the origin.

    Returns:
        A row whose figures are microseconds, and how busy the server was if there is one on the way; it wants answers
        from `added_latency`.
    """
    measures = tuple(
        Measure("us", lambda answer, key=key: 1e6 * answer[key], f"/{key}")  # type: ignore[misc]
        for key in PERCENTILES
    )
    busy = Measure("% of a core", lambda answer: 100 * answer["proxy_cpu"] / answer["seconds"], "/busy")
    seconds = min(pace.seconds, _STRETCH) if direct else pace.seconds
    order = {**_latency_order(rate_, min(pace.warmup, _STRETCH_WARMUP), seconds), "direct": direct}
    return Row(f"latency/{load}", "latency", measures if direct else (*measures, busy), order, "udp")


def _latency_order(rate_: float, warmup: float, seconds: float) -> Answer:
    """Order echoes at a rate; the generator is their origin."""
    return {
        "load": "latency",
        "size": _SIZE,
        "tunnels": _TUNNELS,
        "rate": rate_,
        "warmup": warmup,
        "seconds": seconds,
    }


def added_latency(through: Answer, direct: Answer) -> Answer:
    """Take from a latency what the same echo costs without a server.

    Args:
        through: the answer for the way through the server.
        direct: the answer for the way straight to the origin, at the same rate.

    Returns:
        The first answer with the difference of its percentiles, and the later of both ways; an answer with `error`
        when either failed.
    """
    if "error" in through:
        return through
    if "error" in direct:
        return {"error": f"straight to the origin: {direct['error']}"}
    late = max(through["late"], direct["late"])
    return {**through, "late": late, **{key: through[key] - direct[key] for key in PERCENTILES}}


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
    order["warmup"] = pace.seconds / 2
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
