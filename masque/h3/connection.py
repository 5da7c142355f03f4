"""One HTTP/3 connection, server or client, without any I/O (RFC 9114).

The caller owns the QUIC connection. It hands in what streams received, takes events with `next_event` until
there is none, and carries out `actions_to_send` in their order; both after every call that can make them.

Request streams are the client's bidirectional ones and are kept by `masque.h3.requests`. Unidirectional streams
belong to `masque.h3.uni`; of our own there is one, the control stream. This file joins them, writes our side, and
decides what an error costs.

An error with the reach STREAM costs that stream: reset, stop, one `StreamFailed`. One with the reach CONNECTION
costs the connection: close, one `ConnectionFailed`, and the machine is dead. No input raises.
"""

from __future__ import annotations

from collections import deque

from masque.errors import ErrorCode, LocalMisuse, Malformed, MasqueError, Reach
from masque.h3.actions import Action, CloseConnection, StreamWrite
from masque.h3.control import ControlStream
from masque.h3.events import ConnectionFailed, H3Event, StreamFailed
from masque.h3.frames import FrameType, encode_data_header, encode_frame
from masque.h3.headers import encode_request, encode_response
from masque.h3.limits import H3Limits
from masque.h3.qpack import FieldCodec
from masque.h3.requests import RequestStreams
from masque.h3.settings import Settings, encode_settings
from masque.h3.streams import Half, RequestStream
from masque.h3.uni import StreamType, UniStreams, encode_stream_type
from masque.head import RequestHead, ResponseHead
from masque.varint import encode_varint

__all__ = ["H3Connection"]

_CLIENT_CONTROL = 2
"The client's first unidirectional stream (RFC 9000 §2.1)."
_SERVER_CONTROL = 3
"The server's first unidirectional stream."
_GOAWAY_NOTICE = (1 << 62) - 4
"The largest request stream id: a notice that stops nothing yet (RFC 9114 §5.2)."


class H3Connection:
    """The HTTP/3 machine of one QUIC connection."""

    def __init__(self, *, is_client: bool, limits: H3Limits | None = None, enable_datagram: bool = True) -> None:
        """Make a machine that has sent nothing.

        Args:
            is_client: our role.
            limits: bounds on the peer; None for the defaults.
            enable_datagram: whether to announce H3_DATAGRAM; QUIC must take DATAGRAM frames then.
        """
        self._is_client = is_client
        self._limits = limits or H3Limits()
        self._settings = Settings(
            max_field_section_size=self._limits.field_section,
            enable_connect_protocol=not is_client,
            h3_datagram=enable_datagram,
        )
        self._events: deque[H3Event] = deque()
        self._actions: deque[Action] = deque()
        self._codec = FieldCodec()
        self._control = ControlStream(is_client=is_client, limits=self._limits, emit=self._events.append)
        self._uni = UniStreams(
            is_client=is_client, limits=self._limits, control=self._control, act=self._actions.append
        )
        self._requests = RequestStreams(
            is_client=is_client,
            limits=self._limits,
            codec=self._codec,
            emit=self._events.append,
            act=self._actions.append,
            progress=self._control.note_progress,
        )
        self._goaway_sent: int | None = None
        self._control_id = _CLIENT_CONTROL if is_client else _SERVER_CONTROL
        self._peer_uni_bits = _SERVER_CONTROL if is_client else _CLIENT_CONTROL
        self._is_started = False
        self._is_closed = False

    @property
    def peer_settings(self) -> Settings | None:
        """The peer's settings, or None until they arrive."""
        return self._control.settings

    @property
    def carries_datagrams(self) -> bool:
        """Whether H3_DATAGRAM was both sent and received: only then may DATAGRAM frames be sent (RFC 9297 §2.1.1)."""
        theirs = self._control.settings
        return theirs is not None and theirs.h3_datagram and self._settings.h3_datagram

    @property
    def is_client(self) -> bool:
        """Our role."""
        return self._is_client

    @property
    def is_closed(self) -> bool:
        """Whether the machine is dead: it failed or was closed."""
        return self._is_closed

    @property
    def open_requests(self) -> int:
        """How many request streams are tracked."""
        return len(self._requests)

    def start(self) -> None:
        """Queue our control stream and SETTINGS (RFC 9114 §6.2.1, §7.2.4). To be called first, and once.

        Raises:
            LocalMisuse: it was called before.
        """
        if self._is_started:
            raise LocalMisuse("started twice")
        self._is_started = True
        settings = encode_frame(FrameType.SETTINGS, encode_settings(self._settings))
        self._write(self._control_id, encode_stream_type(StreamType.CONTROL) + settings)

    def receive_stream_data(self, stream_id: int, data: bytes, fin: bool) -> None:
        """Take what QUIC received on a stream. Then process the events and carry out the actions.

        Args:
            stream_id: the QUIC stream.
            data: the stream's next bytes, in order.
            fin: whether the peer ended its direction after them.
        """
        if self._is_closed:
            return
        try:
            if stream_id & 3 == 0:
                stream = self._requests.get_for_input(stream_id)
                if stream is not None:
                    stream.receive(data, fin)
                    self._requests.forget_if_done(stream)
            elif stream_id & 3 == self._peer_uni_bits:
                self._uni.receive(stream_id, data, fin)
            else:
                raise _refused_stream("a stream that HTTP/3 does not have", ErrorCode.H3_STREAM_CREATION_ERROR)
        except MasqueError as error:
            self._fail(stream_id, error)

    def receive_reset(self, stream_id: int, code: int) -> None:
        """Take a RESET_STREAM of the peer. Then process the events and carry out the actions.

        A request that was not yet told to the caller is given up without an event (RFC 9114 §4.1.1).

        Args:
            stream_id: the QUIC stream.
            code: its application error code.
        """
        if self._is_closed:
            return
        try:
            if stream_id & 3 == 0:
                self._requests.receive_reset(stream_id, code)
            elif stream_id & 3 == self._peer_uni_bits:
                self._uni.reset(stream_id)
            else:
                raise _refused_stream("a stream that HTTP/3 does not have", ErrorCode.H3_STREAM_CREATION_ERROR)
        except MasqueError as error:
            self._fail(stream_id, error)

    def receive_stop_sending(self, stream_id: int, code: int) -> None:
        """Take a STOP_SENDING of the peer. Then process the events and carry out the actions.

        Our direction is reset with the same code (RFC 9000 §3.5). A request that was not yet told to the caller
        is given up without an event.

        Args:
            stream_id: the QUIC stream.
            code: its application error code.
        """
        if self._is_closed:
            return
        if stream_id == self._control_id:
            error = _refused_stream("our control stream was stopped", ErrorCode.H3_CLOSED_CRITICAL_STREAM)
            self._fail(stream_id, error)
        elif stream_id & 3 == 0:
            self._requests.receive_stop_sending(stream_id, code)

    def next_event(self) -> H3Event | None:
        """Take the oldest event.

        Returns:
            The event, or None until more input arrives.
        """
        return self._events.popleft() if self._events else None

    def actions_to_send(self) -> list[Action]:
        """Take all that QUIC has to do.

        Returns:
            The actions, to be carried out in order; often none.
        """
        if not self._actions:
            return []
        actions = list(self._actions)
        self._actions.clear()
        return actions

    def send_request(self, stream_id: int, head: RequestHead, fin: bool = False) -> None:
        """Open a request stream (RFC 9114 §4.1). Then carry out the actions.

        Args:
            stream_id: a bidirectional stream of ours that was never used.
            head: the request.
            fin: whether nothing follows.

        Raises:
            LocalMisuse: we are no client, the stream was used, the head is malformed, the peer is going away, or
                it has not offered extended CONNECT (RFC 8441 §3).
        """
        if self._is_closed:
            return
        if not self._is_client or not self._requests.is_usable(stream_id):
            raise LocalMisuse("a request on a stream that cannot carry one")
        goaway = self._control.goaway_id
        if goaway is not None and stream_id >= goaway:
            raise LocalMisuse("a request after the server's GOAWAY")
        settings = self._control.settings
        if head.protocol is not None and not (settings and settings.enable_connect_protocol):
            raise LocalMisuse("an extended CONNECT that the server has not offered")
        section = self._codec.encode(stream_id, encode_request(head))
        stream = self._requests.open(stream_id)
        stream.note_request(head)
        stream.ours = Half.BODY
        self._write(stream_id, encode_frame(FrameType.HEADERS, section), fin)
        if fin:
            self._requests.end_ours(stream)

    def send_response(self, stream_id: int, head: ResponseHead, fin: bool = False) -> None:
        """Answer a request (RFC 9114 §4.1). Then carry out the actions.

        Args:
            stream_id: the request stream.
            head: the response; interim ones (1xx) may come before the final one.
            fin: whether nothing follows.

        Raises:
            LocalMisuse: we are no server, there is no such request, it was answered, the head is malformed, or
                an interim response would end the stream.
        """
        stream = self._find(stream_id)
        if stream is None:
            return
        is_interim = head.status < 200
        if self._is_client or not stream.is_announced or stream.ours is not Half.HEAD or (is_interim and fin):
            raise LocalMisuse("a response out of place")
        section = self._codec.encode(stream_id, encode_response(head))
        if not is_interim:
            stream.ours = Half.BODY
            stream.note_final_status(head.status)
        self._write(stream_id, encode_frame(FrameType.HEADERS, section), fin)
        if fin:
            self._requests.end_ours(stream)

    def send_data(self, stream_id: int, data: bytes, fin: bool = False) -> None:
        """Send content in one DATA frame (RFC 9114 §7.2.1). Then carry out the actions.

        Args:
            stream_id: the request stream.
            data: the content; empty sends no frame.
            fin: whether nothing follows.

        Raises:
            LocalMisuse: there is no such stream, its head was not sent, or it was ended.
        """
        stream = self._find(stream_id)
        if stream is None:
            return
        if stream.ours is not Half.BODY:
            raise LocalMisuse("content before a head or after the end")
        if data or fin:
            self._write(stream_id, encode_data_header(len(data)) + data if data else b"", fin)
        if fin:
            self._requests.end_ours(stream)

    def stream_finished_locally(self, stream_id: int) -> None:
        """Note that the caller itself ended our direction in QUIC after writing content there.

        Args:
            stream_id: the request stream.

        Raises:
            LocalMisuse: there is no such stream, its head was not sent, or it was ended.
        """
        stream = self._find(stream_id)
        if stream is None:
            return
        if stream.ours is not Half.BODY:
            raise LocalMisuse("an end before a head or after the end")
        self._requests.end_ours(stream)

    def reset_stream(self, stream_id: int, code: int) -> None:
        """Abort both directions of a request stream and forget it. Then carry out the actions.

        Args:
            stream_id: the request stream; one that is gone already is no error.
            code: the application error code.

        Raises:
            LocalMisuse: there never was such a stream.
        """
        stream = self._find(stream_id)
        if stream is not None:
            self._requests.abort(stream, code)

    def stop_sending(self, stream_id: int, code: int) -> None:
        """Want nothing more from the peer on a request stream: no event follows. Then carry out the actions.

        Args:
            stream_id: the request stream; one that is gone already is no error.
            code: the application error code; H3_NO_ERROR after a complete response (RFC 9114 §4.1).

        Raises:
            LocalMisuse: there never was such a stream.
        """
        stream = self._find(stream_id)
        if stream is not None:
            self._requests.stop(stream, code)

    def send_goaway(self, final: bool) -> None:
        """Tell the peer that we are going away (RFC 9114 §5.2). Then carry out the actions.

        A server first gives notice, and later draws the line: requests beyond it are reset with
        H3_REQUEST_REJECTED and not told. A client only says that it takes no push. Repeating it sends nothing.

        Args:
            final: whether to draw the line above the requests seen so far.

        Raises:
            LocalMisuse: `start` was not called.
        """
        if self._is_closed:
            return
        if not self._is_started:
            raise LocalMisuse("GOAWAY before SETTINGS")
        goaway = _GOAWAY_NOTICE
        if self._is_client:
            goaway = 0
        elif final:
            goaway = self._requests.next_id
        if self._goaway_sent is not None and goaway >= self._goaway_sent:
            return
        self._goaway_sent = self._requests.reject_from = goaway
        self._write(self._control_id, encode_frame(FrameType.GOAWAY, encode_varint(goaway)))

    def close(self, code: ErrorCode, detail: str = "") -> None:
        """Close the connection; the machine is dead after. Then carry out the actions.

        Args:
            code: why; H3_NO_ERROR when all is done (RFC 9114 §5.3).
            detail: for logs and the reason phrase.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._requests.clear()
        self._actions.append(CloseConnection(code, detail))

    def _write(self, stream_id: int, data: bytes, fin: bool = False) -> None:
        """Queue bytes for a stream."""
        self._actions.append(StreamWrite(stream_id, data, fin))

    def _find(self, stream_id: int) -> RequestStream | None:
        """Find a stream for output; None when it or the connection is gone, LocalMisuse when it never was."""
        return None if self._is_closed else self._requests.get_for_output(stream_id)

    def _fail(self, stream_id: int, error: MasqueError) -> None:
        """Turn an error of the peer into its one event (RFC 9114 §8)."""
        stream = self._requests.get(stream_id)
        if error.reach is Reach.CONNECTION or stream is None:
            self._events.append(ConnectionFailed(error.code, error.detail))
            self.close(error.code, error.detail)
            return
        self._requests.abort(stream, error.code)
        self._events.append(StreamFailed(stream_id, error.code, error.detail))


def _refused_stream(detail: str, code: ErrorCode) -> Malformed:
    """Make the error for a stream that may not exist or may not end (RFC 9114 §6)."""
    return Malformed(detail, reach=Reach.CONNECTION, code=code)
