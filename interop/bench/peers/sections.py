"""The tables of the page: which rows are in each, and what a reader must know of them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SECTIONS", "YARDSTICKS", "Section"]


@dataclass(frozen=True, slots=True)
class Section:
    """One table of the page."""

    title: str
    "Its heading."
    groups: tuple[str, ...]
    "Whose rows it has."
    text: str
    "What the figures count, and which way is better."
    chart: str = ""
    "The name of its plot; empty when there is none."
    has_ratio: bool = True
    "Its figures can be divided by Envoy's."


SECTIONS = (
    Section(
        "CPU for a relayed datagram",
        ("datagrams",),
        "Microseconds of the server's CPU for one datagram, either way; an echo is two. Closed loop: 96 "
        "datagrams under way in one tunnel, 12 in each of 16, 4 in each of 60, all on one connection. Less is "
        "better.",
        "datagrams",
    ),
    Section(
        "CPU for bytes in TCP tunnels",
        ("streams",),
        "CPU seconds of the server for 10^9 bytes, on one connection. Less is better.",
        "streams",
    ),
    Section(
        "Handshakes and new tunnels",
        ("handshakes", "tunnels"),
        "How many in one CPU second of the server. A tunnel is asked for, answered with 200, and closed. More is "
        "better.",
        "connections",
    ),
    Section(
        "Capacity",
        ("capacity",),
        "The largest rate of echoes at which 99 % come back and 99 % of those within 5 ms, to 5 %. Open loop: echoes "
        "leave by the clock, one by one, in 16 tunnels of one connection. More is better.",
        "capacity",
    ),
    Section(
        "Added latency",
        ("latency",),
        "Microseconds that an echo of 1100 bytes takes longer through the server than straight to the origin, at "
        "the same rate in the same round, over 16 tunnels. Open loop as for capacity: a late echo is measured from "
        "when it was due. Each server is measured at shares of its own capacity, as found in the same round, so the "
        "rates differ; at the shared rate, about 10 % of what relay (qh3) can carry, all have the same. "
        "Less is better. Busy is the share of its core that the server used meanwhile, in per cent.",
        "latency",
        has_ratio=False,
    ),
    Section(
        "Memory for what is idle",
        ("memory",),
        "KiB of resident memory for each of 200 connections, and for each of 500 tunnels on ten of them. Less is "
        "better.",
        "memory",
    ),
    Section(
        "Fairness",
        ("fairness",),
        "How evenly tunnels that all want as much as they can get are served: Jain's index, and the least served "
        "divided by the most served. 1 is even.",
        has_ratio=False,
    ),
    Section(
        "Throughput with loss and delay",
        ("loss",),
        "10^6 bits a second that arrive. Downloads show the server's congestion control, uploads the generator's "
        "with the server's windows and acknowledgements. More is better.",
        "loss",
    ),
)
"What is measured on servers."
YARDSTICKS = (
    Section(
        "The kernel's floor",
        ("floor",),
        "Microseconds for a datagram through a forwarder with GRO and GSO and no QUIC.",
        has_ratio=False,
    ),
    Section(
        "The generator's ceiling",
        ("ceiling",),
        "Datagrams, both ways counted, that the generator can make and take in a second of its own CPU time, against "
        "its own mirror, which has no target behind it.",
        has_ratio=False,
    ),
)
"What the figures stand beside."
