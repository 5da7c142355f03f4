"""A client that shows everything as it is on the wire, and can send what no client should.

It stands on the relay's QUIC engines and on the HTTP/3 machine, but hides nothing: reset codes, GOAWAY, single
datagrams, the code of the connection's end. `send` puts any bytes on any stream. For conformance and tests; programs
use `relay.client`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pylsqpack

from masque.connect import connect_head
from masque.connect_udp import connect_udp_head
from masque.datagram import encode_prefix
from masque.fields import get_field
from masque.h3 import (
    CloseConnection,
    DataReceived,
    GoawayReceived,
    H3Connection,
    ResponseReceived,
    SettingsReceived,
    StreamReset,
    StreamStop,
    StreamWrite,
)
from masque.head import Fields, RequestHead, ResponseHead
from masque.template import DEFAULT_UDP_TEMPLATE, Template
from masque.varint import encode_varint
from relay.client import explain_no_connection
from relay.poller import Poller
from relay.quic.endpoint import ClientEndpoint
from relay.quic.engine import ClientOptions, EngineName, TransportLimits, load_factory
from relay.quic.socket import connect_udp
from relay.telemetry import NoMetrics

__all__ = ["WireClient", "WireOptions", "WireStream", "connect_wire", "frame", "headers"]


@dataclass(frozen=True, slots=True)
class WireOptions:
    """Which server, and how."""

    host: str
    "Its address."
    port: int
    "Its UDP port."
    engine: EngineName = EngineName.QH3
    "The QUIC library."
    server_name: str = ""
    "The name its certificate must be for; the address without it."
    ca_file: Path | None = None
    "PEM file of trusted authorities; None trusts the system's."
    is_verified: bool = True
    "False accepts any certificate."
    authority: str = "relay.example"
    "The authority of CONNECT-UDP requests."
    template: str = DEFAULT_UDP_TEMPLATE
    "The template of CONNECT-UDP."
    credentials: Fields = ()
    "Field lines of every request."
    wants_datagrams: bool = True
    "False does not announce H3_DATAGRAM."
    limits: TransportLimits = field(default_factory=TransportLimits)
    "What our side of the connection announces."
    source: str | None = None
    "The address to send from."
    timeout: float = 5.0
    "Seconds for the handshake and the server's SETTINGS."


def frame(frame_type: int, payload: bytes = b"") -> bytes:
    """Make a frame of any type."""
    return encode_varint(frame_type) + encode_varint(len(payload)) + payload


def headers(*lines: tuple[bytes, bytes]) -> bytes:
    """Make a HEADERS frame of any field lines, valid or not."""
    encoder = pylsqpack.Encoder()
    encoder.apply_settings(0, 0)
    return frame(1, bytes(encoder.encode(0, list(lines))[1]))


@dataclass(eq=False)
class WireStream:
    """What arrived on one request stream."""

    stream_id: int
    response: ResponseHead | None = None
    data: bytearray = field(default_factory=bytearray)
    is_ended: bool = False
    reset: int | None = None
    "The code of a RESET_STREAM."
    stopped: int | None = None
    "The code of a STOP_SENDING."
    datagrams: list[bytes] = field(default_factory=list)
    "HTTP Datagram payloads, context id included."

    @property
    def status(self) -> int | None:
        """The final response's status."""
        return None if self.response is None else self.response.status

    def field(self, name: bytes) -> bytes | None:
        """A field of the response."""
        return None if self.response is None else get_field(self.response.fields, name)


class WireClient:
    """One connection; see `connect_wire`."""

    def __init__(self, endpoint: ClientEndpoint, options: WireOptions) -> None:
        self.link = endpoint.link
        self.address = endpoint.address
        "Our own address and port."
        self.machine = H3Connection(is_client=True, enable_datagram=options.wants_datagrams)
        self.streams: dict[int, WireStream] = {}
        self.is_ready = False
        self.goaways: list[int] = []
        "The stream ids of GOAWAY frames, in order."
        self.end_code: int | None = None
        "The code with which the connection ended."
        self.credentials = options.credentials
        "Field lines of every request."
        self._options = options
        self._endpoint = endpoint
        self._template = Template(options.template)
        self._next_stream = 0
        self._waiting: list[tuple[Callable[[], object], asyncio.Future[None]]] = []
        endpoint.link.handler = self
        self.machine.start()
        self._act()

    # What a case or a test does.

    async def until(self, fact: Callable[[], object], within: float = 5.0) -> None:
        """Wait until `fact()` is true; it is asked again after each thing that arrives."""
        if fact():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (fact, future)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(within):
                await future
        finally:
            self._waiting.remove(entry)

    def open_stream(self) -> WireStream:
        """The next request stream; nothing is sent on it."""
        stream = WireStream(self._next_stream)
        self._next_stream += 4
        self.streams[stream.stream_id] = stream
        return stream

    def request(self, head: RequestHead, fin: bool = False) -> WireStream:
        """Send a request."""
        stream = self.open_stream()
        self.machine.send_request(stream.stream_id, head, fin)
        self._act()
        return stream

    def request_raw(self, data: bytes) -> WireStream:
        """Send any bytes as a request; the answer is understood like that of any other."""
        stream = self.open_stream()
        self._act()
        self.machine.send_request(stream.stream_id, RequestHead(b"CONNECT", b"placeholder.invalid:1"))
        self.machine.actions_to_send()  # what a well-formed request would have been
        self.send(stream, data)
        return stream

    def connect(self, host: str, port: int, fields: Fields | None = None) -> WireStream:
        """Ask for a TCP tunnel, with other field lines than the credentials if given."""
        return self.request(connect_head(host, port, self.credentials if fields is None else fields))

    def connect_udp(self, host: str, port: int, fields: Fields | None = None) -> WireStream:
        """Ask for a UDP tunnel; arguments as `connect`."""
        authority = self._options.authority.encode()
        lines = self.credentials if fields is None else fields
        return self.request(connect_udp_head(self._template, authority, host, port, lines))

    def rebind(self) -> None:
        """Go on from a new local port, as after a NAT's change (RFC 9000 §9.3.3)."""
        self._endpoint.rebind(connect_udp(self._options.host, self._options.port, self._options.source))
        self.address = self._endpoint.address

    async def answered(self, stream: WireStream) -> WireStream:
        """Wait for the final response."""
        await self.until(lambda: stream.response is not None or stream.reset is not None)
        return stream

    async def ended(self, stream: WireStream) -> None:
        """Wait for the end of the relay's direction."""
        await self.until(lambda: stream.is_ended)

    async def cut(self, stream: WireStream) -> int:
        """Wait for a RESET_STREAM; returns its code."""
        await self.until(lambda: stream.reset is not None)
        assert stream.reset is not None
        return stream.reset

    def send(self, stream: WireStream | int, data: bytes, fin: bool = False) -> None:
        """Put bytes on a stream as they are."""
        self.link.send_stream(stream if isinstance(stream, int) else stream.stream_id, data, fin)

    def send_content(self, stream: WireStream, data: bytes, fin: bool = False) -> None:
        """Send a DATA frame."""
        self.send(stream, frame(0, data), fin)

    def send_datagram(self, stream: WireStream, payload: bytes, context: int = 0) -> int:
        """Send an HTTP Datagram of a context; 0 when it does not fit."""
        prefix = encode_prefix(stream.stream_id, context)
        return self.link.send_datagrams(prefix, payload, max(1, len(payload)))

    def reset(self, stream: WireStream, code: int) -> None:
        """Abandon both directions of a stream."""
        self.link.reset_stream(stream.stream_id, code)
        self.link.stop_sending(stream.stream_id, code)

    # What the link calls.

    def established(self, alpn: str | None) -> None:
        """Nothing to do."""

    def stream_data(self, stream_id: int, data: bytes, fin: bool) -> None:
        """Bytes of a stream."""
        self.machine.receive_stream_data(stream_id, data, fin)
        self._changed()

    def stream_reset(self, stream_id: int, code: int) -> None:
        """RESET_STREAM."""
        stream = self.streams.get(stream_id)
        if stream is not None:
            stream.reset = code
        self.machine.receive_reset(stream_id, code)
        self._changed()

    def stop_sending(self, stream_id: int, code: int) -> None:
        """STOP_SENDING."""
        stream = self.streams.get(stream_id)
        if stream is not None:
            stream.stopped = code
        self._changed()

    def datagrams(self, payloads: list[bytes]) -> None:
        """DATAGRAM payloads."""
        for payload in payloads:
            for stream in self.streams.values():
                prefix = encode_prefix(stream.stream_id)[:-1]
                if payload.startswith(prefix):
                    stream.datagrams.append(payload[len(prefix) :])
        self._changed()

    def flushed(self) -> None:
        """There may be room for who waits for it."""
        self._wake()

    def terminated(self, code: int) -> None:
        """The connection is over."""
        self.end_code = code
        self._changed()

    # Inside.

    def _changed(self) -> None:
        while (event := self.machine.next_event()) is not None:
            match event:
                case ResponseReceived():
                    stream = self.streams[event.stream_id]
                    if event.head.status >= 200:
                        stream.response = event.head
                    stream.is_ended = stream.is_ended or event.fin
                case DataReceived():
                    stream = self.streams[event.stream_id]
                    stream.data += event.data
                    stream.is_ended = stream.is_ended or event.fin
                case SettingsReceived():
                    self.is_ready = True
                case GoawayReceived():
                    self.goaways.append(event.stream_id)
                case _:
                    pass
        self._act()
        self._wake()

    def _wake(self) -> None:
        for fact, future in self._waiting:
            if not future.done() and fact():
                future.set_result(None)

    def _act(self) -> None:
        for action in self.machine.actions_to_send():
            match action:
                case StreamWrite():
                    self.link.send_stream(action.stream_id, action.data, action.fin)
                case StreamReset():
                    self.link.reset_stream(action.stream_id, action.code)
                case StreamStop():
                    self.link.stop_sending(action.stream_id, action.code)
                case CloseConnection():
                    self.link.close(action.code, action.detail)


@asynccontextmanager
async def connect_wire(options: WireOptions) -> AsyncIterator[WireClient]:
    """Connect and wait for the server's SETTINGS; the connection closes with the context.

    Args:
        options: which server, and how.

    Raises:
        ConnectionError: the connection ended before, or its socket could not be made.
        TimeoutError: they did not come in time.
        relay.quic.engine.EngineError: the authorities cannot be read.
    """
    loop = asyncio.get_running_loop()
    poller = Poller(loop)
    address = (options.host, options.port)
    factory = load_factory(options.engine, options.limits, None)
    peer = ClientOptions(options.server_name or options.host, options.ca_file, options.is_verified)
    quic = factory.client(peer, address, poller.refresh())
    endpoint = ClientEndpoint(connect_udp(*address, options.source), quic, poller, loop, NoMetrics())
    client = WireClient(endpoint, options)
    try:
        await client.until(lambda: client.is_ready or client.end_code is not None, options.timeout)
        if client.end_code is not None:
            raise ConnectionError(explain_no_connection(client.end_code))
        yield client
    finally:
        if client.end_code is None:
            client.link.close(0x100)
        poller.drain()
        endpoint.close()
        client.link.abandon()
        poller.close()
