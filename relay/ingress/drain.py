"""Going away without cutting tunnels short (RFC 9114 §5.2): notice, line, wait, close."""

from __future__ import annotations

import asyncio

from relay.ingress.h3 import H3Ingress
from relay.telemetry import LimitName, Metric, Metrics

__all__ = ["Drain"]

_NOTICE = 0.5
"Seconds between the notice and the line: about a round trip, so that requests on their way are still taken."


class Drain:
    """One drain of one ingress."""

    def __init__(self, ingress: H3Ingress, limit: float, metrics: Metrics) -> None:
        """Give open tunnels at most `limit` seconds."""
        self._ingress = ingress
        self._limit = limit
        self._metrics = metrics

    async def run(self) -> None:
        """Send GOAWAY, wait for the tunnels, close what is left, and return."""
        empty = asyncio.Event()
        self._ingress.on_empty = empty.set
        if not self._ingress.sessions:
            return
        self._ingress.goaway(final=False)
        try:
            async with asyncio.timeout(self._limit):
                try:
                    async with asyncio.timeout(min(_NOTICE, self._limit)):
                        await empty.wait()
                except TimeoutError:
                    self._ingress.goaway(final=True)
                    if self._ingress.sessions:
                        await empty.wait()
        except TimeoutError:
            self._metrics.count(Metric.LIMITS_HIT, 1, LimitName.DRAIN)
            self._ingress.close()
