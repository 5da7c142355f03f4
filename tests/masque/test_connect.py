"""Classic CONNECT: requests read and made, responses checked."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given

from masque.connect import ConnectRequest, check_connect_response, connect_head, parse_connect
from masque.errors import LocalMisuse, RequestRejected
from masque.head import RequestHead, ResponseHead
from masque.target import Target, build_target
from tests.masque.targets import HOSTS, PORTS


def test_a_request() -> None:
    fields = ((b"proxy-authorization", b"x"), (b"content-length", b"0"))
    head = RequestHead(b"CONNECT", authority=b"Example.com:443", fields=fields)
    assert parse_connect(head) == ConnectRequest(Target("example.com", 443), fields)


def test_a_request_for_ipv6() -> None:
    head = connect_head("2001:DB8::1", 80)
    assert head == RequestHead(b"CONNECT", authority=b"[2001:db8::1]:80")
    assert parse_connect(head).target == Target("2001:db8::1", 80, ip_address("2001:db8::1"))


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (RequestHead(b"GET", authority=b"a:1", scheme=b"https", path=b"/"), 405),
        (RequestHead(b"connect", authority=b"a:1"), 405),
        (RequestHead(b"CONNECT"), 400),
        (RequestHead(b"CONNECT", authority=b""), 400),
        (RequestHead(b"CONNECT", authority=b"a"), 400),
        (RequestHead(b"CONNECT", authority=b"a:0"), 400),
        (RequestHead(b"CONNECT", authority=b"a:1", path=b"/"), 400),
        (RequestHead(b"CONNECT", authority=b"a:1", scheme=b"https"), 400),
        (RequestHead(b"CONNECT", authority=b"a:1", protocol=b"connect-udp"), 400),
    ],
)
def test_rejections(head: RequestHead, status: int) -> None:
    with pytest.raises(RequestRejected) as caught:
        parse_connect(head)
    assert caught.value.status == status


def test_own_mistakes() -> None:
    with pytest.raises(LocalMisuse):
        connect_head("a b", 1)
    with pytest.raises(LocalMisuse):
        connect_head("a", 0)


@given(HOSTS, PORTS)
def test_what_is_made_is_read(host: str, port: int) -> None:
    fields = ((b"x", b"y"),)
    assert parse_connect(connect_head(host, port, fields)) == ConnectRequest(build_target(host, port), fields)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_open(status: int) -> None:
    check_connect_response(ResponseHead(status, ((b"content-length", b"5"),)))


@pytest.mark.parametrize("status", [100, 103, 199, 300, 302, 400, 407, 502, 599])
def test_refused(status: int) -> None:
    with pytest.raises(RequestRejected) as caught:
        check_connect_response(ResponseHead(status))
    assert caught.value.status == status
