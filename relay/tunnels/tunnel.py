"""What every tunnel has: one end, an idle time, and counts that are added up when it is over."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from relay.errors import FailureKind, Side
from relay.exchange import Exchange
from relay.hooks import TunnelKind
from relay.outcome import Outcome, h3_code
from relay.poller import Poller
from relay.telemetry import LimitName, Metric, Metrics

__all__ = ["Tunnel", "TunnelLimits"]


@dataclass(frozen=True, slots=True)
class TunnelLimits:
    """Bounds of one tunnel."""

    idle: float
    "Seconds without a byte or datagram either way, after which the tunnel ends."
    buffer: int = 4 << 20
    "Bytes waiting for the socket from which the stream's sender is held."
    backlog: int = 512 << 10
    "Bytes waiting for the stream from which the socket is not read."
    write_stall: float = 10.0
    "Seconds a socket may take nothing while its tunnel holds the whole connection."
    capsule: int = 65536
    "Largest DATAGRAM capsule, in bytes."


class Tunnel:
    """An accepted exchange carrying bytes or datagrams. `closed` gets the outcome, exactly once."""

    kind: TunnelKind
    idle_limit: LimitName

    def __init__(self, exchange: Exchange, poller: Poller, limits: TunnelLimits, metrics: Metrics) -> None:
        self.exchange = exchange
        self.poller = poller
        self.limits = limits
        self.metrics = metrics
        self.active_at = poller.now
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[Outcome] = self._loop.create_future()
        self._idle_timer = self._loop.call_later(limits.idle, self._check_idle)

    @property
    def is_closed(self) -> bool:
        """Whether the tunnel has its outcome."""
        return self.closed.done()

    @property
    def relayed(self) -> int:
        """Payload bytes so far, both directions together; the data path counts them anyway."""
        raise NotImplementedError

    def close(self, outcome: Outcome) -> None:
        """End the tunnel: release the socket, end the exchange, count. Later calls do nothing."""
        if self.closed.done():
            return
        self.closed.set_result(outcome)
        self._idle_timer.cancel()
        self.release_socket(outcome)
        if not self.exchange.is_over:
            if outcome.failure is None:
                self.exchange.end()
            else:
                self.exchange.abort(h3_code(outcome.failure))
        self.add_counts()

    def release_socket(self, outcome: Outcome) -> None:
        """Close the socket; called once."""
        raise NotImplementedError

    def add_counts(self) -> None:
        """Add the tunnel's own integers to the metrics; called once."""
        raise NotImplementedError

    def _check_idle(self) -> None:
        """Fires at the earliest possible end; activity since then only moves it."""
        left = self.active_at + self.limits.idle - self._loop.time()
        if left <= 0:
            self.metrics.count(Metric.LIMITS_HIT, 1, self.idle_limit)
            self.close(Outcome.failed(FailureKind.TUNNEL_IDLE, Side.RELAY))
        else:
            self._idle_timer = self._loop.call_later(left, self._check_idle)
