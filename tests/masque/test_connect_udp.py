"""CONNECT-UDP: requests read and made, responses checked."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.connect_udp import (
    CONNECT_UDP,
    ConnectUdpRequest,
    check_connect_udp_response,
    connect_udp_head,
    connect_udp_response_fields,
    parse_connect_udp,
)
from masque.errors import ErrorCode, LocalMisuse, Malformed, Reach, RequestRejected
from masque.fields import CAPSULE_PROTOCOL_TRUE, parse_capsule_protocol
from masque.head import Fields, RequestHead, ResponseHead
from masque.target import Target, build_target
from masque.template import DEFAULT_UDP_TEMPLATE, Template
from tests.masque.outcomes import attempt
from tests.masque.targets import HOSTS, PORTS

UDP = Template(DEFAULT_UDP_TEMPLATE)
QUERY = Template("https://relay.example/masque{?target_host,target_port}")
HEAD = RequestHead(
    b"CONNECT",
    authority=b"localhost",
    scheme=b"https",
    path=b"/.well-known/masque/udp/192.0.2.6/443/",
    protocol=b"connect-udp",
    fields=(CAPSULE_PROTOCOL_TRUE,),
)


def with_path(path: str) -> RequestHead:
    """The request with another path."""
    return replace(HEAD, path=path.encode("latin-1"))


def test_the_example_of_the_rfc() -> None:
    """RFC 9298 §3.4."""
    target = Target("192.0.2.6", 443, ip_address("192.0.2.6"))
    assert parse_connect_udp(HEAD, [UDP]) == ConnectUdpRequest(target, HEAD.fields)


@pytest.mark.parametrize(
    "fields", [(), ((b"capsule-protocol", b"?0"),), (CAPSULE_PROTOCOL_TRUE, CAPSULE_PROTOCOL_TRUE)]
)
def test_the_capsule_protocol_field_is_not_required(fields: Fields) -> None:
    assert parse_connect_udp(replace(HEAD, fields=fields), [UDP]).fields == fields


def test_the_first_template_that_fits() -> None:
    path = "/masque?target_port=53&target_host=example.com"
    assert parse_connect_udp(with_path(path), [UDP, QUERY]).target == Target("example.com", 53)
    assert parse_connect_udp(replace(HEAD, protocol=b"Connect-UDP"), [QUERY, UDP]).target.port == 443


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (replace(HEAD, method=b"GET"), 405),
        (replace(HEAD, protocol=None), 501),
        (replace(HEAD, protocol=b"websocket"), 501),
        (replace(HEAD, scheme=None), 400),
        (replace(HEAD, scheme=b""), 400),
        (replace(HEAD, path=None), 400),
        (replace(HEAD, path=b""), 400),
        (replace(HEAD, authority=None), 400),
        (replace(HEAD, authority=b""), 400),
        (replace(HEAD, fields=((b"content-length", b"0"),)), 400),
        (replace(HEAD, fields=((b"content-type", b"text/plain"),)), 400),
        (replace(HEAD, fields=((b"transfer-encoding", b"chunked"),)), 400),
        (with_path("/"), 404),
        (with_path("/.well-known/masque/udp/192.0.2.6/443"), 404),
        (with_path("/.well-known/masque/tcp/192.0.2.6/443/"), 404),
        (with_path("/.well-known/masque/udp//443/"), 400),
        (with_path("/.well-known/masque/udp/h//"), 400),
        (with_path("/.well-known/masque/udp/h/0/"), 400),
        (with_path("/.well-known/masque/udp/h/65536/"), 400),
        (with_path("/.well-known/masque/udp/h/%2B1/"), 400),
        (with_path("/.well-known/masque/udp/a%2Fb/443/"), 400),
        (with_path("/.well-known/masque/udp/a%252Fb/443/"), 400),
        (with_path("/.well-known/masque/udp/%5B%3A%3A1%5D/443/"), 400),
        (with_path("/.well-known/masque/udp/fe80%3A%3A1%25eth0/443/"), 400),
        (with_path("/.well-known/masque/udp/127.1/443/"), 400),
        (with_path("/.well-known/masque/udp/%32130706433/443/"), 400),
        (with_path("/.well-known/masque/udp/%2A/%2A/"), 400),
        (with_path("/.well-known/masque/udp/h%00/443/"), 400),
        (with_path("/.well-known/masque/udp/h\xff/443/"), 400),
    ],
)
def test_rejections(head: RequestHead, status: int) -> None:
    with pytest.raises(RequestRejected) as caught:
        parse_connect_udp(head, [UDP])
    assert caught.value.status == status


def test_no_template_is_served() -> None:
    with pytest.raises(RequestRejected) as caught:
        parse_connect_udp(HEAD, [])
    assert caught.value.status == 404


def test_the_request_made() -> None:
    fields = ((b"proxy-authorization", b"x"),)
    assert connect_udp_head(UDP, b"relay.example", "2001:db8::1", 443, fields) == RequestHead(
        b"CONNECT",
        authority=b"relay.example",
        scheme=b"https",
        path=b"/.well-known/masque/udp/2001%3Adb8%3A%3A1/443/",
        protocol=CONNECT_UDP,
        fields=((b"capsule-protocol", b"?1"), *fields),
    )


@given(HOSTS, PORTS, st.sampled_from([UDP, QUERY]))
def test_what_is_made_is_read(host: str, port: int, template: Template) -> None:
    head = connect_udp_head(template, b"relay.example", host, port)
    assert parse_connect_udp(head, [UDP, QUERY]) == ConnectUdpRequest(
        build_target(host, port), (CAPSULE_PROTOCOL_TRUE,)
    )


@pytest.mark.parametrize(
    ("authority", "host", "port", "fields"),
    [
        (b"", "h", 1, ()),
        (b"r", "", 1, ()),
        (b"r", "h", 0, ()),
        (b"r", "127.1", 1, ()),
        (b"r", "h", 1, (CAPSULE_PROTOCOL_TRUE,)),
        (b"r", "h", 1, ((b"content-length", b"0"),)),
    ],
)
def test_own_mistakes(authority: bytes, host: str, port: int, fields: Fields) -> None:
    with pytest.raises(LocalMisuse):
        connect_udp_head(UDP, authority, host, port, fields)


def test_a_template_with_other_variables() -> None:
    template = Template("/{target_host}/{target_port}/{tenant}")
    with pytest.raises(LocalMisuse):
        connect_udp_head(template, b"r", "h", 1)


@pytest.mark.parametrize("status", [200, 201, 299])
def test_open(status: int) -> None:
    check_connect_udp_response(ResponseHead(status))
    check_connect_udp_response(ResponseHead(status, connect_udp_response_fields()))


@pytest.mark.parametrize("status", [100, 101, 199, 300, 400, 407, 501, 502])
def test_refused(status: int) -> None:
    with pytest.raises(RequestRejected) as caught:
        check_connect_udp_response(ResponseHead(status, ((b"content-length", b"0"),)))
    assert caught.value.status == status


@pytest.mark.parametrize(
    "head",
    [
        ResponseHead(204),
        ResponseHead(205),
        ResponseHead(206),
        ResponseHead(200, ((b"content-length", b"0"),)),
        ResponseHead(200, ((b"content-type", b"text/plain"),)),
        ResponseHead(200, ((b"transfer-encoding", b"chunked"),)),
    ],
)
def test_a_success_that_excludes_capsules(head: ResponseHead) -> None:
    with pytest.raises(Malformed) as caught:
        check_connect_udp_response(head)
    assert caught.value.reach is Reach.STREAM
    assert caught.value.code is ErrorCode.H3_MESSAGE_ERROR


def test_the_fields_of_a_success() -> None:
    assert parse_capsule_protocol(connect_udp_response_fields())


@given(st.binary(max_size=30), st.binary(max_size=8))
def test_any_values_are_parsed_or_rejected(host: bytes, port: bytes) -> None:
    head = replace(HEAD, path=b"/.well-known/masque/udp/" + host + b"/" + port + b"/")
    request = attempt(lambda: parse_connect_udp(head, [UDP]))
    if isinstance(request, RequestRejected):
        assert request.status in (400, 404)
        return
    assert 1 <= request.target.port <= 65535
