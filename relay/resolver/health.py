"""How an upstream has been of late: how fast, and whether it is worth asking. Time is an argument.

An upstream that failed several times in a row rests for a while, twice as long each time. When the rest is over it is
probed, and takes questions again once it has answered.
"""

from __future__ import annotations

__all__ = ["Health"]

_FAILURES = 4
"Questions in a row without an answer that make an upstream rest."
_FIRST_REST = 1.0
_LONGEST_REST = 60.0
_FIRST_PATIENCE = 0.4
"Seconds for an upstream that has not answered yet."
_LEAST_PATIENCE = 0.3
_MOST_PATIENCE = 2.0
_GAIN = 1 / 8
_DEVIATION_GAIN = 1 / 4


class Health:
    """One upstream's latency (as RFC 6298 §2 smooths it), failures and rest."""

    __slots__ = ("_deviation", "_latency", "_rest_ends", "failures", "is_probed")

    def __init__(self) -> None:
        """Know nothing yet."""
        self._latency: float | None = None
        self._deviation = 0.0
        self._rest_ends = 0.0
        self.failures = 0
        "Failures since the last answer."
        self.is_probed = False
        "Whether a probe is under way."

    @property
    def is_well(self) -> bool:
        """Whether it takes questions."""
        return self.failures < _FAILURES

    @property
    def latency(self) -> float | None:
        """The smoothed seconds that an answer takes, or None before the first one."""
        return self._latency

    @property
    def patience(self) -> float:
        """Seconds to wait for its answer before the next upstream is asked beside it."""
        if self._latency is None:
            return _FIRST_PATIENCE
        return min(max(2 * self._latency + 4 * self._deviation, _LEAST_PATIENCE), _MOST_PATIENCE)

    def wants_probe(self, now: float) -> bool:
        """Say whether its rest is over and nobody has looked yet."""
        return not self.is_well and not self.is_probed and now >= self._rest_ends

    def succeeded(self, seconds: float) -> bool:
        """Note an answer.

        Returns:
            Whether it had been resting.
        """
        if self._latency is None:
            self._latency, self._deviation = seconds, seconds / 2
        else:
            self._deviation += _DEVIATION_GAIN * (abs(self._latency - seconds) - self._deviation)
            self._latency += _GAIN * (seconds - self._latency)
        was_resting = not self.is_well
        self.failures = 0
        return was_resting

    def failed(self, now: float) -> bool:
        """Note that it did not answer.

        Returns:
            Whether it rests from now on, and did not before.
        """
        self.failures += 1
        if self.is_well:
            return False
        self._rest_ends = now + min(_FIRST_REST * 2.0 ** min(self.failures - _FAILURES, 30), _LONGEST_REST)
        return self.failures == _FAILURES
