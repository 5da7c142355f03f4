"""What the proof says of what the origin saw: which addresses, of which pool, how evenly, and how steadily."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network
from math import sqrt
from typing import Any

from interop.egress.client import KINDS
from interop.egress.site import Site
from interop.egress.stage import HINTS

__all__ = ["deviation", "judge"]

_MAX_DEVIATION = 5.0
"Standard deviations of an even spread: a run in three million goes beyond by chance."


def deviation(counts: Iterable[int], cells: int) -> float:
    """Return how far a chi-square statistic is from that of an even spread, in standard deviations.

    Wilson and Hilferty's cube root makes the statistic normal.

    Args:
        counts: of the cells that were hit.
        cells: how many cells there are.
    """
    hit = list(counts)
    expected = sum(hit) / cells
    statistic = sum((count - expected) ** 2 for count in hit) / expected + (cells - len(hit)) * expected
    freedom = cells - 1
    spread = 2 / (9 * freedom)
    return float(((statistic / freedom) ** (1 / 3) - (1 - spread)) / sqrt(spread))


def judge(
    site: Site, seen: Sequence[dict[str, Any]], again: Sequence[dict[str, Any]] = ()
) -> tuple[list[str], list[str]]:
    """Say what was seen.

    Args:
        site: the addresses that there are.
        seen: what each session saw.
        again: what the same sessions saw later.

    Returns:
        Lines for the reader, and what is not as it should be.
    """
    lines: list[str] = []
    wrong: list[str] = []
    refused = sum(not isinstance(session[kind], str) for session in seen for kind in KINDS)
    if refused:
        return lines, [f"{refused} tunnels were refused"]
    half = len(site.addresses) // 2
    for hint, own, network in zip(HINTS, (site.addresses[:half], site.addresses[half:]), site.networks, strict=True):
        sessions = [session for session in seen if session["hint"] == hint]
        four = Counter(session["tcp4"] for session in sessions)
        six = {session["tcp6"] for session in sessions}
        off = deviation(four.values(), len(own))
        lines.append(
            f"{hint}: {len(sessions)} sessions from {len(four)} of {len(own)} IPv4 addresses, chi-square {off:+.1f} "
            f"standard deviations; {len(six)} IPv6 addresses of {network}"
        )
        if not set(four) <= set(own) or not all(ip_address(address) in ip_network(network) for address in six):
            wrong.append(f"{hint}: an address of another place")
        if abs(off) > _MAX_DEVIATION:
            wrong.append(f"{hint}: the IPv4 addresses are not used evenly")
        if len(six) != len(sessions):
            wrong.append(f"{hint}: two sessions share an IPv6 address")
    if any(session["tcp4"] != session["udp4"] or session["tcp6"] != session["udp6"] for session in seen):
        wrong.append("TCP and UDP of one session leave from different addresses")
    if again and list(again) != list(seen):
        wrong.append("sessions did not keep their addresses")
    return lines, wrong
