"""Counts what running tunnels relay, from the counters that they keep anyway: nothing is added to the data path.

Every tunnel is looked at twice a second, a few of them at a time: once to find that the volume is used up, once to
close it. So a principal can go beyond its volume by what its tunnels relay in a second, and no more.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from relay.errors import FailureKind, Side
from relay.hooks import RunningTunnel
from relay.outcome import Outcome
from relay.quota.account import Account
from relay.quota.limits import QuotaLimits
from relay.telemetry import Metric, Metrics, QuotaName

__all__ = ["Lease", "Meter"]

_ROUND = 0.5
"Seconds in which each tunnel is looked at once."
_STEP = 0.05
"Seconds between two steps of a round, at the least."


class Lease:
    """A tunnel's place in its principal's account."""

    __slots__ = ("_account", "_counted", "_limits", "_tunnel", "is_over")

    def __init__(self, account: Account, limits: QuotaLimits) -> None:
        """Note where a tunnel was admitted."""
        self._account = account
        self._limits = limits
        self._tunnel: RunningTunnel | None = None
        self._counted = 0
        self.is_over = False
        "True once the place was given back."

    @property
    def is_metered(self) -> bool:
        """True when bytes are bounded."""
        return self._limits.volume is not None

    def open(self, tunnel: RunningTunnel) -> None:
        """The tunnel runs."""
        self._tunnel = tunnel

    def count(self, now: float) -> bool:
        """Add what was relayed since the last time. False when the principal has used up its volume."""
        if self._tunnel is not None and self.is_metered:
            relayed = self._tunnel.relayed
            self._account.add(relayed - self._counted, self._limits, now)
            self._counted = relayed
        return not self._account.is_used_up(self._limits, now)

    def close(self) -> None:
        """End the tunnel, because the volume is used up."""
        if self._tunnel is not None:
            self._tunnel.close(Outcome.failed(FailureKind.RATE_LIMITED, Side.CLIENT))

    def give_back(self, now: float) -> None:
        """The exchange is over: count the rest and free the place."""
        self.count(now)
        self.is_over = True
        self._account.give_back()
        self._tunnel = None


class Meter:
    """Goes round the running tunnels while there are any."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], metrics: Metrics) -> None:
        """Rest until there is something to watch."""
        self._loop = loop
        self._clock = clock
        self._metrics = metrics
        self._leases: deque[Lease] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, lease: Lease) -> None:
        """Count this tunnel too, until its lease is over."""
        self._leases.append(lease)
        if self._timer is None:
            self._arm()

    def _arm(self) -> None:
        self._timer = self._loop.call_later(max(_STEP, _ROUND / len(self._leases)), self._step)

    def _step(self) -> None:
        self._timer = None
        now = self._clock()
        for _ in range(math.ceil(len(self._leases) * _STEP / _ROUND)):
            lease = self._leases.popleft()
            if lease.is_over:
                continue
            self._leases.append(lease)
            if not lease.count(now):
                self._metrics.count(Metric.QUOTAS_HIT, 1, QuotaName.BYTES)
                lease.close()
        if self._leases:
            self._arm()
