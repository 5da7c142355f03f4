"""A stream and a TCP socket, spliced: drives `masque.tunnel.TcpTunnel` (RFC 9114 §4.4).

Bytes from the socket go into the stream's send buffer straight from one shared receive buffer, while the stream's
backlog is small; bytes from the stream are written at once and wait only when the socket is full.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import struct
from typing import Final

from masque.errors import ErrorCode
from masque.tunnel import TcpAction, TcpTunnel
from relay.errors import Failure, FailureKind, Side, failure_from_os_error
from relay.exchange import Exchange
from relay.hooks import TunnelKind
from relay.outcome import Outcome
from relay.poller import READABLE, WRITABLE, Poller
from relay.telemetry import LimitName, Metric, Metrics
from relay.tunnels.tunnel import Tunnel, TunnelLimits

__all__ = ["TcpSplice"]

_BUFFER: Final = bytearray(256 << 10)
_VIEW: Final = memoryview(_BUFFER)
_MIN_READ: Final = 16 << 10
"Bytes read at a time, at the least: smaller pieces cost more than they spare."
_BROKEN: Final = select.EPOLLERR | select.EPOLLHUP
_ONLY_BROKEN: Final = select.EPOLLET
"Wait for nothing but a break, and hear of it once: a target that ended its direction may still reset."
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class TcpSplice(Tunnel):
    """A CONNECT tunnel's byte path. Takes over the socket, which is connected and non-blocking."""

    kind = TunnelKind.TCP
    idle_limit = LimitName.TCP_IDLE

    def __init__(
        self, exchange: Exchange, sock: socket.socket, poller: Poller, limits: TunnelLimits, metrics: Metrics
    ) -> None:
        """Start splicing; attaches itself to the exchange, which delivers what came early."""
        super().__init__(exchange, poller, limits, metrics)
        self._socket = sock
        self._machine = TcpTunnel(limits.buffer, limits.buffer // 2)
        self._interest = 0
        self._is_reading = True
        self._failure: Failure | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._last_words: asyncio.TimerHandle | None = None
        "Runs while the last bytes of a broken target go out."
        self._backlog_seen = 0
        self._stalled_at = -1
        self._accounted = 0
        self._sent = 0
        self._received = 0
        self._watch()
        exchange.attach(self)

    # What the exchange calls.

    def data_received(self, data: bytes, fin: bool) -> None:
        """Bytes of the stream."""
        self._machine.receive_data(data, fin, is_crowded=self.exchange.is_crowded)
        self._write()
        self._act()
        self._account()

    def payloads_received(self, payloads: list[bytes]) -> None:
        """No prefix was opened; nothing comes here."""

    def datagram_received(self, datagram: bytes) -> None:
        """Classic CONNECT has no datagram semantics: the stream is aborted (RFC 9297 §2.1)."""
        self.exchange.abort(ErrorCode.H3_DATAGRAM_ERROR)
        self.close(Outcome.failed(FailureKind.HTTP_REQUEST_ERROR, Side.CLIENT))

    def drained(self) -> None:
        """The stream's backlog may be small enough to read on, or gone before the end."""
        if self.is_closed or self._is_reading:
            return
        backlog = self.exchange.backlog
        if self._last_words is not None and not backlog:
            self._machine.receive_error()
            self._act()
        elif self._last_words is None and backlog < self._backlog_limit() // 2:
            self._is_reading = True
            self._watch()
        else:
            self.exchange.await_drain()

    def aborted(self) -> None:
        """The stream is gone."""
        self._failure = Failure(FailureKind.CLIENT_ABORTED, Side.CLIENT)
        self._machine.receive_stream_abort()
        self._act()

    # What the poller calls.

    def _ready(self, events: int) -> None:
        if events & WRITABLE:
            self._write()
            self._account()
        if (events & READABLE or events & _BROKEN) and self._is_reading and self._machine.is_download_open:
            self._read()
        elif events & _BROKEN and not self.is_closed:
            self._broken()
        self._act()

    def _backlog_limit(self) -> int:
        return max(_MIN_READ, min(self.limits.backlog, self.exchange.fair_share))

    def _read(self) -> None:
        limit = self._backlog_limit()
        room = max(_MIN_READ, limit - self.exchange.backlog)
        try:
            size = self._socket.recv_into(_BUFFER, min(room, len(_BUFFER)))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error)
            return
        self.active_at = self.poller.now
        if not size:
            if self._machine.is_upload_lost:
                self._break()
            else:
                self._machine.receive_eof()
            return
        self._received += size
        self.exchange.write(_VIEW[:size])
        if self.exchange.backlog >= limit:
            self._is_reading = False
            self._watch()
            self.exchange.await_drain()

    def _write(self) -> None:
        machine = self._machine
        while (data := machine.data_to_send()) is not None:
            try:
                size = self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._failure = failure_from_os_error(error)
                machine.receive_write_error()
                return
            self._sent += size
            machine.data_sent(size)
            if size < len(data):
                break
        self.active_at = self.poller.now

    def _account(self) -> None:
        """Tell the connection what this tunnel buffers."""
        change = self._machine.buffered - self._accounted
        if change and not self.is_closed:
            self._accounted += change
            self.exchange.add_buffered(change)

    def _broken(self) -> None:
        """An error or hang-up while nothing is read."""
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        error = OSError(number or errno.ECONNRESET, "")
        if self._machine.is_download_open:
            # The stream is behind. What the target sent before it broke is read when the stream has drained.
            self._failure = failure_from_os_error(error)
            self._machine.receive_write_error()
        else:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._failure = failure_from_os_error(error)
        self._break()

    def _break(self) -> None:
        """The target is gone: its last bytes go out before the stream's reset tells so."""
        if self._machine.is_download_open and self.exchange.backlog:
            self._is_reading = False
            self._machine.receive_write_error()
            self._watch_last_words()
            self.exchange.await_drain()
        else:
            self._machine.receive_error()

    def _watch_last_words(self) -> None:
        """While the last bytes go out, the client must go on taking some."""
        self._backlog_seen = self.exchange.backlog
        self._last_words = self._loop.call_later(self.limits.write_stall, self._check_last_words)

    def _check_last_words(self) -> None:
        if self.exchange.backlog < self._backlog_seen:
            self._watch_last_words()
            return
        self._machine.receive_error()
        self._act()

    def _act(self) -> None:
        """Do what the machine says."""
        machine = self._machine
        while not self.is_closed and (action := machine.next_action()) is not None:
            match action:
                case TcpAction.HOLD_STREAM:
                    self.exchange.hold()
                    is_crowded = self.exchange.is_crowded
                    limit = LimitName.CONNECTION_BUFFER if is_crowded else LimitName.TUNNEL_BUFFER
                    self.metrics.count(Metric.LIMITS_HIT, 1, limit)
                    self._watch_stall()
                case TcpAction.RELEASE_STREAM:
                    self._stop_stall()
                    self.exchange.release()
                case TcpAction.END_SOCKET:
                    self._shut_down()
                case TcpAction.END_STREAM:
                    self.exchange.end_content()
                case TcpAction.RESET_SOCKET | TcpAction.RESET_STREAM:
                    failure = self._failure or Failure(FailureKind.CONNECTION_TERMINATED, Side.TARGET)
                    self.close(Outcome(failure))
        if self.is_closed:
            return
        if machine.is_over:
            self.close(Outcome.closed())
        else:
            self._watch()

    def _shut_down(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._failure = failure_from_os_error(error)
            self._machine.receive_write_error()

    def _watch(self) -> None:
        """Tell the poller what is wanted now; with nothing wanted a hang-up would be reported for ever."""
        interest = 0
        if self._is_reading and self._machine.is_download_open:
            interest |= READABLE
        if self._machine.data_to_send() is not None:
            interest |= WRITABLE
        elif not self._machine.is_download_open:
            interest = _ONLY_BROKEN
        if interest == self._interest:
            return
        if not interest:
            self.poller.remove(self._socket.fileno())
        elif not self._interest:
            self.poller.add(self._socket.fileno(), self._ready, interest)
        else:
            self.poller.modify(self._socket.fileno(), interest)
        self._interest = interest

    def _watch_stall(self) -> None:
        """While this tunnel stops its neighbours, its socket must go on taking bytes."""
        if self.exchange.holds_connection:
            self._stalled_at = self._sent
            self._stall_timer = self._loop.call_later(self.limits.write_stall, self._check_stall)

    def _check_stall(self) -> None:
        if self._sent > self._stalled_at:
            self._watch_stall()
            return
        self.metrics.count(Metric.LIMITS_HIT, 1, LimitName.WRITE_STALL)
        self.close(Outcome.failed(FailureKind.CONNECTION_WRITE_TIMEOUT, Side.TARGET))

    def _stop_stall(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    @property
    def relayed(self) -> int:
        """Bytes written to the socket and read from it."""
        return self._sent + self._received

    # What `Tunnel.close` calls.

    def release_socket(self, outcome: Outcome) -> None:
        """Close the socket, with a reset unless both directions ended in order."""
        self._stop_stall()
        if self._last_words is not None:
            self._last_words.cancel()
        self.exchange.add_buffered(-self._accounted)
        self._accounted = 0
        if self._interest:
            self.poller.remove(self._socket.fileno())
            self._interest = 0
        if outcome.failure is not None:
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            except OSError:
                pass
        self._socket.close()

    def add_counts(self) -> None:
        """Bytes each way."""
        self.metrics.count(Metric.BYTES_TO_TARGET, self._sent, self.kind)
        self.metrics.count(Metric.BYTES_TO_CLIENT, self._received, self.kind)
