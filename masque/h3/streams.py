"""One request stream: the peer's half as a machine, our half as a phase (RFC 9114 §4.1).

The peer's half::

    HEAD --HEADERS--> BODY --HEADERS--> TRAILERS
      |                 |                  |
      +-----------------+---- end ---------+--> CLOSED

HEAD stays HEAD for a response's interim heads. DATA belongs to BODY alone. A stream that ends in HEAD is
incomplete. On a tunnel of classic CONNECT, BODY allows no HEADERS (RFC 9114 §4.4). CLOSED is left never, and is
also reached when the peer resets or when we want no more. Our half goes HEAD, BODY, CLOSED in the same way; the
connection moves it when it sends.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from masque.errors import ErrorCode, LimitExceeded, Malformed, MasqueError, Reach
from masque.h3.events import DataReceived, H3Event, RequestReceived, ResponseReceived, TrailersReceived
from masque.h3.frames import KNOWN_FRAMES, FrameReader, FrameType, FrameUse, refuse_frame
from masque.h3.headers import (
    check_section_size,
    parse_content_length,
    parse_request,
    parse_response,
    parse_trailers,
)
from masque.h3.limits import H3Limits
from masque.h3.qpack import FieldCodec
from masque.head import Fields, RequestHead, ResponseHead

__all__ = ["Half", "RequestStream"]

_NO_CONTENT_STATUSES = frozenset({204, 304})
"Responses whose content-length, if any, does not announce content (RFC 9110 §8.6)."


class Half(Enum):
    """Where one direction of a request stream stands."""

    HEAD = "head"
    "No final head yet."
    BODY = "body"
    "Content may flow."
    TRAILERS = "trailers"
    "Trailers have passed; only the end may follow."
    CLOSED = "closed"
    "Ended, aborted, or no longer wanted."


class RequestStream:
    """A request stream in either role."""

    __slots__ = (
        "_codec",
        "_content_left",
        "_emit",
        "_head",
        "_is_client",
        "_limits",
        "_method",
        "_overhead",
        "_pieces",
        "_protocol",
        "_reader",
        "_trailers",
        "is_tunnel",
        "ours",
        "stream_id",
        "theirs",
    )

    def __init__(
        self,
        stream_id: int,
        *,
        is_client: bool,
        limits: H3Limits,
        codec: FieldCodec,
        emit: Callable[[H3Event], None],
    ) -> None:
        """Start with both halves before their head.

        Args:
            stream_id: the QUIC stream.
            is_client: our role.
            limits: bounds on sections and on frames that bring nothing.
            codec: decodes field sections.
            emit: takes the events.
        """
        self.stream_id = stream_id
        self.ours = Half.HEAD
        "Our half."
        self.theirs = Half.HEAD
        "The peer's half."
        self.is_tunnel = False
        "Whether this is an accepted classic CONNECT."
        self._is_client = is_client
        self._limits = limits
        self._codec = codec
        self._emit = emit
        self._reader = FrameReader()
        self._overhead = 0
        self._content_left: int | None = None
        self._method = b""
        self._protocol: bytes | None = None
        self._head: RequestHead | ResponseHead | None = None
        self._pieces: list[bytes | memoryview] = []
        self._trailers: Fields | None = None

    @property
    def is_done(self) -> bool:
        """Whether both halves are closed, so that the stream can be forgotten."""
        return self.ours is Half.CLOSED and self.theirs is Half.CLOSED

    @property
    def is_announced(self) -> bool:
        """Whether the caller knows of the stream: it made the request, or was told of it."""
        return self._is_client or self._method != b""

    def note_request(self, head: RequestHead) -> None:
        """Remember what later rules depend on.

        Args:
            head: the request that this stream carries.
        """
        self._method, self._protocol = head.method, head.protocol

    def note_final_status(self, status: int) -> None:
        """Note the final response's status: a 2xx makes a classic CONNECT a tunnel (RFC 9114 §4.4).

        Args:
            status: not 1xx.
        """
        self.is_tunnel = self._method == b"CONNECT" and self._protocol is None and 200 <= status < 300

    def receive(self, data: bytes, fin: bool) -> None:
        """Read the stream's next bytes. What is good is told as events even when an error follows it.

        Args:
            data: the bytes.
            fin: whether the peer's half ends after them.

        Raises:
            Malformed: a rule of messages is broken (STREAM) or one of frames or compression (CONNECTION).
            LimitExceeded: a section is too large, or too many frames bring nothing (STREAM).
        """
        if self.theirs is Half.CLOSED:
            return
        reader = self._reader
        if reader.is_streaming and not fin and 0 < len(data) <= reader.payload_left:
            reader.pass_on(len(data))
            self._overhead = 0
            self._emit(DataReceived(self.stream_id, data, False))
            return
        try:
            for frame_type, payload in reader.receive(data, self._admit):
                if frame_type == FrameType.DATA:
                    self._overhead = 0
                    self._pieces.append(payload)
                else:
                    self._receive_section(bytes(payload))
            if fin:
                self._check_end()
        except MasqueError:
            self._flush(fin=False)
            if fin:
                self.theirs = Half.CLOSED
            raise
        self._flush(fin=fin)

    def _admit(self, frame_type: int, length: int) -> FrameUse:
        """Decide what becomes of a frame (RFC 9114 §4.1, §4.4, §7.2)."""
        if frame_type == FrameType.DATA:
            if self.theirs is not Half.BODY:
                raise refuse_frame()
            if not length:
                self._count_overhead()
            if self._content_left is not None:
                self._content_left -= length
                if self._content_left < 0:
                    raise Malformed("more content than content-length says")
            return FrameUse.STREAM
        if frame_type == FrameType.HEADERS:
            if self.theirs is Half.TRAILERS or self.is_tunnel:
                raise refuse_frame()
            if length > self._limits.field_section:
                raise LimitExceeded("a HEADERS frame above the limit")
            return FrameUse.COLLECT
        if frame_type == FrameType.PUSH_PROMISE and self._is_client:
            raise Malformed("a push that was not allowed", reach=Reach.CONNECTION, code=ErrorCode.H3_ID_ERROR)
        if frame_type in KNOWN_FRAMES:
            raise refuse_frame()
        self._count_overhead()
        return FrameUse.SKIP

    def _count_overhead(self) -> None:
        """Count a frame that brings nothing."""
        self._overhead += 1
        if self._overhead > self._limits.ignored_frames:
            raise LimitExceeded("too many frames that bring nothing")

    def _receive_section(self, section: bytes) -> None:
        """Decode a HEADERS frame and move the peer's half."""
        lines = self._codec.decode(self.stream_id, section)
        check_section_size(lines, self._limits)
        self._flush(fin=False)
        if self.theirs is Half.BODY:
            self._trailers = parse_trailers(lines)
            self.theirs = Half.TRAILERS
        elif self._is_client:
            self._receive_response(parse_response(lines))
        else:
            head = parse_request(lines)
            if head.method != b"CONNECT":
                self._content_left = parse_content_length(head.fields)
            self.note_request(head)
            self._head = head
            self.theirs = Half.BODY

    def _receive_response(self, head: ResponseHead) -> None:
        """Take a response's head, interim or final (RFC 9114 §4.1, §4.1.2)."""
        if head.status < 200:
            self._count_overhead()
        else:
            has_content = self._method != b"HEAD" and head.status not in _NO_CONTENT_STATUSES
            is_accepted_connect = self._method == b"CONNECT" and head.status < 300
            if has_content and not is_accepted_connect:
                self._content_left = parse_content_length(head.fields)
            self.note_final_status(head.status)
            self.theirs = Half.BODY
        self._head = head

    def _check_end(self) -> None:
        """Check that the peer's half may end here (RFC 9114 §4.1, §4.1.2, §7.1)."""
        if not self._reader.is_between_frames:
            raise Malformed("a frame cut short", reach=Reach.CONNECTION, code=ErrorCode.H3_FRAME_ERROR)
        if self.theirs is Half.HEAD:
            code = ErrorCode.H3_MESSAGE_ERROR if self._is_client else ErrorCode.H3_REQUEST_INCOMPLETE
            raise Malformed("a stream that ends without a head", code=code)
        if self._content_left:
            raise Malformed("less content than content-length says")
        self.theirs = Half.CLOSED

    def _flush(self, *, fin: bool) -> None:
        """Tell what has been gathered: a head, then content, then the end with the last of them."""
        head, pieces, trailers = self._head, self._pieces, self._trailers
        self._head = None
        is_last = fin and trailers is None
        if head is not None:
            head_fin = is_last and not pieces
            if isinstance(head, RequestHead):
                self._emit(RequestReceived(self.stream_id, head, head_fin))
            else:
                self._emit(ResponseReceived(self.stream_id, head, head_fin))
        if pieces or (is_last and head is None):
            self._pieces = []
            self._emit(DataReceived(self.stream_id, b"".join(pieces), is_last))
        if fin and trailers is not None:
            self._emit(TrailersReceived(self.stream_id, trailers))
