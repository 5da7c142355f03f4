"""Well-formed heads, and all the ways to be malformed (RFC 9114 §4.2 to §4.5, RFC 8441 §4, RFC 9220 §3)."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import ErrorCode, LimitExceeded, LocalMisuse, Malformed, Reach
from masque.h3.headers import (
    check_section_size,
    encode_request,
    encode_response,
    parse_content_length,
    parse_request,
    parse_response,
    parse_trailers,
)
from masque.h3.limits import H3Limits
from masque.head import RequestHead, ResponseHead
from tests.masque.h3_wire import CONNECT, CONNECT_HEAD, GET, GET_HEAD, OK, UDP, UDP_HEAD, Lines, refusal

METHOD = (b":method", b"CONNECT")
CONTROLS = [bytes([byte]) for byte in (*range(9), *range(10, 32), 127)]


def without(lines: Lines, name: bytes) -> Lines:
    """Leave out a field."""
    return [line for line in lines if line[0] != name]


def changed(lines: Lines, name: bytes, value: bytes) -> Lines:
    """Give a field another value."""
    return [(name, value) if line[0] == name else line for line in lines]


@pytest.mark.parametrize(("lines", "head"), [(CONNECT, CONNECT_HEAD), (GET, GET_HEAD), (UDP, UDP_HEAD)])
def test_requests(lines: Lines, head: RequestHead) -> None:
    assert parse_request(lines) == head
    assert parse_request(list(reversed(lines))) == head
    assert sorted(encode_request(head)) == sorted(lines)


def test_fields_keep_their_order_and_their_repeats() -> None:
    fields = [(b"b", b"1"), (b"a", b""), (b"b", b"2\t3"), (b"te", b"trailers"), (b"x", b"\xff")]
    assert parse_request(CONNECT + fields).fields == tuple(fields)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        GET[1:],
        without(GET, b":scheme"),
        without(GET, b":path"),
        without(GET, b":authority"),
        changed(GET, b":path", b""),
        changed(GET, b":authority", b""),
        changed(GET, b":scheme", b""),
        changed(GET, b":scheme", b"1http"),
        changed(GET, b":method", b""),
        changed(GET, b":method", b"GE T"),
        changed(GET, b":path", b"/a b"),
        changed(GET, b":path", b"/\xe4"),
        changed(GET, b":path", b"/\r"),
        changed(GET, b":authority", b"user@relay.example"),
        [*GET, (b"host", b"other.example")],
        [*GET, (b"host", b"relay.example"), (b"host", b"other.example")],
        [*without(GET, b":authority"), (b"host", b"")],
        [*without(GET, b":authority"), (b"host", b"a"), (b"host", b"b")],
        [*GET, (b":protocol", b"connect-udp")],
        [*GET, (b":status", b"200")],
        [*GET, (b":unknown", b"x")],
        [*GET, (b":", b"x")],
        [*GET, (b":path", b"/")],
        [*GET, (b":method", b"GET")],
        [*GET[:3], (b"x", b"y"), GET[3]],
        [METHOD],
        [*CONNECT, (b":scheme", b"https")],
        [*CONNECT, (b":path", b"/")],
        [*CONNECT, (b":scheme", b"https"), (b":path", b"/")],
        changed(CONNECT, b":authority", b""),
        changed(CONNECT, b":method", b"connect"),
        without(UDP, b":scheme"),
        without(UDP, b":path"),
        without(UDP, b":authority"),
        changed(UDP, b":protocol", b""),
        changed(UDP, b":protocol", b"connect udp"),
        changed(UDP, b":path", b""),
        changed(UDP, b":authority", b"user@relay.example"),
        [METHOD, *UDP[2:], (b"proxy-authorization", b"Basic x"), (b":protocol", b"connect-udp")],
    ],
)
def test_malformed_requests(lines: Lines) -> None:
    with pytest.raises(Malformed) as caught:
        parse_request(lines)
    assert (caught.value.code, caught.value.reach) == (ErrorCode.H3_MESSAGE_ERROR, Reach.STREAM)


@pytest.mark.parametrize(
    "field",
    [
        (b"Upper", b"x"),
        (b"", b"x"),
        (b"a b", b"x"),
        (b"a:", b"x"),
        (b"a\x00", b"x"),
        (b"\xe4", b"x"),
        (b"a\n", b"x"),
        (b"a", b" x"),
        (b"a", b"x "),
        (b"a", b"\tx"),
        (b"a", b"x\t"),
        (b"a", b" "),
        (b"a", b"x\n"),
        *((b"a", b"x" + control + b"y") for control in CONTROLS),
        (b"connection", b"close"),
        (b"keep-alive", b"1"),
        (b"proxy-connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"connect-udp"),
        (b"te", b"gzip"),
        (b"te", b"trailers, gzip"),
    ],
)
def test_malformed_fields_anywhere(field: tuple[bytes, bytes]) -> None:
    for parse, lines in ((parse_request, CONNECT), (parse_response, OK), (parse_trailers, [])):
        with pytest.raises(Malformed) as caught:
            parse([*lines, field])
        assert (caught.value.code, caught.value.reach) == (ErrorCode.H3_MESSAGE_ERROR, Reach.STREAM)


def test_host_may_stand_for_the_authority() -> None:
    assert parse_request([*without(GET, b":authority"), (b"host", b"relay.example")]).authority is None
    assert parse_request([*GET, (b"host", b"Relay.Example")]).authority == b"relay.example"


def test_other_schemes_need_no_authority() -> None:
    lines = changed(without(GET, b":authority"), b":scheme", b"coap")
    assert parse_request(lines).scheme == b"coap"


@pytest.mark.parametrize("status", [b"100", b"103", b"200", b"299", b"404", b"599"])
def test_responses(status: bytes) -> None:
    head = parse_response([(b":status", status), (b"x", b"y")])
    assert head == ResponseHead(int(status), ((b"x", b"y"),))
    assert encode_response(head) == [(b":status", status), (b"x", b"y")]


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [(b"x", b"y")],
        [(b":status", b"")],
        [(b":status", b"20")],
        [(b":status", b"0200")],
        [(b":status", b"099")],
        [(b":status", b"600")],
        [(b":status", b"2x0")],
        [(b":status", b"+20")],
        [(b":status", b"200\n")],
        [(b":status", b"101")],
        [(b":status", b"200"), (b":status", b"200")],
        [(b":status", b"200"), (b":method", b"GET")],
        [(b"x", b"y"), (b":status", b"200")],
    ],
)
def test_malformed_responses(lines: Lines) -> None:
    with pytest.raises(Malformed) as caught:
        parse_response(lines)
    assert (caught.value.code, caught.value.reach) == (ErrorCode.H3_MESSAGE_ERROR, Reach.STREAM)


def test_trailers() -> None:
    assert parse_trailers([(b"a", b"b")]) == ((b"a", b"b"),)
    for name in (b":status", b":path", b":x"):
        with pytest.raises(Malformed):
            parse_trailers([(name, b"200")])


def test_content_length() -> None:
    assert parse_content_length(()) is None
    assert parse_content_length(((b"content-length", b"0"),)) == 0
    assert parse_content_length(((b"content-length", b"12"), (b"content-length", b"12"))) == 12
    for values in ([b""], [b"-1"], [b"+1"], [b"1, 1"], [b"x"], [b"1", b"2"], [b"9" * 5000], [b"\xb2"]):
        with pytest.raises(Malformed):
            parse_content_length(tuple((b"content-length", value) for value in values))


def test_section_size_counts_32_a_line() -> None:
    limits = H3Limits(field_section=100, fields=2)
    check_section_size([(b"a" * 10, b"b" * 26), (b"", b"")], limits)
    for lines in ([(b"a" * 10, b"b" * 27), (b"", b"")], [(b"a", b"b")] * 3):
        with pytest.raises(LimitExceeded) as caught:
            check_section_size(lines, limits)
        assert (caught.value.code, caught.value.reach) == (ErrorCode.H3_EXCESSIVE_LOAD, Reach.STREAM)


@pytest.mark.parametrize(
    "head",
    [
        RequestHead(b"CONNECT"),
        RequestHead(b"CONNECT", authority=b"a:1", path=b"/"),
        RequestHead(b"GET", authority=b"a", scheme=b"https", path=b"/", fields=((b"Upper", b"x"),)),
        RequestHead(b"GET", authority=b"a", scheme=b"https", path=b"/", fields=((b"a", b"x\r\ny: z"),)),
        RequestHead(b"GET", authority=b"a", scheme=b"https", path=b"/", fields=((b":path", b"/"),)),
    ],
)
def test_our_own_malformed_requests(head: RequestHead) -> None:
    with pytest.raises(LocalMisuse):
        encode_request(head)


@pytest.mark.parametrize("head", [ResponseHead(99), ResponseHead(101), ResponseHead(200, ((b"a", b"\n"),))])
def test_our_own_malformed_responses(head: ResponseHead) -> None:
    with pytest.raises(LocalMisuse):
        encode_response(head)


NAMES = st.sampled_from([b":method", b":path", b":scheme", b":authority", b":protocol", b":status", b"host", b"te"])
VALUES = st.sampled_from([b"CONNECT", b"GET", b"/", b"https", b"200", b"a:1", b"trailers", b""])


@given(st.lists(st.tuples(NAMES | st.binary(max_size=5), VALUES | st.binary(max_size=5)), max_size=8))
def test_any_lines_are_a_head_or_malformed(lines: Lines) -> None:
    for parse in (parse_request, parse_response, parse_trailers):
        error = refusal(partial(parse, lines))
        assert error is None or isinstance(error, Malformed)
        assert error is None or (error.code, error.reach) == (ErrorCode.H3_MESSAGE_ERROR, Reach.STREAM)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6))
def test_what_was_parsed_can_be_sent(lines: Lines) -> None:
    try:
        head = parse_request(lines)
    except Malformed:
        return
    assert parse_request(encode_request(head)) == head
