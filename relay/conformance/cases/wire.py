"""What no well-behaved client sends: only our own client can play these (RFC 9114, RFC 9204, RFC 9297)."""

from __future__ import annotations

from masque.errors import ErrorCode
from masque.head import RequestHead
from masque.varint import encode_varint
from relay.conformance.case import CaseList, Need, Stage
from relay.conformance.driver import DriverError, Feature, Kind
from relay.conformance.wire import WireClient, WireStream, frame, headers
from relay.conformance.wire_driver import WireDriver

__all__ = ["WIRE_CASES"]

_GREASE_FRAME = 0x1F * 7 + 0x21
"A frame type without meaning (RFC 9114 §7.2.8)."
_GREASE_STREAM = 0x1F * 5 + 0x21
"A stream type without meaning (RFC 9114 §6.2.3)."
_OWN_CONTROL = 2
_SECOND_UNI = 6
_METHOD = (b":method", b"CONNECT")

WIRE_CASES = CaseList(Feature.WIRE)
"The cases of rules that a client must break to test them."


async def _connect(stage: Stage) -> WireClient:
    if not isinstance(stage.driver, WireDriver):
        raise DriverError("only our own client can send this")
    await stage.driver.connect()
    return stage.driver.wire


async def _goes_on(stage: Stage) -> None:
    """The connection still takes a tunnel."""
    await stage.open(Kind.TCP if Need.TCP in stage.server.offers else Kind.UDP)


async def _closes(stage: Stage, code: ErrorCode) -> None:
    """The connection ends with this code."""
    ended = await stage.driver.wait_closed()
    stage.should(ended == code, f"the connection ended with {ended or 0:#x}, expected {code.name}")


async def _answer(stage: Stage, stream: WireStream) -> None:
    """Wait for what the server makes of a request; the connection's end is an error."""
    if isinstance(stage.driver, WireDriver):
        await stage.driver.until(lambda: stream.response is not None or stream.reset is not None, "an answer")


async def _costs_its_stream(stage: Stage, stream: WireStream, code: ErrorCode) -> None:
    """A malformed message ends its stream, by reset or by a 4xx, and nothing else."""
    await _answer(stage, stream)
    status = stream.status
    stage.must(status is None or 400 <= status < 500, f"answered with {status}")
    if stream.reset is not None:
        stage.should(stream.reset == code, f"reset with {stream.reset:#x}, expected {code.name}")
    await _goes_on(stage)


async def _refuses(stage: Stage, head: RequestHead, status: int) -> None:
    """A request that is well formed but cannot be served."""
    client = await _connect(stage)
    fields = tuple((name.encode(), value.encode()) for name, value in stage.server.credentials)
    stream = client.request(RequestHead(head.method, head.authority, head.scheme, head.path, head.protocol, fields))
    await _answer(stage, stream)
    stage.must(stream.status is None or stream.status >= 400, f"answered with {stream.status}")
    stage.should(stream.status == status, f"answered {stream.status}, expected {status}")
    await _goes_on(stage)


@WIRE_CASES.add("grease-frames", "RFC 9114 §9")
async def _grease_frames(stage: Stage) -> None:
    """Frames of unknown types are skipped, on the control stream and on a request stream."""
    client = await _connect(stage)
    client.send(_OWN_CONTROL, frame(_GREASE_FRAME, b"nothing"))
    target = f"{stage.server.host}:{stage.origins.tcp[stage.server.host]}".encode()
    fields = [(name.encode(), value.encode()) for name, value in stage.server.credentials]
    request = headers(_METHOD, (b":authority", target), *fields)
    stream = client.request_raw(frame(_GREASE_FRAME, bytes(100)) + request)
    await _answer(stage, stream)
    stage.must(stream.reset is None, "the request was reset")
    if Need.TCP in stage.server.offers:
        stage.must(stream.status == 200, f"answered with {stream.status}")


@WIRE_CASES.add("grease-streams", "RFC 9114 §6.2.3")
async def _grease_streams(stage: Stage) -> None:
    """Unidirectional streams of unknown types cost nothing."""
    client = await _connect(stage)
    client.send(_SECOND_UNI, encode_varint(_GREASE_STREAM) + b"nothing", fin=True)
    await _goes_on(stage)


@WIRE_CASES.add("second-settings", "RFC 9114 §7.2.4")
async def _second_settings(stage: Stage) -> None:
    """A second SETTINGS frame is an error of the connection."""
    client = await _connect(stage)
    client.send(_OWN_CONTROL, frame(0x4))
    await _closes(stage, ErrorCode.H3_FRAME_UNEXPECTED)


@WIRE_CASES.add("second-control", "RFC 9114 §6.2.1")
async def _second_control(stage: Stage) -> None:
    """A second control stream is an error of the connection."""
    client = await _connect(stage)
    client.send(_SECOND_UNI, encode_varint(0) + frame(0x4))
    await _closes(stage, ErrorCode.H3_STREAM_CREATION_ERROR)


@WIRE_CASES.add("closed-control", "RFC 9114 §6.2.1")
async def _closed_control(stage: Stage) -> None:
    """The end of the control stream is an error of the connection."""
    client = await _connect(stage)
    client.send(_OWN_CONTROL, b"", fin=True)
    await _closes(stage, ErrorCode.H3_CLOSED_CRITICAL_STREAM)


@WIRE_CASES.add("http2-frames", "RFC 9114 §7.2.8")
async def _http2_frames(stage: Stage) -> None:
    """Frames of HTTP/2 that HTTP/3 does not have are errors of the connection."""
    client = await _connect(stage)
    client.send(_OWN_CONTROL, frame(0x6, bytes(8)))
    await _closes(stage, ErrorCode.H3_FRAME_UNEXPECTED)


@WIRE_CASES.add("data-first", "RFC 9114 §4.1")
async def _data_first(stage: Stage) -> None:
    """DATA before HEADERS is an error of the connection."""
    client = await _connect(stage)
    client.send(client.open_stream(), frame(0x0, b"no request yet"))
    await _closes(stage, ErrorCode.H3_FRAME_UNEXPECTED)


@WIRE_CASES.add("bad-qpack", "RFC 9204 §2.2.3")
async def _bad_qpack(stage: Stage) -> None:
    """A field section that refers to a dynamic table nobody filled is an error of the connection."""
    client = await _connect(stage)
    client.send(client.open_stream(), frame(0x1, b"\x00\x00\x80"))
    await _closes(stage, ErrorCode.QPACK_DECOMPRESSION_FAILED)


@WIRE_CASES.add("malformed-request", "RFC 9114 §4.1.2")
async def _malformed_request(stage: Stage) -> None:
    """Malformed requests cost their streams only."""
    client = await _connect(stage)
    authority = (b":authority", b"target.example:443")
    for lines in (
        (_METHOD,),
        (_METHOD, _METHOD, authority),
        (_METHOD, authority, (b"X-Upper", b"case")),
        (_METHOD, authority, (b"connection", b"close")),
        (_METHOD, (b"late", b"pseudo-header"), authority),
        (_METHOD, authority, (b":protocol", b"connect-udp")),
    ):
        stream = client.request_raw(headers(*lines))
        await _costs_its_stream(stage, stream, ErrorCode.H3_MESSAGE_ERROR)


@WIRE_CASES.add("large-fields", "RFC 9114 §4.2.2")
async def _large_fields(stage: Stage) -> None:
    """A field section of some megabytes costs its stream only."""
    client = await _connect(stage)
    large = [(b"large", b"%d" % number * 1000) for number in range(1000)]
    stream = client.request_raw(headers(_METHOD, (b":authority", b"target.example:443"), *large))
    await _costs_its_stream(stage, stream, ErrorCode.H3_EXCESSIVE_LOAD)


@WIRE_CASES.add("unknown-protocol", "RFC 9220 §3", Need.UDP)
async def _unknown_protocol(stage: Stage) -> None:
    """Extended CONNECT of an unknown protocol is refused with 501."""
    await _refuses(stage, RequestHead(b"CONNECT", b"r", b"https", b"/x", b"no-such-protocol"), 501)


@WIRE_CASES.add("bad-target-port", "RFC 9298 §3.2", Need.UDP)
async def _bad_target_port(stage: Stage) -> None:
    """A target port out of range is refused with 400."""
    path = b"/.well-known/masque/udp/127.0.0.1/70000/"
    await _refuses(stage, RequestHead(b"CONNECT", b"r", b"https", path, b"connect-udp"), 400)


@WIRE_CASES.add("stray-datagram", "RFC 9297 §2.1", Need.UDP)
async def _stray_datagram(stage: Stage) -> None:
    """A datagram for a request that does not exist yet is dropped alone."""
    client = await _connect(stage)
    client.link.send_datagrams(encode_varint(1000) + b"\x00", b"for nobody", 10)
    await _goes_on(stage)


@WIRE_CASES.add("short-datagram", "RFC 9297 §2.1", Need.UDP)
async def _short_datagram(stage: Stage) -> None:
    """A DATAGRAM frame too short for its quarter stream id is an error of the connection."""
    client = await _connect(stage)
    client.link.send_datagrams(b"\x40", b"", 1)
    await _closes(stage, ErrorCode.H3_DATAGRAM_ERROR)


@WIRE_CASES.add("cut-capsule", "RFC 9297 §3.3", Need.UDP)
async def _cut_capsule(stage: Stage) -> None:
    """A tunnel that ends inside of a capsule is malformed, and ends alone."""
    client = await _connect(stage)
    tunnel = await stage.open(Kind.UDP)
    stream = client.streams[tunnel]
    client.send_content(stream, b"\x00\x20only a part", fin=True)
    await stage.driver.wait_end(tunnel)
    stage.should(stream.reset is not None, "it came to a clean end")
    await _goes_on(stage)
