"""A stream's datagrams and a connected UDP socket: drives `masque.tunnel.UdpTunnel` (RFC 9298 §5).

A turn's payloads from the client leave in as few system calls as their sizes allow; what the target sent comes in as
one buffer and goes out as one run of DATAGRAM frames. The kernel checks the sender, because the socket is connected.
"""

from __future__ import annotations

from masque.tunnel import UdpTunnel
from relay.errors import Failure, FailureKind, Side, failure_from_os_error
from relay.exchange import Exchange
from relay.hooks import TunnelKind
from relay.outcome import Outcome
from relay.poller import Poller
from relay.quic.socket import UdpSocket
from relay.telemetry import DropReason, LimitName, Metric, Metrics
from relay.tunnels.sink import DatagramSink
from relay.tunnels.tunnel import Tunnel, TunnelLimits

__all__ = ["UdpRelay"]


class UdpRelay(DatagramSink, Tunnel):
    """A CONNECT-UDP tunnel's datagram path. Takes over the socket, which is connected."""

    kind = TunnelKind.UDP
    idle_limit = LimitName.UDP_IDLE

    def __init__(
        self, exchange: Exchange, sock: UdpSocket, poller: Poller, limits: TunnelLimits, metrics: Metrics
    ) -> None:
        """Start relaying; attaches itself to the exchange, which delivers what came early."""
        super().__init__(exchange, poller, limits, metrics)
        self._socket = sock
        self._machine = UdpTunnel(exchange.stream_id, limits.capsule)
        self._prefix = self._machine.prefix
        self._sent = 0
        self._sent_bytes = 0
        self._received = 0
        self._received_bytes = 0
        self._too_big = 0
        self._target_full = 0
        poller.add(sock.fileno(), self._ready)
        exchange.open_datagrams(self._prefix)
        exchange.attach(self)

    # What the exchange calls.

    def payloads_received(self, payloads: list[bytes]) -> None:
        """UDP payloads for the target, of one turn."""
        if self.is_closed:
            return
        self.active_at = self.poller.now
        total = len(payloads)
        done = 0
        while done < total:
            try:
                sent = self._socket.send(payloads[done:] if done else payloads)
            except OSError as error:
                if failure_from_os_error(error).side is Side.TARGET:
                    self._target_failed(error)
                    return
                self._too_big += 1  # this one alone is dropped (RFC 9298 §5)
                done += 1
                continue
            if not sent:
                self._target_full += total - done
                return
            self._sent += sent
            self._sent_bytes += sum(map(len, payloads[done : done + sent] if sent < total else payloads))
            done += sent

    def fin_received(self) -> None:
        """The client ended the tunnel; datagrams of the same flight go first."""
        self.poller.defer(self._finish)

    def _finish(self) -> None:
        if not self.is_closed:
            self.exchange.end_content()
            self.close(Outcome.closed())

    def drained(self) -> None:
        """Datagrams do not wait for a backlog."""

    def aborted(self) -> None:
        """The stream is gone."""
        self.close(Outcome.failed(FailureKind.CLIENT_ABORTED, Side.CLIENT))

    # What the poller calls.

    def _ready(self, events: int) -> None:
        try:
            found = self._socket.receive()
        except OSError as error:
            self._target_failed(error)
            return
        if found is None:
            return
        data, segment, _ = found
        self.active_at = self.poller.now
        count = -(-len(data) // segment) if segment else 1
        self._received += count
        self._received_bytes += len(data)
        if self.exchange.max_datagram_payload:
            self._too_big += count - self.exchange.send_datagrams(self._prefix, data, segment)
        else:
            self._send_capsules(data, segment)

    # Inside.

    def _target_failed(self, error: OSError) -> None:
        """An ICMP error says that nobody is there: the tunnel ends (RFC 9298 §3.1)."""
        self.close(Outcome(failure_from_os_error(error)))

    def refused(self) -> None:
        """The client broke a rule."""
        self.close(Outcome(Failure(FailureKind.HTTP_REQUEST_ERROR, Side.CLIENT)))

    def _send_capsules(self, data: bytes, segment: int) -> None:
        """For a peer without H3_DATAGRAM: capsules on the stream, dropped while it is behind (RFC 9297 §3.5)."""
        if self.exchange.backlog > self.limits.backlog:
            self.metrics.count(Metric.DATAGRAMS_DROPPED, 1, DropReason.QUEUE_FULL)
            return
        encode = self._machine.encode_capsule
        pieces = [data[start : start + segment] for start in range(0, len(data), segment)] if data else [b""]
        self.exchange.write(b"".join(map(encode, pieces)))

    @property
    def relayed(self) -> int:
        """Bytes of all payloads sent to the target and received from it."""
        return self._sent_bytes + self._received_bytes

    # What `Tunnel.close` calls.

    def release_socket(self, outcome: Outcome) -> None:
        """Close the socket."""
        self.poller.remove(self._socket.fileno())
        self._socket.close()

    def add_counts(self) -> None:
        """Datagrams and bytes each way, and what was dropped."""
        count = self.metrics.count
        count(Metric.DATAGRAMS_TO_TARGET, self._sent)
        count(Metric.DATAGRAMS_TO_CLIENT, self._received)
        count(Metric.BYTES_TO_TARGET, self._sent_bytes, self.kind)
        count(Metric.BYTES_TO_CLIENT, self._received_bytes, self.kind)
        drops = (
            (self._too_big, DropReason.TOO_BIG),
            (self._target_full, DropReason.TARGET_FULL),
            (self._machine.dropped + self._machine.discarded, DropReason.NO_TUNNEL),
        )
        if self._machine.discarded:
            count(Metric.LIMITS_HIT, self._machine.discarded, LimitName.CAPSULE)
        for dropped, reason in drops:
            if dropped:
                count(Metric.DATAGRAMS_DROPPED, dropped, reason)
