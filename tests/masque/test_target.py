"""Targets: what is a host, what is a port, and above all what is not."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from masque.errors import LocalMisuse, RequestRejected
from masque.target import (
    Target,
    build_target,
    encode_authority,
    parse_authority,
    parse_host,
    parse_port,
    parse_target,
)
from tests.masque.outcomes import attempt
from tests.masque.targets import HOSTS, PORTS

NAMES = [
    ("example.com", "example.com"),
    ("EXAMPLE.Com.", "example.com"),
    ("localhost", "localhost"),
    ("a", "a"),
    ("_dns.resolver-1.example", "_dns.resolver-1.example"),
    ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ("r3---sn-abc.example", "r3---sn-abc.example"),
    ("1.2.3.example", "1.2.3.example"),
    ("0xg", "0xg"),
    ("1a", "1a"),
    ("a" * 63 + ".example", "a" * 63 + ".example"),
    (".".join(["a" * 63] * 3 + ["b" * 61]), ".".join(["a" * 63] * 3 + ["b" * 61])),
    (".".join(["a" * 63] * 3 + ["b" * 61]) + ".", ".".join(["a" * 63] * 3 + ["b" * 61])),
]

ADDRESSES = [
    ("192.0.2.1", "192.0.2.1"),
    ("0.0.0.0", "0.0.0.0"),
    ("255.255.255.255", "255.255.255.255"),
    ("2001:DB8:0:0::1", "2001:db8::1"),
    ("::", "::"),
    ("::1", "::1"),
    ("::ffff:192.0.2.1", str(IPv6Address("::ffff:192.0.2.1"))),
    ("64:ff9b::192.0.2.33", str(IPv6Address("64:ff9b::c000:221"))),
]

BAD_HOSTS = [
    "", ".", "..", "a..b", ".a", "a..", "a b", "a/b", "a\\b", "a@b", "a?b", "a#b", "a%2fb", "a%00", "%", "*",
    "a\n", "a\x00",
    "\u212a.com", "b\u00fccher.example", "a\u3002com", "a" * 64, "a" * 64 + ".example",
    ".".join(["a" * 63] * 4), "a!b", "a,b", "a'b",
    # what some resolvers take for addresses
    "127.1", "127.0.1", "2130706433", "0", "0x7f.1", "0x7f000001", "0X7F.0X0.0X0.0X1", "0x", "1.2.3.0x",
    "017700000001",
    "0177.0.0.1", "1.2.3.4.5", "256.1.1.1", "1.2.3.4.", "01.2.3.4", "1.2.3.04", "1.2.3", "example.1",
    "example.0xff", "a.1.",
    "\u0661.2.3.4", " 1.2.3.4", "1.2.3.4 ", "1.2.3.4\n", "1.2.3.4/32",
    # IPv6 that is none, or not here
    ":", ":::", "::1%eth0", "fe80::1%25eth0", "fe80::1%1", "[::1]", "::1]", "1::2::3", "::12345", "::1/128",
    "::ffff:127.1",
    "::1 ", "1:2:3:4:5:6:7:8:9", "v1.x:y", "example.com:80",
]  # fmt: skip

BAD_PORTS = [
    "",
    "0",
    "00000",
    "65536",
    "99999",
    "-1",
    "+1",
    " 1",
    "1 ",
    "1\n",
    "0x50",
    "1_0",
    "8.0",
    "http",
    "000443",
    "\u0661",
    "\u00b2",
    "*",
    "9" * 5000,
]

BAD_AUTHORITIES = [
    b"", b":", b"host", b"host:", b":80", b"host:0", b"host:65536", b"host:+80", b"host: 80", b"host:80 ",
    b"host:80/", b"host:80:80",
    b"user@host:80", b"user:password@host:80", b"::1:80", b"2001:db8::1:443", b"[::1]", b"[::1]:", b"[::1]80",
    b"[::1:80", b"::1]:80",
    b"[]:80", b"[192.0.2.1]:80", b"[example.com]:80", b"[v1.x]:80", b"[fe80::1%25eth0]:80",
    b"[fe80::1%eth0]:80", b"[[::1]]:80", b"h\xc3\xb6st:80", b"\xff:80",
    b"http://host:80", b"host%2e:80", b"127.1:80", b"host\x00:80", b"*:80", b"host:*",
]  # fmt: skip


@pytest.mark.parametrize(("text", "host"), NAMES)
def test_names(text: str, host: str) -> None:
    assert parse_host(text) == (host, None)
    assert parse_authority(f"{text}:443".encode()) == Target(host, 443)


@pytest.mark.parametrize(("text", "host"), ADDRESSES)
def test_addresses(text: str, host: str) -> None:
    address = ip_address(text)
    assert parse_host(text) == (host, address)
    authority = f"[{text}]:53" if address.version == 6 else f"{text}:53"
    assert parse_authority(authority.encode()) == Target(host, 53, address)


def test_a_mapped_address_stays_an_ipv6_address() -> None:
    """Policy must see it as the client gave it."""
    assert isinstance(parse_host("::ffff:127.0.0.1")[1], IPv6Address)
    assert isinstance(parse_host("127.0.0.1")[1], IPv4Address)


@pytest.mark.parametrize("text", BAD_HOSTS)
def test_bad_hosts(text: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        parse_host(text)
    assert caught.value.status == 400
    assert text not in caught.value.detail or len(text) < 3
    with pytest.raises(LocalMisuse):
        build_target(text, 80)


@pytest.mark.parametrize(("text", "port"), [("1", 1), ("443", 443), ("65535", 65535), ("00080", 80)])
def test_ports(text: str, port: int) -> None:
    assert parse_port(text) == port


@pytest.mark.parametrize("text", BAD_PORTS)
def test_bad_ports(text: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        parse_port(text)
    assert caught.value.status == 400


@pytest.mark.parametrize("port", [-1, 0, 65536, 1 << 40])
def test_own_ports(port: int) -> None:
    with pytest.raises(LocalMisuse):
        build_target("example.com", port)


@pytest.mark.parametrize("authority", BAD_AUTHORITIES)
def test_bad_authorities(authority: bytes) -> None:
    with pytest.raises(RequestRejected) as caught:
        parse_authority(authority)
    assert caught.value.status == 400


@given(HOSTS, PORTS)
@example("::ffff:192.0.2.1", 1)
def test_authority_round_trip(host: str, port: int) -> None:
    target = build_target(host, port)
    assert parse_authority(encode_authority(target)) == target
    assert parse_target(target.host, str(target.port)) == target


@given(st.binary(max_size=40) | st.text("[]:.%0123456789abcdefxv@-", max_size=30).map(str.encode))
@example(b"[::]:1")
def test_any_authority_is_parsed_or_rejected(authority: bytes) -> None:
    target = attempt(lambda: parse_authority(authority))
    if isinstance(target, RequestRejected):
        assert target.status == 400
        return
    assert 1 <= target.port <= 65535
    assert target.host.isascii()
    assert parse_authority(encode_authority(target)) == target


@given(st.text(max_size=40) | st.text(".0123456789xa:%", max_size=20))
def test_any_host_is_parsed_or_rejected(text: str) -> None:
    try:
        host, address = parse_host(text)
    except RequestRejected:
        return
    assert parse_host(host) == (host, address)
    if address is None:
        assert not host.rpartition(".")[2].isdigit()
    else:
        assert host == str(address)
