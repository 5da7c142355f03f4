"""DNS over HTTPS: one HTTP/2 connection, one stream for each question (RFC 8484)."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from relay.resolver.query import MAX_SIGNED_MESSAGE, Query
from relay.resolver.transport.connection import Closed, Connection, Unseen
from relay.resolver.transport.stream import open_stream
from relay.settings import Upstream

__all__ = ["HttpsConnection", "connect_https"]

_READ = 65536
_MEDIA_TYPE = "application/dns-message"


@dataclass(slots=True)
class _Response:
    """One stream's response so far."""

    is_good: bool = False
    age: int = 0
    body: bytearray = field(default_factory=bytearray)


class _GracefulMachine(h2.connection.H2ConnectionStateMachine):
    """A connection's state that outlasts a GOAWAY: what is under way goes on (RFC 9113 §6.8). The library's ends."""

    def process_input(self, input_: h2.connection.ConnectionInputs) -> list[h2.events.Event]:
        before = self.state
        events = super().process_input(input_)
        if input_ is h2.connection.ConnectionInputs.RECV_GOAWAY:
            self.state = before
        return events


class HttpsConnection(Connection):
    """Queries as POST requests; the id is 0, which the stream makes up for (RFC 8484 §4.1)."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: Upstream, idle: float
    ) -> None:
        """Take over a connected stream whose peer speaks HTTP/2."""
        super().__init__(idle)
        self._reader = reader
        self._writer = writer
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._h2.state_machine = _GracefulMachine()
        self._h2.initiate_connection()
        self._freed = asyncio.Event()
        self._responses: dict[int, _Response] = {}
        authority = (
            upstream.server_name if upstream.name or upstream.address.version == 4 else f"[{upstream.address}]"
        )
        port = "" if upstream.port == upstream.transport.default_port else f":{upstream.port}"
        self._head = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", authority + port),
            (":path", upstream.path),
            ("accept", _MEDIA_TYPE),
            ("content-type", _MEDIA_TYPE),
        ]
        self._flush()

    async def _room(self) -> None:
        """Wait until the upstream takes one stream more (RFC 9113 §5.1.2)."""
        while self.is_open and self._h2.open_outbound_streams >= self._h2.remote_settings.max_concurrent_streams:
            self._freed.clear()
            await self._freed.wait()
        if not self.is_open:
            raise Unseen

    def _send(self, query: Query) -> int:
        try:
            stream = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream, [*self._head, ("content-length", str(len(query.wire)))])
            self._h2.send_data(stream, query.wire, end_stream=True)
        except h2.exceptions.ProtocolError:
            self.is_open = False
            raise Closed from None
        self._responses[stream] = _Response()
        self._flush()
        return stream

    def _given_up(self, key: int, sent_at: float) -> None:
        super()._given_up(key, sent_at)
        self._freed.set()

    def _cancel(self, key: int) -> None:
        self._responses.pop(key, None)
        try:
            self._h2.reset_stream(key, h2.errors.ErrorCodes.CANCEL)
        except h2.exceptions.ProtocolError:
            return
        self._flush()

    async def _receive(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._idle):
                    data = await self._reader.read(_READ)
            except TimeoutError:
                if not self._pending:
                    return
                continue
            if not data:
                return
            self._heard()
            try:
                events = self._h2.receive_data(data)
                for event in events:
                    self._on_event(event)
            except h2.exceptions.ProtocolError:
                raise OSError("the upstream breaks the rules of HTTP/2") from None
            self._flush()
            self._freed.set()
            if not self.is_open and not self._pending:
                return

    def _on_event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self._on_goaway(event.last_stream_id or 0)
        stream = getattr(event, "stream_id", None)
        response = None if stream is None else self._responses.get(stream)
        if isinstance(event, h2.events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if response is None or stream is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            _read_head(response, dict(event.headers or ()))
        elif isinstance(event, h2.events.DataReceived):
            response.body += event.data or b""
            if len(response.body) > MAX_SIGNED_MESSAGE:
                self._fail(stream, OSError("the response is too long"))
                self._cancel(stream)
        elif isinstance(event, h2.events.StreamReset):
            del self._responses[stream]
            is_unseen = event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM  # RFC 9113 §8.7
            self._fail(stream, Unseen() if is_unseen else OSError("the upstream refuses the request"))
        elif isinstance(event, h2.events.StreamEnded):
            del self._responses[stream]
            if response.is_good:
                self._settle(stream, bytes(response.body), 0, response.age)
            self._fail(stream, OSError("the upstream has no DNS message for the request"))

    def _on_goaway(self, last: int) -> None:
        """No further questions; those that the upstream has not looked at are asked elsewhere (RFC 9113 §6.8)."""
        self.is_open = False
        for stream in [one for one in self._pending if one > last]:
            self._responses.pop(stream, None)
            self._fail(stream, Unseen())

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._writer.write(data)

    def _close(self) -> None:
        self._freed.set()
        self._writer.transport.abort()  # nobody waits, and a TLS peer could take long over its goodbye


def _read_head(response: _Response, fields: dict[bytes, bytes]) -> None:
    """Note what the header fields say. They are bytes: a server may send any (RFC 9110 §5.5)."""
    media_type = fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
    response.is_good = fields.get(b":status") == b"200" and media_type == _MEDIA_TYPE.encode()
    age = fields.get(b"age", b"0")
    response.age = int(age) if age.isdigit() and len(age) < 10 else 0


async def connect_https(upstream: Upstream, context: ssl.SSLContext, idle: float) -> HttpsConnection:
    """Connect for DNS over HTTPS.

    Raises:
        OSError: the upstream cannot be reached, its certificate is not the right one, or it has no HTTP/2.
    """
    reader, writer = await open_stream(upstream, context)
    tls: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
    if tls is None or tls.selected_alpn_protocol() != "h2":
        writer.transport.abort()
        raise OSError("the upstream has no HTTP/2")
    return HttpsConnection(reader, writer, upstream, idle)
