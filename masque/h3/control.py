"""The peer's control stream: SETTINGS first, then the few frames that concern the connection (RFC 9114 §6.2.1).

State: before SETTINGS anything else is an error; after it only GOAWAY moves anything. Push is not used in either
direction: as a client we never raise MAX_PUSH_ID, as a server we never promise, so every push id is out of range.
All errors have the reach CONNECTION.
"""

from __future__ import annotations

from collections.abc import Callable

from masque.errors import ErrorCode, LimitExceeded, Malformed, Reach
from masque.h3.events import GoawayReceived, H3Event, SettingsReceived
from masque.h3.frames import KNOWN_FRAMES, FrameReader, FrameType, FrameUse, refuse_frame
from masque.h3.limits import H3Limits
from masque.h3.settings import Settings, parse_settings
from masque.varint import parse_varint

__all__ = ["ControlStream"]

_ID_FRAMES = frozenset({FrameType.GOAWAY, FrameType.CANCEL_PUSH, FrameType.MAX_PUSH_ID})
"Frames whose payload is one integer."
_ID_MAX = 8
"Bytes of the longest integer."


class ControlStream:
    """Reads the peer's control stream."""

    __slots__ = ("_emit", "_is_client", "_limits", "_max_push_id", "_overhead", "_reader", "goaway_id", "settings")

    def __init__(self, *, is_client: bool, limits: H3Limits, emit: Callable[[H3Event], None]) -> None:
        """Start before SETTINGS.

        Args:
            is_client: our role.
            limits: bounds on payloads and on frames that bring nothing.
            emit: takes the events.
        """
        self._is_client = is_client
        self._limits = limits
        self._emit = emit
        self._reader = FrameReader()
        self._overhead = 0
        self._max_push_id = 0
        self.settings: Settings | None = None
        "The peer's settings, or None until they arrive."
        self.goaway_id: int | None = None
        "The last id that the peer's GOAWAY gave, or None."

    def receive(self, data: bytes) -> None:
        """Read the stream's next bytes.

        Args:
            data: the bytes.

        Raises:
            Malformed: a frame is not allowed, or its payload is wrong (CONNECTION).
            LimitExceeded: SETTINGS are too large, or too many frames bring nothing (CONNECTION).
        """
        for frame_type, payload in self._reader.receive(data, self._admit):
            if frame_type == FrameType.SETTINGS:
                self.settings = parse_settings(bytes(payload), self._limits)
                self._emit(SettingsReceived(self.settings))
            else:
                self._receive_id(frame_type, payload)

    def note_progress(self) -> None:
        """Forgive the frames that brought nothing: a request has been opened since."""
        self._overhead = 0

    def _admit(self, frame_type: int, length: int) -> FrameUse:
        """Decide what becomes of a frame (RFC 9114 §7.2)."""
        if frame_type == FrameType.SETTINGS:
            if self.settings is not None:
                raise refuse_frame()
            if length > self._limits.control_frame:
                raise LimitExceeded("SETTINGS above the limit", reach=Reach.CONNECTION)
            return FrameUse.COLLECT
        if self.settings is None:
            raise _refused("a control stream without SETTINGS", ErrorCode.H3_MISSING_SETTINGS)
        self._overhead += 1
        if self._overhead > self._limits.ignored_frames:
            raise LimitExceeded("too many frames on the control stream", reach=Reach.CONNECTION)
        if frame_type in _ID_FRAMES:
            if frame_type == FrameType.MAX_PUSH_ID and self._is_client:
                raise refuse_frame()
            if not 1 <= length <= _ID_MAX:
                raise _refused("a frame that is not one integer", ErrorCode.H3_FRAME_ERROR)
            return FrameUse.COLLECT
        if frame_type in KNOWN_FRAMES:
            raise refuse_frame()
        return FrameUse.SKIP

    def _receive_id(self, frame_type: int, payload: bytes | memoryview) -> None:
        """Read a frame that carries one integer (RFC 9114 §7.2.3, §7.2.6, §7.2.7)."""
        parsed = parse_varint(payload)
        if parsed is None or parsed[1] != len(payload):
            raise _refused("a frame that is not one integer", ErrorCode.H3_FRAME_ERROR)
        value = parsed[0]
        if frame_type == FrameType.CANCEL_PUSH:
            raise _refused("a push that was never promised", ErrorCode.H3_ID_ERROR)
        if frame_type == FrameType.MAX_PUSH_ID:
            if value < self._max_push_id:
                raise _refused("a MAX_PUSH_ID that shrinks", ErrorCode.H3_ID_ERROR)
            self._max_push_id = value
            return
        is_request_id = value & 3 == 0
        if (self._is_client and not is_request_id) or (self.goaway_id is not None and value > self.goaway_id):
            raise _refused("a GOAWAY that grows or names no request", ErrorCode.H3_ID_ERROR)
        self.goaway_id = value
        self._emit(GoawayReceived(value))


def _refused(detail: str, code: ErrorCode) -> Malformed:
    """Make an error of the connection."""
    return Malformed(detail, reach=Reach.CONNECTION, code=code)
