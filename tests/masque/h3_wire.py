"""Hand-made HTTP/3 bytes and two machines wired in memory, for the tests of `masque.h3`."""

from __future__ import annotations

from collections.abc import Callable

import pylsqpack

from masque.errors import MasqueError
from masque.h3 import (
    CloseConnection,
    DataReceived,
    H3Connection,
    H3Event,
    H3Limits,
    RequestReceived,
    ResponseReceived,
    StreamReset,
    StreamStop,
    StreamWrite,
)
from masque.head import RequestHead, ResponseHead
from masque.varint import encode_varint

Lines = list[tuple[bytes, bytes]]

CONTROL = b"\x00"
SETTINGS = b"\x04\x00"
CONNECT: Lines = [(b":method", b"CONNECT"), (b":authority", b"target.example:443")]
GET: Lines = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"relay.example"), (b":path", b"/")]
UDP: Lines = [
    (b":method", b"CONNECT"),
    (b":protocol", b"connect-udp"),
    (b":scheme", b"https"),
    (b":authority", b"relay.example"),
    (b":path", b"/.well-known/masque/udp/192.0.2.1/53/"),
]
OK: Lines = [(b":status", b"200")]
CONNECT_HEAD = RequestHead(b"CONNECT", authority=b"target.example:443")
GET_HEAD = RequestHead(b"GET", authority=b"relay.example", scheme=b"https", path=b"/")
UDP_HEAD = RequestHead(
    b"CONNECT",
    authority=b"relay.example",
    scheme=b"https",
    path=b"/.well-known/masque/udp/192.0.2.1/53/",
    protocol=b"connect-udp",
)


def section(lines: Lines) -> bytes:
    """Encode field lines, valid or not, without a dynamic table."""
    encoder = pylsqpack.Encoder()
    encoder.apply_settings(0, 0)
    return bytes(encoder.encode(0, lines)[1])


def frame(frame_type: int, payload: bytes = b"") -> bytes:
    """Make a frame of any type."""
    return encode_varint(frame_type) + encode_varint(len(payload)) + payload


def headers(lines: Lines) -> bytes:
    """Make a HEADERS frame of any field lines."""
    return frame(1, section(lines))


def data(payload: bytes) -> bytes:
    """Make a DATA frame."""
    return frame(0, payload)


def events(machine: H3Connection) -> list[H3Event]:
    """Take all events."""
    found = []
    while (event := machine.next_event()) is not None:
        found.append(event)
    return found


def make_server(limits: H3Limits | None = None) -> H3Connection:
    """A server that has the client's SETTINGS and nothing left to tell."""
    machine = H3Connection(is_client=False, limits=limits)
    machine.start()
    machine.receive_stream_data(2, CONTROL + SETTINGS, False)
    events(machine)
    machine.actions_to_send()
    return machine


def make_client(limits: H3Limits | None = None) -> H3Connection:
    """A client that knows the server to offer extended CONNECT and has nothing left to tell."""
    machine = H3Connection(is_client=True, limits=limits)
    machine.start()
    machine.receive_stream_data(3, CONTROL + frame(4, b"\x08\x01\x33\x01"), False)
    events(machine)
    machine.actions_to_send()
    return machine


def make_requester(head: RequestHead = GET_HEAD, limits: H3Limits | None = None) -> H3Connection:
    """A client whose request on stream 0 is sent and whose half is still open."""
    machine = make_client(limits)
    machine.send_request(0, head)
    machine.actions_to_send()
    return machine


class Pair:
    """A client and a server machine; `pump` carries actions across until there are none."""

    def __init__(self) -> None:
        self.client = H3Connection(is_client=True)
        self.server = H3Connection(is_client=False)
        self.client.start()
        self.server.start()
        self.closes: list[CloseConnection] = []
        self.pump()
        events(self.client)
        events(self.server)

    def pump(self) -> None:
        """Deliver everything in both directions."""
        is_moving = True
        while is_moving:
            is_moving = False
            for sender, receiver in ((self.client, self.server), (self.server, self.client)):
                for action in sender.actions_to_send():
                    is_moving = True
                    match action:
                        case StreamWrite(stream_id, payload, fin):
                            receiver.receive_stream_data(stream_id, payload, fin)
                        case StreamReset(stream_id, code):
                            receiver.receive_reset(stream_id, code)
                        case StreamStop(stream_id, code):
                            receiver.receive_stop_sending(stream_id, code)
                        case CloseConnection():
                            self.closes.append(action)


def folded(found: list[H3Event]) -> list[H3Event | tuple[object, ...]]:
    """Join content and move ends out of heads, so that events do not depend on how input was split."""
    result: list[H3Event | tuple[object, ...]] = []
    content: dict[int, bytes] = {}

    def flush() -> None:
        result.extend(("content", stream_id, payload) for stream_id, payload in content.items() if payload)
        content.clear()

    for event in found:
        fin = False
        match event:
            case DataReceived(stream_id, payload, fin):
                content[stream_id] = content.get(stream_id, b"") + payload
            case RequestReceived(stream_id, head, fin):
                flush()
                result.append(RequestReceived(stream_id, head, False))
            case ResponseReceived(stream_id, head, fin):
                flush()
                result.append(ResponseReceived(stream_id, head, False))
            case _:
                flush()
                result.append(event)
                continue
        if fin:
            flush()
            result.append(("end", stream_id))
    flush()
    return result


def refusal(call: Callable[[], object]) -> MasqueError | None:
    """Make a call and return what it raises, or None. Any exception but ours passes."""
    try:
        call()
    except MasqueError as error:
        return error
    return None


def ok_head(*fields: tuple[bytes, bytes]) -> ResponseHead:
    """A 200 with these fields."""
    return ResponseHead(200, fields)
