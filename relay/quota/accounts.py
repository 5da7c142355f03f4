"""The accounts of principals by name: bounded in number, and forgotten once they say nothing any more."""

from __future__ import annotations

import heapq

from relay.quota.account import Account
from relay.quota.limits import QuotaLimits
from relay.telemetry import Metric, Metrics

__all__ = ["Accounts"]

_AT_ONCE = 100
"Idle accounts looked at in one step, so that no step takes long."


class Accounts:
    """Who used what. An account without tunnels is kept only as long as it differs from a new one."""

    def __init__(self, limit: int, metrics: Metrics) -> None:
        """Start with nobody.

        Args:
            limit: accounts at the same time.
            metrics: where their number is shown.
        """
        self._limit = limit
        self._metrics = metrics
        self._accounts: dict[str, tuple[Account, QuotaLimits]] = {}
        self._resting: list[tuple[float, str]] = []
        "A heap: when to look at an account again that had no tunnel. One entry for an account at most."
        self._is_resting: set[str] = set()

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._accounts)

    def find(self, name: str, limits: QuotaLimits, now: float) -> Account | None:
        """Return a principal's account, a new one for a new name; None when there is no room for one more."""
        self.forget_idle(now)
        known = self._accounts.get(name)
        account = Account() if known is None else known[0]
        if known is None:
            if len(self._accounts) >= self._limit:
                return None
            self._metrics.count(Metric.PRINCIPALS_TRACKED, 1)
        self._accounts[name] = (account, limits)
        return account

    def rest(self, name: str, now: float) -> None:
        """A tunnel of the principal ended: forget the account when that makes no difference, now or later."""
        if name not in self._is_resting:
            self._settle(name, now)
        self.forget_idle(now)

    def forget_idle(self, now: float) -> None:
        """Look at some of the accounts whose time has come."""
        for _ in range(_AT_ONCE):
            if not self._resting or self._resting[0][0] > now:
                return
            _, name = heapq.heappop(self._resting)
            self._is_resting.discard(name)
            self._settle(name, now)

    def _settle(self, name: str, now: float) -> None:
        account, limits = self._accounts[name]
        if account.tunnels:
            return
        due = account.idle_at(limits, now)
        if due <= now:
            del self._accounts[name]
            self._metrics.count(Metric.PRINCIPALS_TRACKED, -1)
        else:
            heapq.heappush(self._resting, (due, name))
            self._is_resting.add(name)
