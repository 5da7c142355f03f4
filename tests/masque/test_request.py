"""The dispatch from a request's head to the kind of tunnel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.connect import ConnectRequest, connect_head
from masque.connect_udp import ConnectUdpRequest, connect_udp_head
from masque.errors import RequestRejected
from masque.head import RequestHead
from masque.request import parse_request
from masque.target import Target
from masque.template import DEFAULT_UDP_TEMPLATE, Template
from tests.masque.outcomes import attempt

UDP = Template(DEFAULT_UDP_TEMPLATE)


def test_both_kinds() -> None:
    target = Target("example.com", 443)
    connect = parse_request(connect_head("example.com", 443), [UDP])
    assert connect == ConnectRequest(target)
    connect_udp = parse_request(connect_udp_head(UDP, b"relay", "example.com", 443), [UDP])
    assert isinstance(connect_udp, ConnectUdpRequest)
    assert connect_udp.target == target


@pytest.mark.parametrize("method", [b"GET", b"POST", b"OPTIONS", b"connect", b"UNKNOWN", b""])
def test_other_methods(method: bytes) -> None:
    with pytest.raises(RequestRejected) as caught:
        parse_request(RequestHead(method, authority=b"relay", scheme=b"https", path=b"/"), [UDP])
    assert caught.value.status == 405


@pytest.mark.parametrize("protocol", [b"websocket", b"connect-ip", b"connect-tcp", b"webtransport", b""])
def test_other_protocols(protocol: bytes) -> None:
    head = RequestHead(b"CONNECT", authority=b"relay", scheme=b"https", path=b"/", protocol=protocol)
    with pytest.raises(RequestRejected) as caught:
        parse_request(head, [UDP])
    assert caught.value.status == 501


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (RequestHead(b"CONNECT", authority=b"no-port"), 400),
        (RequestHead(b"CONNECT", authority=b"r", scheme=b"https", path=b"/x", protocol=b"connect-udp"), 404),
        (RequestHead(b"CONNECT", authority=b"a:1", scheme=b"https", path=b"/x"), 400),
    ],
)
def test_rejections(head: RequestHead, status: int) -> None:
    with pytest.raises(RequestRejected) as caught:
        parse_request(head, [UDP])
    assert caught.value.status == status


OPTIONAL = st.none() | st.binary(max_size=20)


@given(
    st.builds(
        RequestHead,
        method=st.sampled_from([b"CONNECT", b"GET"]) | st.binary(max_size=5),
        authority=OPTIONAL | st.just(b"a:1"),
        scheme=OPTIONAL | st.just(b"https"),
        path=OPTIONAL | st.just(b"/.well-known/masque/udp/h/1/"),
        protocol=OPTIONAL | st.just(b"connect-udp"),
    )
)
def test_any_head_is_parsed_or_rejected(head: RequestHead) -> None:
    request = attempt(lambda: parse_request(head, [UDP]))
    if isinstance(request, RequestRejected):
        assert request.status in (400, 404, 405, 501)
        return
    assert isinstance(request, ConnectRequest) is (head.protocol is None)
