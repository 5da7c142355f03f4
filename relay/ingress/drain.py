"""Going away without cutting tunnels short (RFC 9114 §5.2): notice, line, wait, close.

A connection is not closed together with its last tunnel: what the tunnel sent last, its end above all, would be lost
with it. So a connection without exchanges lingers, and longer while content waits to be sent.
"""

from __future__ import annotations

import asyncio

from relay.ingress.h3 import H3Ingress
from relay.session import Session
from relay.telemetry import LimitName, Metric, Metrics

__all__ = ["Drain"]

_NOTICE = 0.5
"Seconds between the notice and the line: about a round trip, so that requests on their way are still taken."
_LINGER = 0.5
"Seconds between the last exchange of a connection and its close: a round trip and a retransmission on most paths."


class Drain:
    """One drain of one ingress."""

    def __init__(self, ingress: H3Ingress, limit: float, metrics: Metrics) -> None:
        """Give open tunnels at most `limit` seconds."""
        self._ingress = ingress
        self._limit = limit
        self._metrics = metrics
        self._timers: dict[Session, asyncio.TimerHandle] = {}

    async def run(self) -> None:
        """Send GOAWAY, wait for the tunnels, close what is left, and return."""
        ingress = self._ingress
        empty = asyncio.Event()
        ingress.on_empty = empty.set
        ingress.on_unused = self._linger
        if not ingress.sessions:
            return
        ingress.goaway(final=False)
        try:
            async with asyncio.timeout(self._limit):
                try:
                    async with asyncio.timeout(min(_NOTICE, self._limit)):
                        await empty.wait()
                except TimeoutError:
                    ingress.goaway(final=True)
                    self._close_unused()
                    if ingress.sessions:
                        await empty.wait()
        except TimeoutError:
            self._metrics.count(Metric.LIMITS_HIT, 1, LimitName.DRAIN)
            ingress.close()
        finally:
            ingress.on_unused = None
            for timer in self._timers.values():
                timer.cancel()

    def _close_unused(self) -> None:
        """Close connections that have been unused since before the notice."""
        for session in self._ingress.sessions:
            if session not in self._timers and not session.exchanges:
                self._close_if_idle(session)

    def _linger(self, session: Session) -> None:
        """Close a connection without exchanges, but not yet."""
        timer = self._timers.get(session)
        if timer is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._timers[session] = loop.call_later(_LINGER, self._close_if_idle, session)

    def _close_if_idle(self, session: Session) -> None:
        self._timers.pop(session, None)
        if session.is_idle:
            session.close()
        elif not session.exchanges:
            self._linger(session)
