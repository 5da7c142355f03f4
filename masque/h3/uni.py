"""The peer's unidirectional streams: their types, and the ones that must live (RFC 9114 §6.2, RFC 9204 §4.2).

Each begins with its type. The control stream and QPACK's two may exist once and may not end. A type without
meaning is answered with STOP_SENDING, and what still arrives is dropped. Push streams are errors in both roles.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from masque.errors import ErrorCode, LimitExceeded, Malformed, Reach
from masque.h3.actions import Action, StreamStop
from masque.h3.control import ControlStream
from masque.h3.ids import SeenStreams
from masque.h3.limits import H3Limits
from masque.h3.qpack import DecoderStream, check_encoder_stream
from masque.varint import encode_varint, parse_varint

__all__ = ["StreamType", "UniStreams", "encode_stream_type"]


class StreamType(IntEnum):
    """Types of unidirectional streams (RFC 9114 §6.2, RFC 9204 §4.2)."""

    CONTROL = 0x00
    PUSH = 0x01
    QPACK_ENCODER = 0x02
    QPACK_DECODER = 0x03


_CRITICAL = frozenset({StreamType.CONTROL, StreamType.QPACK_ENCODER, StreamType.QPACK_DECODER})
"Types that exist once and live as long as the connection."
_IGNORED = -1
"Stands for every type that has no meaning here."


def encode_stream_type(stream_type: StreamType) -> bytes:
    """Encode what a unidirectional stream begins with.

    Args:
        stream_type: the type.

    Returns:
        The first bytes of the stream.
    """
    return encode_varint(stream_type)


class UniStreams:
    """Reads all unidirectional streams of the peer."""

    __slots__ = ("_act", "_decoder_stream", "_headers", "_is_client", "_limits", "_seen", "_types", "control")

    def __init__(
        self, *, is_client: bool, limits: H3Limits, control: ControlStream, act: Callable[[Action], None]
    ) -> None:
        """Start without streams.

        Args:
            is_client: our role.
            limits: gives how many streams may be open.
            control: reads the control stream.
            act: takes the actions.
        """
        self._is_client = is_client
        self._limits = limits
        self._act = act
        self._decoder_stream = DecoderStream()
        self._seen = SeenStreams()
        self._headers: dict[int, bytes] = {}
        "What has arrived of a type that is not whole, by stream."
        self._types: dict[int, int] = {}
        "The type of each open stream that has one, by stream."
        self.control = control
        "The peer's control stream."

    def receive(self, stream_id: int, data: bytes, fin: bool) -> None:
        """Read a stream's next bytes.

        Args:
            stream_id: a unidirectional stream of the peer.
            data: the bytes.
            fin: whether the stream ends after them.

        Raises:
            Malformed: the stream may not exist, may not end, or carries what it may not (CONNECTION).
            LimitExceeded: too many streams, or a bound of the control stream (CONNECTION).
        """
        stream_type = self._types.get(stream_id)
        if stream_type is None:
            if not self._open(stream_id):
                return
            held = self._headers.pop(stream_id)
            header = held + data[:8]
            parsed = parse_varint(header)
            if parsed is None:
                if not fin:
                    self._headers[stream_id] = header
                return
            data = data[parsed[1] - len(held) :]
            stream_type = self._start(stream_id, parsed[0])
        if stream_type == StreamType.CONTROL:
            self.control.receive(data)
        elif stream_type == StreamType.QPACK_ENCODER:
            check_encoder_stream(data)
        elif stream_type == StreamType.QPACK_DECODER:
            self._decoder_stream.receive(data)
        if fin:
            self._end(stream_id)

    def reset(self, stream_id: int) -> None:
        """Note that the peer aborted a stream; harmless before its type is known (RFC 9114 §6.2).

        Args:
            stream_id: a unidirectional stream of the peer.

        Raises:
            Malformed: the stream may not end (CONNECTION, H3_CLOSED_CRITICAL_STREAM).
        """
        self._seen.add(stream_id)
        self._end(stream_id)

    def _open(self, stream_id: int) -> bool:
        """Note a stream without a type; tells whether it is one that still lives."""
        if stream_id in self._headers:
            return True
        if not self._seen.add(stream_id):
            return False
        if len(self._headers) + len(self._types) >= self._limits.uni_streams:
            raise LimitExceeded("too many unidirectional streams", reach=Reach.CONNECTION)
        self._headers[stream_id] = b""
        return True

    def _start(self, stream_id: int, value: int) -> int:
        """Give a stream its type."""
        if value == StreamType.PUSH:
            code = ErrorCode.H3_ID_ERROR if self._is_client else ErrorCode.H3_STREAM_CREATION_ERROR
            raise Malformed("a push stream", reach=Reach.CONNECTION, code=code)
        if value not in _CRITICAL:
            self._act(StreamStop(stream_id, ErrorCode.H3_STREAM_CREATION_ERROR))
            value = _IGNORED
        elif value in self._types.values():
            raise Malformed(
                "a second stream of a type that exists once",
                reach=Reach.CONNECTION,
                code=ErrorCode.H3_STREAM_CREATION_ERROR,
            )
        self._types[stream_id] = value
        return value

    def _end(self, stream_id: int) -> None:
        """Let a stream go that ended or was reset."""
        self._headers.pop(stream_id, None)
        if self._types.pop(stream_id, _IGNORED) in _CRITICAL:
            raise Malformed(
                "a stream ended that must live", reach=Reach.CONNECTION, code=ErrorCode.H3_CLOSED_CRITICAL_STREAM
            )
