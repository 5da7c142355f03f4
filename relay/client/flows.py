"""A tunnel as a library user sees it: a byte stream, or a flow of datagrams, with the verbs of anyio's streams."""

from __future__ import annotations

import asyncio
from collections import deque

import anyio

from masque.errors import ErrorCode
from masque.tunnel import UdpTunnel
from relay.exchange import Exchange
from relay.tunnels import DatagramSink

__all__ = ["TunnelClosed", "TunnelStream", "UdpFlow"]

_RECEIVE_HIGH = 1 << 20
"Bytes received and not yet taken from which the sender is held."
_SEND_HIGH = 512 << 10
"Bytes sent and not yet on the wire from which `send` waits."


class TunnelClosed(Exception):
    """The tunnel is over and not by a clean end: reset, refused datagrams, or a lost connection."""


class _Waiter:
    """One task at a time may wait for the next change."""

    def __init__(self) -> None:
        self._future: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        if self._future is not None:
            raise anyio.BusyResourceError("waiting on")
        self._future = asyncio.get_running_loop().create_future()
        try:
            await self._future
        finally:
            self._future = None

    def wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class TunnelStream:
    """A TCP tunnel: bytes both ways, each direction ended on its own."""

    def __init__(self, exchange: Exchange) -> None:
        """Take over an accepted CONNECT exchange."""
        self._exchange = exchange
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._taken = 0
        "Bytes of the first chunk that were handed out."
        self._is_held = False
        self._is_ended = False
        self._is_sent_ended = False
        self._is_broken = False
        self._readable = _Waiter()
        self._writable = _Waiter()
        exchange.attach(self)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """The next bytes, at most `max_bytes`; b"" once the target ended its direction.

        Raises:
            TunnelClosed: the tunnel was cut.
            anyio.BusyResourceError: another task is receiving already.
        """
        while not self._chunks:
            if self._is_ended:
                return b""
            if self._is_broken:
                raise TunnelClosed("the tunnel was cut")
            await self._readable.wait()
        chunk = self._chunks[0][self._taken : self._taken + max_bytes]
        self._taken += len(chunk)
        if self._taken == len(self._chunks[0]):
            self._chunks.popleft()
            self._taken = 0
        self._size -= len(chunk)
        if self._is_held and self._size < _RECEIVE_HIGH // 2:
            self._is_held = False
            self._exchange.release()
        return chunk

    async def send(self, data: bytes) -> None:
        """Send all of `data`; returns when little of it still waits.

        Raises:
            TunnelClosed: the tunnel was cut, or our direction was ended.
        """
        view = memoryview(data)
        for start in range(0, len(data), _SEND_HIGH):
            if self._is_broken or self._is_sent_ended:
                raise TunnelClosed("the tunnel takes no more bytes")
            self._exchange.write(view[start : start + _SEND_HIGH])
            while self._is_full():
                self._exchange.await_drain()
                await self._writable.wait()
                if self._is_broken:
                    raise TunnelClosed("the tunnel was cut")

    async def send_eof(self) -> None:
        """End our direction; the target sees the end of the stream. Receiving goes on."""
        if not self._is_sent_ended and not self._is_broken:
            self._is_sent_ended = True
            self._exchange.end_content()
            self._end_if_done()

    async def aclose(self) -> None:
        """Close the tunnel; what has not ended in order is aborted."""
        if not (self._is_ended and self._is_sent_ended):
            self._exchange.abort(ErrorCode.H3_REQUEST_CANCELLED)
        self._is_broken = True
        self._readable.wake()
        self._writable.wake()

    # What the exchange calls.

    def data_received(self, data: bytes, fin: bool) -> None:
        """Bytes of the target."""
        if data:
            self._chunks.append(data)
            self._size += len(data)
            if self._size > _RECEIVE_HIGH and not self._is_held:
                self._is_held = True
                self._exchange.hold()
        if fin:
            self._is_ended = True
            self._end_if_done()
        self._readable.wake()

    def payloads_received(self, payloads: list[bytes]) -> None:
        """A byte stream has no datagrams."""

    def datagram_received(self, datagram: bytes) -> None:
        """A byte stream has no datagrams."""

    def drained(self) -> None:
        """The backlog may have fallen."""
        self._writable.wake()

    def aborted(self) -> None:
        """The tunnel was cut."""
        self._is_broken = True
        self._exchange.abort(ErrorCode.H3_REQUEST_CANCELLED)
        self._readable.wake()
        self._writable.wake()

    def _is_full(self) -> bool:
        return not self._is_broken and self._exchange.backlog >= _SEND_HIGH

    def _end_if_done(self) -> None:
        if self._is_ended and self._is_sent_ended:
            self._exchange.end()


class UdpFlow(DatagramSink):
    """A UDP tunnel: payloads both ways, unreliable and unordered as UDP is."""

    def __init__(self, exchange: Exchange, queue: int = 4096) -> None:
        """Take over an accepted CONNECT-UDP exchange; keep up to `queue` payloads, dropping the oldest."""
        self._exchange = exchange
        self._machine = UdpTunnel(exchange.stream_id)
        self._queue: deque[bytes] = deque(maxlen=queue)
        self._is_over = False
        self._readable = _Waiter()
        exchange.open_datagrams(self._machine.prefix)
        exchange.attach(self)

    async def receive(self) -> bytes:
        """The next payload. Raises TunnelClosed when the tunnel is over."""
        while not self._queue:
            if self._is_over:
                raise TunnelClosed("the tunnel is over")
            await self._readable.wait()
        return self._queue.popleft()

    def send(self, payload: bytes) -> bool:
        """Send one payload; False when it is too big for the path and was dropped.

        Raises:
            TunnelClosed: the tunnel is over.
        """
        if self._is_over:
            raise TunnelClosed("the tunnel is over")
        if self._exchange.max_datagram_payload:
            return self._exchange.send_datagrams(self._machine.prefix, payload, max(1, len(payload))) == 1
        self._exchange.write(self._machine.encode_capsule(payload))
        return True

    async def aclose(self) -> None:
        """End the tunnel in order."""
        if not self._is_over:
            self._exchange.end_content()
            self._finish()

    # What the exchange calls.

    def payloads_received(self, payloads: list[bytes]) -> None:
        """Payloads of the target."""
        self._queue.extend(payloads)
        self._readable.wake()

    def refused(self) -> None:
        """The relay broke a rule."""
        self.aborted()

    def fin_received(self) -> None:
        """The relay ended the tunnel."""
        if not self._is_over:
            self._exchange.end_content()
        self._finish()

    def drained(self) -> None:
        """Datagrams do not wait."""

    def aborted(self) -> None:
        """The tunnel was cut."""
        if not self._is_over:
            self._exchange.abort(ErrorCode.H3_REQUEST_CANCELLED)
            self._finish()

    def _finish(self) -> None:
        self._is_over = True
        self._exchange.end()
        self._readable.wake()
