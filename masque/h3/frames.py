"""HTTP/3 frames: the header of each, and a reader that never holds more than it must (RFC 9114 §7).

The reader knows no rules of streams. Its owner decides, when a frame's header is complete, what becomes of the
payload: collected whole, passed on in pieces, or skipped. DATA is never collected, whatever its length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum, IntEnum

from masque.errors import ErrorCode, Malformed, Reach
from masque.varint import encode_varint, parse_varint

__all__ = [
    "KNOWN_FRAMES",
    "FrameReader",
    "FrameType",
    "FrameUse",
    "encode_data_header",
    "encode_frame",
    "refuse_frame",
]

_HEADER_MAX = 16
"Bytes of the longest frame header: two varints of eight bytes."


class FrameType(IntEnum):
    """Frame types that have a meaning or are reserved (RFC 9114 §7.2, §11.2.1). All others are ignored."""

    DATA = 0x00
    HEADERS = 0x01
    HTTP2_PRIORITY = 0x02
    CANCEL_PUSH = 0x03
    SETTINGS = 0x04
    PUSH_PROMISE = 0x05
    HTTP2_PING = 0x06
    GOAWAY = 0x07
    HTTP2_WINDOW_UPDATE = 0x08
    HTTP2_CONTINUATION = 0x09
    MAX_PUSH_ID = 0x0D


KNOWN_FRAMES = frozenset(FrameType)
"Types that may not be ignored."


class FrameUse(Enum):
    """What becomes of a frame's payload."""

    COLLECT = "collect"
    "Keep it until it is whole, then yield it once."
    STREAM = "stream"
    "Yield each piece as it arrives; an empty payload yields nothing."
    SKIP = "skip"
    "Drop it as it arrives."


def encode_frame(frame_type: int, payload: bytes) -> bytes:
    """Encode a whole frame (RFC 9114 §7.1).

    Args:
        frame_type: the type.
        payload: the payload, shorter than 2^62 bytes.

    Returns:
        Type, length and payload.

    Raises:
        LocalMisuse: the type is out of range.
    """
    return encode_varint(frame_type) + encode_varint(len(payload)) + payload


def encode_data_header(length: int) -> bytes:
    """Encode the header of a DATA frame whose payload the caller sends itself (RFC 9114 §7.2.1).

    Args:
        length: bytes of payload that follow.

    Returns:
        Type and length.

    Raises:
        LocalMisuse: the length is out of range.
    """
    return b"\x00" + encode_varint(length)


def refuse_frame() -> Malformed:
    """Make the error for a frame that is not allowed here (RFC 9114 §4.1, §7.2)."""
    return Malformed(
        "a frame that is not allowed at this point", reach=Reach.CONNECTION, code=ErrorCode.H3_FRAME_UNEXPECTED
    )


class FrameReader:
    """Splits one stream's bytes into frames."""

    __slots__ = ("_buffer", "_header", "_type", "_use", "payload_left")

    def __init__(self) -> None:
        """Start before the first frame."""
        self._header = b""
        self._buffer = bytearray()
        self._type = 0
        self._use: FrameUse | None = None
        self.payload_left = 0
        "Bytes of the present frame's payload that are still to come."

    @property
    def is_between_frames(self) -> bool:
        """Whether the stream may end here without cutting a frame (RFC 9114 §7.1)."""
        return self._use is None and not self._header

    @property
    def is_streaming(self) -> bool:
        """Whether the next bytes belong to a payload that is passed on in pieces."""
        return self._use is FrameUse.STREAM

    def pass_on(self, count: int) -> None:
        """Count payload bytes that the owner took past the reader; only while `is_streaming`.

        Args:
            count: at most `payload_left`.
        """
        self.payload_left -= count
        if not self.payload_left:
            self._use = None

    def receive(self, data: bytes, admit: Callable[[int, int], FrameUse]) -> Iterator[tuple[int, bytes | memoryview]]:
        """Read the stream's next bytes; the iterator must be used up unless the stream is given up.

        Args:
            data: the bytes.
            admit: called once for each frame with type and length, before its payload is looked at.

        Returns:
            An iterator over (type, payload): whole payloads of collected frames, views of pieces of others.

        Raises:
            MasqueError: only what `admit` raises.
        """
        view = memoryview(data)
        offset, end = 0, len(data)
        while offset < end:
            if self._use is None:
                offset = self._read_header(view, offset, admit)
                if self._use is None:
                    return
            piece = view[offset : offset + self.payload_left]
            offset += len(piece)
            self.payload_left -= len(piece)
            frame_type, use = self._type, self._use
            if not self.payload_left:
                self._use = None
            if use is FrameUse.STREAM:
                if piece:
                    yield frame_type, piece
            elif use is FrameUse.COLLECT:
                self._buffer += piece
                if not self.payload_left:
                    payload = bytes(self._buffer)
                    self._buffer.clear()
                    yield frame_type, payload

    def _read_header(self, view: memoryview, offset: int, admit: Callable[[int, int], FrameUse]) -> int:
        """Read type and length, or keep what there is of them. Returns the offset after what was used."""
        held = len(self._header)
        window = (
            self._header + view[offset : offset + _HEADER_MAX - held] if held else view[offset : offset + _HEADER_MAX]
        )
        first = parse_varint(window)
        second = parse_varint(window, first[1]) if first else None
        if first is None or second is None:
            self._header = bytes(window)
            return len(view)
        self._header = b""
        self._type, self.payload_left = first[0], second[0]
        self._use = admit(self._type, self.payload_left)
        return offset + second[1] - held
