"""The request streams of a connection: which are open, which are gone, which are refused (RFC 9114 §4.1, §5.2).

A stream is kept from its first byte until both halves are closed. What comes later for it is dropped, on input
and on output, since either side may have ended it in the same turn.
"""

from __future__ import annotations

from collections.abc import Callable

from masque.errors import ErrorCode, LocalMisuse
from masque.h3.actions import Action, StreamReset, StreamStop
from masque.h3.events import H3Event, ResetReceived, StopSendingReceived
from masque.h3.ids import SeenStreams
from masque.h3.limits import H3Limits
from masque.h3.qpack import FieldCodec
from masque.h3.streams import Half, RequestStream

__all__ = ["RequestStreams"]


class RequestStreams:
    """All request streams of one connection, in either role."""

    __slots__ = ("_act", "_codec", "_emit", "_is_client", "_limits", "_open", "_progress", "_seen", "reject_from")

    def __init__(
        self,
        *,
        is_client: bool,
        limits: H3Limits,
        codec: FieldCodec,
        emit: Callable[[H3Event], None],
        act: Callable[[Action], None],
        progress: Callable[[], None],
    ) -> None:
        """Start without streams.

        Args:
            is_client: our role.
            limits: bounds on each stream.
            codec: decodes field sections.
            emit: takes the events.
            act: takes the actions.
            progress: called when a request begins.
        """
        self._is_client = is_client
        self._limits = limits
        self._codec = codec
        self._emit = emit
        self._act = act
        self._progress = progress
        self._open: dict[int, RequestStream] = {}
        self._seen = SeenStreams()
        self.reject_from: int | None = None
        "Requests that begin from now on with this id or a higher one are refused; None while none are."

    def __len__(self) -> int:
        """How many streams are kept."""
        return len(self._open)

    @property
    def next_id(self) -> int:
        """The lowest id above all streams seen."""
        return self._seen.end

    def get(self, stream_id: int) -> RequestStream | None:
        """Look a kept stream up.

        Args:
            stream_id: any stream.

        Returns:
            The stream, or None when it is not kept.
        """
        return self._open.get(stream_id)

    def get_for_input(self, stream_id: int) -> RequestStream | None:
        """Find the stream that input is for, or begin it.

        Args:
            stream_id: a request stream's id.

        Returns:
            The stream, or None when it is gone, was refused just now, or was never made by us as the client.
        """
        stream = self._open.get(stream_id)
        if stream is not None or self._is_client or not self._seen.add(stream_id):
            return stream
        if self.reject_from is not None and stream_id >= self.reject_from:
            self._act(StreamReset(stream_id, ErrorCode.H3_REQUEST_REJECTED))
            self._act(StreamStop(stream_id, ErrorCode.H3_REQUEST_REJECTED))
            return None
        return self._keep(stream_id)

    def get_for_output(self, stream_id: int) -> RequestStream | None:
        """Find the stream that our caller means.

        Args:
            stream_id: a request stream's id.

        Returns:
            The stream, or None when it is gone.

        Raises:
            LocalMisuse: there never was such a stream.
        """
        stream = self._open.get(stream_id)
        if stream is None and (stream_id & 3 or stream_id not in self._seen):
            raise LocalMisuse("a stream that was never opened")
        return stream

    def is_usable(self, stream_id: int) -> bool:
        """Tell whether a client may open this stream.

        Args:
            stream_id: any number.

        Returns:
            Whether it is a client's bidirectional stream that was never seen.
        """
        return stream_id >= 0 and not stream_id & 3 and stream_id not in self._seen

    def open(self, stream_id: int) -> RequestStream:
        """Begin a request of ours.

        Args:
            stream_id: a stream that `is_usable`.

        Returns:
            The stream.
        """
        self._seen.add(stream_id)
        return self._keep(stream_id)

    def receive_reset(self, stream_id: int, code: int) -> None:
        """Close the peer's half after its reset. A request that was never told is given up (RFC 9114 §4.1.1).

        Args:
            stream_id: a request stream's id.
            code: the peer's application error code.
        """
        stream = self.get_for_input(stream_id)
        if stream is None or stream.theirs is Half.CLOSED:
            return
        stream.theirs = Half.CLOSED
        if stream.is_announced:
            self._emit(ResetReceived(stream_id, code))
            self.forget_if_done(stream)
        else:
            self.abort(stream, ErrorCode.H3_REQUEST_CANCELLED)

    def receive_stop_sending(self, stream_id: int, code: int) -> None:
        """Reset our half on the peer's wish (RFC 9000 §3.5). A request that was never told is given up.

        Args:
            stream_id: a request stream's id.
            code: the peer's application error code.
        """
        stream = self.get_for_input(stream_id)
        if stream is None or stream.ours is Half.CLOSED:
            return
        if stream.is_announced:
            self._act(StreamReset(stream_id, code))
            stream.ours = Half.CLOSED
            self._emit(StopSendingReceived(stream_id, code))
            self.forget_if_done(stream)
        else:
            self.abort(stream, ErrorCode.H3_REQUEST_CANCELLED)

    def stop(self, stream: RequestStream, code: int) -> None:
        """Close the peer's half because we want no more of it.

        Args:
            stream: a kept stream.
            code: the application error code.
        """
        if stream.theirs is not Half.CLOSED:
            self._act(StreamStop(stream.stream_id, code))
            stream.theirs = Half.CLOSED
            self.forget_if_done(stream)

    def abort(self, stream: RequestStream, code: int) -> None:
        """Abort what is open of a stream and let it go.

        Args:
            stream: a kept stream.
            code: the application error code.
        """
        if stream.ours is not Half.CLOSED:
            self._act(StreamReset(stream.stream_id, code))
        if stream.theirs is not Half.CLOSED:
            self._act(StreamStop(stream.stream_id, code))
        stream.ours = stream.theirs = Half.CLOSED
        self.forget_if_done(stream)

    def end_ours(self, stream: RequestStream) -> None:
        """Close our half after its end was sent.

        Args:
            stream: a kept stream.
        """
        stream.ours = Half.CLOSED
        self.forget_if_done(stream)

    def forget_if_done(self, stream: RequestStream) -> None:
        """Let a stream go if both halves are closed.

        Args:
            stream: a stream.
        """
        if stream.is_done:
            self._open.pop(stream.stream_id, None)

    def clear(self) -> None:
        """Let all streams go; for a dead connection."""
        self._open.clear()

    def _keep(self, stream_id: int) -> RequestStream:
        """Make a stream and keep it."""
        stream = RequestStream(
            stream_id, is_client=self._is_client, limits=self._limits, codec=self._codec, emit=self._emit
        )
        self._open[stream_id] = stream
        self._progress()
        return stream
