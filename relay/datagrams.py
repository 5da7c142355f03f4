"""From DATAGRAM frames to the exchanges they belong to (RFC 9297 §2.1), on one connection.

The short way: the leading bytes of a known tunnel, quarter stream id and context id 0, are looked up in one dict, and
a turn's payloads reach its sink in one call. The long way is for the rest: other contexts, ids encoded longer than
need be, datagrams before their tunnel's answer, and datagrams that overtook their request, of which a few are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

from masque.datagram import parse_datagram
from relay.exchange import Exchange
from relay.telemetry import DropReason, LimitName, Metric, Metrics

__all__ = ["DatagramRouter"]

_PREFIX_LENGTH: Final = bytes(1 + (1 << (first >> 6)) for first in range(256))
"Length of quarter stream id and context id 0, by the first byte of a DATAGRAM payload."


class DatagramRouter:
    """The routes of one connection's datagrams."""

    def __init__(self, exchanges: Mapping[int, Exchange], orphans: int, metrics: Metrics) -> None:
        """Route to `exchanges`, which the session keeps up to date.

        Args:
            exchanges: by stream id.
            orphans: datagrams kept for requests that have not arrived; 0 for a client, whose streams are its own.
            metrics: where drops are counted.
        """
        self._exchanges = exchanges
        self._metrics = metrics
        self._routes: dict[bytes, Exchange] = {}
        self._orphans: deque[tuple[int, bytes]] = deque(maxlen=orphans)
        self._highest_stream = -1

    @property
    def is_empty(self) -> bool:
        """True when nothing is kept."""
        return not self._routes and not self._orphans

    def open(self, prefix: bytes, exchange: Exchange) -> None:
        """Take the short way to an exchange for datagrams with this prefix."""
        if len(prefix) == _PREFIX_LENGTH[prefix[0]]:
            self._routes[prefix] = exchange

    def close(self, prefix: bytes) -> None:
        """Undo `open`."""
        self._routes.pop(prefix, None)

    def clear(self) -> None:
        """Forget everything."""
        self._routes.clear()
        self._orphans.clear()

    def adopt(self, exchange: Exchange) -> None:
        """A request arrived: hand over the datagrams that came before it."""
        stream_id = exchange.stream_id
        self._highest_stream = max(self._highest_stream, stream_id)
        mine = [datagram for owner, datagram in self._orphans if owner == stream_id]
        if mine:
            kept = [(owner, datagram) for owner, datagram in self._orphans if owner != stream_id]
            self._orphans.clear()
            self._orphans.extend(kept)
            for datagram in mine:
                exchange.deliver_datagram(datagram)

    def deliver(self, payloads: list[bytes]) -> None:
        """Deliver the DATAGRAM payloads of one turn.

        Raises:
            masque.errors.Malformed: one of them cannot be an HTTP Datagram; the connection has to close (reach
                CONNECTION). Those after it are not looked at.
        """
        routes = self._routes
        lengths = _PREFIX_LENGTH
        ready: list[Exchange] = []
        for data in payloads:
            if data:
                length = lengths[data[0]]
                exchange = routes.get(data[:length])
                if exchange is not None:
                    inbox = exchange.inbox
                    if not inbox:
                        ready.append(exchange)
                    inbox.append(data[length:])
                    continue
            self._deliver_one(data)
        for exchange in ready:
            payloads, exchange.inbox = exchange.inbox, []
            if payloads and exchange.sink is not None:
                exchange.sink.payloads_received(payloads)

    def _deliver_one(self, data: bytes) -> None:
        stream_id, offset = parse_datagram(data)
        exchange = self._exchanges.get(stream_id)
        if exchange is not None:
            if not exchange.deliver_datagram(data[offset:]):
                self._metrics.count(Metric.DATAGRAMS_DROPPED, 1, DropReason.EARLY_FULL)
        elif stream_id > self._highest_stream and self._orphans.maxlen:
            if len(self._orphans) == self._orphans.maxlen:
                self._metrics.count(Metric.DATAGRAMS_DROPPED, 1, DropReason.EARLY_FULL)
                self._metrics.count(Metric.LIMITS_HIT, 1, LimitName.EARLY_DATAGRAMS)
            self._orphans.append((stream_id, data[offset:]))
        else:
            self._metrics.count(Metric.DATAGRAMS_DROPPED, 1, DropReason.NO_TUNNEL)
