"""What one principal uses: a machine without clock or I/O; `now` is an argument.

    quota     grows                      shrinks                         refuses
    tunnels   when one is admitted       when it is given back           at its bound
    rate      a bucket: one out for      filled by the rate, up to       when less than one is in it
              each admitted              the burst
    volume    by bytes relayed           to 0 when the period is over    when used up

Nothing is taken unless all quotas admit. What a tunnel took of the rate is not given back when it fails later: it
has cost its attempt. Its place is given back, always.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from relay.quota.limits import QuotaLimits
from relay.telemetry import QuotaName

__all__ = ["Account", "Shortage", "coarse"]

_STEPS = (1, 2, 5, 10, 30, 60, 300, 900, 3600)
"Seconds that a client is told to wait; beyond, whole hours."
_EPSILON = 1e-9


def coarse(seconds: float) -> int:
    """Round a wait up to a step, so that it is long enough and tells little of what others did meanwhile."""
    for step in _STEPS:
        if seconds <= step:
            return step
    return math.ceil(seconds / 3600) * 3600


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a tunnel is refused."""

    quota: QuotaName
    "Which quota is used up."
    wait: float | None
    "Seconds until there is some again; None when nobody can know."


class Account:
    """One principal's use."""

    __slots__ = ("_bucket", "_filled_at", "_is_new", "_period_ends", "_used", "tunnels")

    def __init__(self) -> None:
        """Nothing is used yet."""
        self.tunnels = 0
        "Tunnels now, those included that are still being opened."
        self._is_new = True
        self._bucket = 0.0
        self._filled_at = 0.0
        self._used = 0
        self._period_ends = -math.inf

    def admit(self, limits: QuotaLimits, now: float) -> Shortage | None:
        """Take a place for one more tunnel; give it back with `give_back`.

        Returns:
            None when it was taken, else what is missing; then nothing was taken.
        """
        self._refresh(limits, now)
        if self.is_used_up(limits, now):
            return Shortage(QuotaName.BYTES, self._period_ends - now)
        if limits.tunnels is not None and self.tunnels >= limits.tunnels:
            return Shortage(QuotaName.TUNNELS, None)
        if limits.rate is not None:
            if self._bucket < 1.0 - _EPSILON:
                return Shortage(QuotaName.RATE, (1.0 - self._bucket) / limits.rate)
            self._bucket = max(0.0, self._bucket - 1.0)
        self.tunnels += 1
        return None

    def give_back(self) -> None:
        """The tunnel is over, or never came to be."""
        self.tunnels -= 1

    def add(self, size: int, limits: QuotaLimits, now: float) -> None:
        """Count payload bytes."""
        self._refresh(limits, now)
        self._used += size

    def is_used_up(self, limits: QuotaLimits, now: float) -> bool:
        """True when the period's volume is gone: nothing more may be relayed until the period ends."""
        return limits.volume is not None and now < self._period_ends and self._used >= limits.volume

    def idle_at(self, limits: QuotaLimits, now: float) -> float:
        """When, without further use, this account is the same as a new one: then it may be forgotten."""
        self._refresh(limits, now)
        due = now
        if limits.rate is not None:
            due += max(0.0, limits.depth - self._bucket) / limits.rate
        return max(due, self._period_ends) if self._used else due

    def _refresh(self, limits: QuotaLimits, now: float) -> None:
        """Fill the bucket, and begin a new period when the last one is over."""
        if limits.rate is not None:
            filled = math.inf if self._is_new else self._bucket + (now - self._filled_at) * limits.rate
            self._bucket = min(limits.depth, filled)
            self._filled_at = now
            self._is_new = False
        if limits.volume is not None and now >= self._period_ends:
            self._used = 0
            self._period_ends = now + limits.period
