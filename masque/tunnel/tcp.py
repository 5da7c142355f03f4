"""The CONNECT tunnel's machine: a QUIC stream and a byte-stream socket, spliced (RFC 9114 §4.4, RFC 9110 §9.3.6).

The same on both sides: a relay splices the stream to the target's socket, a client to the application's. Two
directions, each open until its end:

    direction   ends when                       then
    upload      the stream's FIN arrives        END_SOCKET once all bytes are written (TCP FIN)
    download    the socket's FIN arrives        END_STREAM (QUIC FIN)
    both        a RESET_STREAM or STOP_SENDING  RESET_SOCKET (TCP RST), RESET_STREAM for what is still open
    upload      the socket takes no more        nothing: what the socket still brings is delivered first
    both        a socket error                  RESET_STREAM (H3_CONNECT_ERROR), RESET_SOCKET

When both directions ended in order, the tunnel is over. After a reset nothing else happens. Bytes for the socket
wait here: above `high_water` HOLD_STREAM asks for no more credit for the sender, at `low_water` RELEASE_STREAM
gives it back. Bytes for the stream never wait here: the caller reads the socket only while the stream takes them.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

__all__ = ["TcpAction", "TcpTunnel"]


class TcpAction(Enum):
    """What the caller must do next."""

    HOLD_STREAM = "hold_stream"
    "Give the stream's sender no more credit."
    RELEASE_STREAM = "release_stream"
    "Give credit again."
    END_SOCKET = "end_socket"
    "Half-close the socket: nothing more will be written."
    END_STREAM = "end_stream"
    "Send the stream's FIN."
    RESET_SOCKET = "reset_socket"
    "Close the socket so that its peer sees a reset."
    RESET_STREAM = "reset_stream"
    "Abort the stream in both directions."


class TcpTunnel:
    """One spliced stream. After every call take `next_action` until it returns None."""

    def __init__(self, high_water: int, low_water: int) -> None:
        """Make the machine of an open tunnel.

        Args:
            high_water: bytes waiting for the socket from which the stream is held.
            low_water: bytes at which it is released again; less than `high_water`.
        """
        self._high_water = high_water
        self._low_water = low_water
        self._waiting: deque[memoryview] = deque()
        self._actions: deque[TcpAction] = deque()
        self._is_held = False
        self._is_fin_received = False
        self._is_upload_ended = False
        self._is_download_ended = False
        self.buffered = 0
        "Bytes waiting for the socket."
        self.is_upload_lost = False
        "True once the socket took no more: when its own direction ends, report `receive_error`."
        self.is_aborted = False
        "True after a reset or an error of either side."

    @property
    def is_over(self) -> bool:
        """True when nothing more can happen."""
        return self.is_aborted or (self._is_upload_ended and self._is_download_ended)

    @property
    def is_download_open(self) -> bool:
        """True while the socket is to be read."""
        return not self.is_aborted and not self._is_download_ended

    def receive_data(self, data: bytes, fin: bool = False, *, is_crowded: bool = False) -> None:
        """The stream brought bytes, or its FIN, or both. Then write `data_to_send` to the socket.

        Args:
            data: the next bytes of the stream.
            fin: whether they are the last.
            is_crowded: the connection's tunnels together hold too much: hold this stream before its own mark.
        """
        if self.is_aborted or self._is_fin_received:
            return
        if data:
            self._waiting.append(memoryview(data))
            self.buffered += len(data)
            if (is_crowded or self.buffered > self._high_water) and not self._is_held:
                self._is_held = True
                self._actions.append(TcpAction.HOLD_STREAM)
        if fin:
            self._is_fin_received = True
            self._end_upload_if_written()

    def receive_stream_abort(self) -> None:
        """The stream was reset, or its peer wants no more, or its connection is gone."""
        self._abort(TcpAction.RESET_SOCKET, TcpAction.RESET_STREAM)

    def receive_eof(self) -> None:
        """The socket's peer ended its direction."""
        if self.is_download_open:
            self._is_download_ended = True
            self._actions.append(TcpAction.END_STREAM)

    def receive_error(self) -> None:
        """The socket failed or was reset."""
        self._abort(TcpAction.RESET_STREAM, TcpAction.RESET_SOCKET)

    def receive_write_error(self) -> None:
        """The socket takes no more bytes: drop the upload. Its peer may have answered before it closed, so read on.

        With the download ended already, this is `receive_error`.
        """
        if self._is_download_ended:
            self.receive_error()
        elif not self.is_aborted:
            self.is_upload_lost = True
            self._is_upload_ended = self._is_fin_received = True
            self._waiting.clear()
            self.buffered = 0
            self._release()

    def data_to_send(self) -> memoryview | None:
        """Bytes to write to the socket next, or None when none wait. Report what was written with `data_sent`."""
        return self._waiting[0] if self._waiting else None

    def data_sent(self, size: int) -> None:
        """The socket took `size` bytes of what `data_to_send` returned."""
        first = self._waiting[0]
        if size == len(first):
            self._waiting.popleft()
        else:
            self._waiting[0] = first[size:]
        self.buffered -= size
        if self.buffered <= self._low_water:
            self._release()
        self._end_upload_if_written()

    def next_action(self) -> TcpAction | None:
        """The next thing to do, or None."""
        return self._actions.popleft() if self._actions else None

    def _release(self) -> None:
        if self._is_held:
            self._is_held = False
            self._actions.append(TcpAction.RELEASE_STREAM)

    def _end_upload_if_written(self) -> None:
        if self._is_fin_received and not self._waiting and not self._is_upload_ended:
            self._is_upload_ended = True
            self._actions.append(TcpAction.END_SOCKET)

    def _abort(self, *actions: TcpAction) -> None:
        if self.is_over:
            return
        self.is_aborted = True
        self._waiting.clear()
        self.buffered = 0
        owes_release = self._is_held or TcpAction.RELEASE_STREAM in self._actions
        self._is_held = False
        self._actions.clear()
        if owes_release:
            self._actions.append(TcpAction.RELEASE_STREAM)
        self._actions.extend(actions)
