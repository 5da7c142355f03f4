"""What the HTTP/3 machine tells its caller.

For one request stream: one head (a client may see interim ones before it), any number of `DataReceived`, and
then at most one end. The end is an event with `fin` set, or `ResetReceived`, or `StreamFailed`. A `fin` or a
reset ends the peer's direction only. `StreamFailed` ends the stream, and may come without a head before it.
`ConnectionFailed` is the last event of all.
"""

from __future__ import annotations

from dataclasses import dataclass

from masque.errors import ErrorCode
from masque.h3.settings import Settings
from masque.head import Fields, RequestHead, ResponseHead

__all__ = [
    "ConnectionFailed",
    "DataReceived",
    "GoawayReceived",
    "H3Event",
    "RequestReceived",
    "ResetReceived",
    "ResponseReceived",
    "SettingsReceived",
    "StopSendingReceived",
    "StreamFailed",
    "TrailersReceived",
]


@dataclass(frozen=True, slots=True)
class SettingsReceived:
    """The peer's SETTINGS have arrived; once per connection (RFC 9114 §7.2.4)."""

    settings: Settings
    "What the peer announced."


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A client's request has begun (RFC 9114 §4.1)."""

    stream_id: int
    "The request stream."
    head: RequestHead
    "The request's head, valid as an HTTP/3 message."
    fin: bool
    "Whether the client has already ended its direction."


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """A response's head has arrived; a status of 1xx is interim and others follow (RFC 9114 §4.1)."""

    stream_id: int
    "The request stream."
    head: ResponseHead
    "The response's head, valid as an HTTP/3 message."
    fin: bool
    "Whether the server has already ended its direction."


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Content of DATA frames, in order and without their framing (RFC 9114 §7.2.1)."""

    stream_id: int
    "The request stream."
    data: bytes
    "Content; empty only together with `fin`."
    fin: bool
    "Whether the peer has ended its direction."


@dataclass(frozen=True, slots=True)
class TrailersReceived:
    """The trailer section and the end of the peer's direction (RFC 9114 §4.1)."""

    stream_id: int
    "The request stream."
    fields: Fields
    "The trailer fields."
    fin: bool = True
    "Always true: the trailers are held until the stream ends."


@dataclass(frozen=True, slots=True)
class ResetReceived:
    """The peer aborted its direction of a request stream; ours is still open."""

    stream_id: int
    "The request stream."
    code: int
    "The application error code."


@dataclass(frozen=True, slots=True)
class StopSendingReceived:
    """The peer wants nothing more on a request stream. The machine has queued the reset of our direction."""

    stream_id: int
    "The request stream."
    code: int
    "The application error code."


@dataclass(frozen=True, slots=True)
class StreamFailed:
    """The peer broke a rule on this stream. The machine has queued reset and stop, and has let the stream go."""

    stream_id: int
    "The request stream."
    code: ErrorCode
    "The code that the peer learns."
    detail: str
    "For our own logs; never quotes the peer."


@dataclass(frozen=True, slots=True)
class GoawayReceived:
    """The peer is going away (RFC 9114 §5.2). The number never grows."""

    stream_id: int
    "From a server: requests with this stream id or a higher one are not processed. From a client: a push id."


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """The peer broke a rule of the connection. The machine has queued the close and is dead."""

    code: ErrorCode
    "The code that the peer learns."
    detail: str
    "For our own logs; never quotes the peer."


H3Event = (
    SettingsReceived
    | RequestReceived
    | ResponseReceived
    | DataReceived
    | TrailersReceived
    | ResetReceived
    | StopSendingReceived
    | StreamFailed
    | GoawayReceived
    | ConnectionFailed
)
"Everything that `H3Connection.next_event` returns."
