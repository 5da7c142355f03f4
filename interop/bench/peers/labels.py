"""What rows and servers are called where people read of them, and their colours."""

from __future__ import annotations

__all__ = ["COLOURS", "OTHER_COLOUR", "load_label", "row_label", "server_label"]

COLOURS = {
    "relay-qh3": "#0072b2",
    "relay-aioquic": "#56b4e9",
    "envoy": "#d55e00",
    "masque-go": "#009e73",
    "quic-go-connect": "#cc79a7",
}
"Colours that those can tell apart too who see few (Okabe and Ito)."
OTHER_COLOUR = "#7f7f7f"
"Everybody else."

_SERVERS = {
    "relay-qh3": "relay (qh3)",
    "relay-aioquic": "relay (aioquic)",
    "envoy": "Envoy",
    "masque-go": "masque-go",
    "quic-go-connect": "quic-go",
    "mirror": "mirror",
    "floor": "kernel",
}
_DIRECTIONS = {"down": "download", "up": "upload"}
_FIXED = {
    "handshakes": "handshakes",
    "capacity": "echoes of 1100 bytes, 16 tunnels",
    "tunnels/udp": "UDP tunnels",
    "tunnels/tcp": "TCP tunnels",
    "memory/connection": "idle connection",
    "memory/udp_tunnel": "idle UDP tunnel",
    "memory/tcp_tunnel": "idle TCP tunnel",
    "fairness/datagrams/jain": "datagrams in 16 tunnels of 4 connections, Jain's index",
    "fairness/datagrams/least": "the same, least served / most served",
    "fairness/down/jain": "8 downloads of one connection, Jain's index",
    "fairness/down/least": "the same, least served / most served",
}
_PERCENTILES = {"p50": "p50", "p99": "p99", "p999": "p99.9", "busy": "busy"}


def server_label(name: str) -> str:
    """Name a server.

    Args:
        name: as in the results.

    Returns:
        Its name for people.
    """
    way, _, server = name.rpartition("/")
    return f"without {_SERVERS.get(server, server)}" if way else _SERVERS.get(name, name)


def load_label(load: str) -> str:
    """Name a load at which latency is measured.

    Args:
        load: as in the results.

    Returns:
        Its name for people.
    """
    return f"{load} % of its own capacity" if load.isdigit() else f"{load} rate"


def row_label(key: str) -> str:
    """Name a row.

    Args:
        key: as in the results.

    Returns:
        Its name for people; the key itself where there is none.
    """
    if key in _FIXED:
        return _FIXED[key]
    match key.split("/"):
        case ["datagrams", size, "1", "lone"]:
            return f"{size} bytes, one datagram at a time"
        case ["datagrams", size, tunnels]:
            return f"{size} bytes, {_count(tunnels, 'tunnel')}"
        case ["streams" | "loss", direction, streams]:
            return f"{_DIRECTIONS.get(direction, direction)}, {_count(streams, 'stream')}"
        case ["latency", load, percentile]:
            return f"{load_label(load)}, {_PERCENTILES.get(percentile, percentile)}"
        case ["ceiling", size]:
            return f"{size} bytes"
        case ["floor", size, batch]:
            return f"{size} bytes in batches of {batch}"
    return key


def _count(number: str, noun: str) -> str:
    """Write how many of something."""
    return f"{number} {noun}" + ("" if number == "1" else "s")
