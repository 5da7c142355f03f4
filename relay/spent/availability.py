"""Whether a store answers: who may try while it does not, and one line of log for each end of an outage.

While a store is away, callers are refused at once, and one of them is let through every `retry` seconds to try.
So an outage costs neither threads nor waiting clients, and ends by itself with the first success.
"""

from __future__ import annotations

from relay.spent.store import AwayReason, StoreAway, StoreFull
from relay.telemetry import get_logger

__all__ = ["Availability"]


class Availability:
    """A store's outages. Time is an argument: seconds of a clock that does not jump."""

    __slots__ = ("_due", "_kind", "_last", "_reason", "_refused", "_retry", "_since")

    def __init__(self, kind: str, retry: float) -> None:
        """Start out available.

        Args:
            kind: the store's kind, for the log.
            retry: seconds between two attempts while the store is away. An outage is over, for the log, only when
                this long nothing failed, so that a store on the edge does not fill the log.
        """
        self._kind = kind
        self._retry = retry
        self._reason: AwayReason | None = None
        self._due: float | None = None
        self._since: float | None = None
        self._last = 0.0
        self._refused = 0

    def peek(self, now: float) -> None:
        """Refuse while the store is away and nobody may try yet.

        Raises:
            StoreAway: with the reason of the outage.
        """
        if self._due is not None and self._reason is not None and now < self._due:
            self._refused += 1
            raise StoreAway(self._reason)

    def enter(self, now: float) -> None:
        """As `peek`, but while the store is away the caller that is let through is the only one for `retry` seconds.

        Raises:
            StoreAway: with the reason of the outage.
        """
        self.peek(now)
        if self._due is not None:
            self._due = now + self._retry

    def failed(self, reason: AwayReason, now: float, exception: str | None = None, callers: int = 1) -> StoreAway:
        """Note that the store failed: from now on it is away.

        Args:
            reason: why.
            now: the time.
            exception: the name of an exception's type, where the reason does not say enough.
            callers: how many are refused by this.

        Returns:
            What to raise.
        """
        self._due = now + self._retry
        self._note(reason, now, exception, callers)
        return StoreAway(reason)

    def overloaded(self, reason: AwayReason, now: float) -> StoreAway:
        """Note that one caller was refused for a lack of room. The store stays available to others.

        Returns:
            What to raise.
        """
        self._note(reason, now, None, 1)
        return StoreFull() if reason is AwayReason.FULL else StoreAway(reason)

    def succeeded(self, now: float) -> None:
        """Note that the store answered."""
        self._due = None
        if self._since is None or now < self._last + self._retry:
            return
        seconds = round(now - self._since, 3)
        get_logger().info("spent_store_back", kind=self._kind, seconds=seconds, count=self._refused)
        self._since = self._reason = None
        self._refused = 0

    def _note(self, reason: AwayReason, now: float, exception: str | None, callers: int) -> None:
        self._reason = reason
        self._last = now
        self._refused += callers
        if self._since is None:
            self._since = now
            fields = {} if exception is None else {"exception_type": exception}
            get_logger().error("spent_store_away", kind=self._kind, reason=reason.value, **fields)
