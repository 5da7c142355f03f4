"""The Proxy-Status field: the error types, encoding, decoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import LocalMisuse, Malformed, Reach
from masque.proxy_status import ProxyErrorType, ProxyStatus, encode_proxy_status, parse_proxy_status

STATUSES = {
    400: ["http_request_error"],
    403: ["http_request_denied"],
    500: ["destination_not_found", "proxy_internal_response", "proxy_internal_error", "proxy_configuration_error"],
    502: [
        "dns_error", "destination_ip_prohibited", "destination_ip_unroutable", "connection_refused",
        "connection_terminated",
        "tls_protocol_error", "tls_certificate_error", "tls_alert_received", "http_response_incomplete",
        "http_response_header_section_size", "http_response_header_size", "http_response_body_size",
        "http_response_trailer_section_size", "http_response_trailer_size", "http_response_transfer_coding",
        "http_response_content_coding", "http_upgrade_failed", "http_protocol_error", "proxy_loop_detected",
    ],
    503: ["destination_unavailable", "connection_limit_reached"],
    504: [
        "dns_timeout", "connection_timeout", "connection_read_timeout", "connection_write_timeout",
        "http_response_timeout",
    ],
}  # fmt: skip

PRINTABLE = st.text([chr(code) for code in range(0x20, 0x7F)], max_size=20)
NUMBERS = st.integers(-999_999_999_999_999, 999_999_999_999_999)
MEMBERS = st.builds(
    ProxyStatus,
    identity=PRINTABLE,
    error=st.none() | st.sampled_from(ProxyErrorType),
    next_hop=st.none() | PRINTABLE,
    received_status=st.none() | NUMBERS,
    details=st.none() | PRINTABLE,
    rcode=st.none() | PRINTABLE,
    info_code=st.none() | NUMBERS,
)


def test_every_error_type_of_the_rfc() -> None:
    expected = {token: status for status, tokens in STATUSES.items() for token in tokens}
    assert {error.value: error.recommended_status for error in ProxyErrorType} == expected
    assert len(ProxyErrorType) == 32
    assert all(error.name == error.value.upper() for error in ProxyErrorType)
    assert ProxyErrorType("dns_error") is ProxyErrorType.DNS_ERROR


@pytest.mark.parametrize(
    ("status", "value"),
    [
        (ProxyStatus("relay"), b"relay"),
        (ProxyStatus("Example Relay"), b'"Example Relay"'),
        (ProxyStatus(""), b'""'),
        (ProxyStatus("7relay"), b'"7relay"'),
        (ProxyStatus("relay", ProxyErrorType.CONNECTION_TIMEOUT), b"relay;error=connection_timeout"),
        (
            ProxyStatus("relay", ProxyErrorType.DNS_ERROR, rcode="NXDOMAIN", info_code=22),
            b'relay;error=dns_error;rcode="NXDOMAIN";info-code=22',
        ),
        (ProxyStatus("relay", next_hop="[2001:db8::1]:443"), b'relay;next-hop="[2001:db8::1]:443"'),
        (
            ProxyStatus("relay", received_status=200, details='a "b" \\'),
            b'relay;received-status=200;details="a \\"b\\" \\\\"',
        ),
        (ProxyStatus("relay", error_token="new_error"), b"relay;error=new_error"),
        (
            ProxyStatus("relay", next_hop_aliases=("tracker.example.com", "service1.example.com")),
            b'relay;next-hop-aliases="tracker.example.com,service1.example.com"',
        ),
        (ProxyStatus("relay", next_hop_aliases=()), b'relay;next-hop-aliases=""'),
        (
            ProxyStatus(
                "relay",
                next_hop_aliases=(
                    "comma,name.example",
                    "dot\\.label.example",
                    "backslash\\\\name.example",
                    "\xe9\x00",
                ),
            ),
            b'relay;next-hop-aliases="comma%2Cname.example,dot%5C.label.example,backslash%5C%5Cname.example,%E9%00"',
        ),
    ],
)
def test_both_ways(status: ProxyStatus, value: bytes) -> None:
    assert encode_proxy_status(status) == value
    assert parse_proxy_status(value) == [status]


@pytest.mark.parametrize(
    "status",
    [
        ProxyStatus("re\nlay"),
        ProxyStatus("r\u00e9lay"),
        ProxyStatus("relay", details="line\r\nset-cookie: x"),
        ProxyStatus("relay", details="\x7f"),
        ProxyStatus("relay", next_hop="\u00fc"),
        ProxyStatus("relay", rcode="\x00"),
        ProxyStatus("relay", error_token=""),
        ProxyStatus("relay", error_token="two words"),
        ProxyStatus("relay", received_status=10**15),
        ProxyStatus("relay", next_hop_aliases=("\u0161",)),
    ],
)
def test_not_representable(status: ProxyStatus) -> None:
    with pytest.raises(LocalMisuse):
        encode_proxy_status(status)


def test_several_members() -> None:
    value = b'target-side; error=connection_refused , "client side";received-status=502;details="x"'
    assert parse_proxy_status(value) == [
        ProxyStatus("target-side", ProxyErrorType.CONNECTION_REFUSED),
        ProxyStatus("client side", received_status=502, details="x"),
    ]
    assert parse_proxy_status(b"") == []


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b"a;error=unknown_here", ProxyStatus("a", error_token="unknown_here")),
        (b'a;error="dns_error"', ProxyStatus("a", ProxyErrorType.DNS_ERROR)),
        (b'a;error="two words"', ProxyStatus("a")),
        (b"a;error=502;next-hop=1;received-status=x;details=?1;rcode=:YQ==:;info-code=1.5", ProxyStatus("a")),
        (b"a;received-status;info-code=?0;details", ProxyStatus("a")),
        (b"a;next-hop=b.example;details=token", ProxyStatus("a", next_hop="b.example", details="token")),
        (b"a;next-protocol=h2;x=1;next-hop-aliases=7", ProxyStatus("a")),
        (b'a;next-hop-aliases="b%zz,%"', ProxyStatus("a", next_hop_aliases=("b%zz", "%"))),
    ],
)
def test_lenient_decoding(value: bytes, status: ProxyStatus) -> None:
    assert parse_proxy_status(value) == [status]


@pytest.mark.parametrize(
    "value",
    [
        b"a;",
        b"a,",
        b",a",
        b"a b",
        b'"a',
        b"1",
        b"?1",
        b"(a b)",
        b"()",
        b"(a);error=dns_error",
        b"@1",
        b'%"a"',
        b":YQ==:",
        b"\xff",
        b"a;E=1",
    ],
)
def test_malformed(value: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        parse_proxy_status(value)
    assert caught.value.reach is Reach.STREAM


@given(st.lists(MEMBERS, min_size=1, max_size=3))
def test_round_trip(members: list[ProxyStatus]) -> None:
    value = b", ".join(encode_proxy_status(member) for member in members)
    assert value.isascii()
    assert parse_proxy_status(value) == members


@given(st.binary(max_size=40) | st.text('ab;=",()?1.:@%\\ error-', max_size=40).map(str.encode))
def test_any_value_is_parsed_or_malformed(value: bytes) -> None:
    try:
        members = parse_proxy_status(value)
    except Malformed:
        return
    assert [parse_proxy_status(encode_proxy_status(member)) for member in members] == [[member] for member in members]
