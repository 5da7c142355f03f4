"""Figures of several rounds: their middle, how far they lie apart, and whether two runs agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import median

__all__ = ["Spread", "jain_index", "smallest_share", "spread_of"]


@dataclass(frozen=True, slots=True)
class Spread:
    """The rounds of one line, in short."""

    middle: float
    "The median."
    low: float
    "The smallest."
    high: float
    "The largest."
    count: int
    "How many rounds."

    def meets(self, other: Spread) -> bool:
        """Tell whether two runs agree within their own spreads.

        Args:
            other: the same line of another run.

        Returns:
            The ranges from smallest to largest have a figure in common.
        """
        return self.low <= other.high and other.low <= self.high

    def chance_to_miss(self, other: Spread) -> float:
        """Tell how likely two runs of one and the same thing do not meet.

        Args:
            other: the same line of another run.

        Returns:
            The share of all orders of the figures in which one run is wholly below the other: 1 in 126 for five
            rounds each.
        """
        return 2 / comb(self.count + other.count, self.count)


def spread_of(figures: Sequence[float]) -> Spread | None:
    """Sum up rounds.

    Args:
        figures: one for each round.

    Returns:
        Their spread, or None where there is no round.
    """
    return Spread(median(figures), min(figures), max(figures), len(figures)) if figures else None


def jain_index(counts: Sequence[float]) -> float:
    """Measure how evenly work was shared (Jain, Chiu and Hawe, 1984).

    Args:
        counts: the work of each tunnel.

    Returns:
        1 when all got the same, 1/n when one of n got everything; 0 when nobody got anything.
    """
    squares = sum(count * count for count in counts)
    return sum(counts) ** 2 / (len(counts) * squares) if squares else 0.0


def smallest_share(counts: Sequence[float]) -> float:
    """Compare the tunnel that got least with the one that got most.

    Args:
        counts: the work of each tunnel.

    Returns:
        The smallest divided by the largest; 0 when nobody got anything.
    """
    largest = max(counts, default=0.0)
    return min(counts) / largest if largest else 0.0
