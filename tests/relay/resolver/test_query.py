"""Queries as bytes, and which responses belong to them."""

from __future__ import annotations

from ipaddress import ip_network

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.resolver import MAX_MESSAGE, CookieJar, Mismatch, Query, Question, Truncated, make_query
from tests.relay.dns_server import records

NAME = dns.name.from_text("www.example.test")
QUESTION = Question(NAME, dns.rdatatype.A)
HTTPS = Question(NAME, dns.rdatatype.HTTPS)


def reply_to(query: Query, ident: int = 0) -> bytes:
    made = records("www.example.test. 60 IN A 192.0.2.1")(dns.message.from_wire(query.with_id(ident)))
    assert made is not None
    return made.to_wire()


def test_what_a_query_says() -> None:
    plain = dns.message.from_wire(make_query(QUESTION).with_id(77))
    assert (plain.id, plain.edns, plain.payload, plain.flags, plain.options) == (
        77,
        0,
        1232,
        dns.flags.RD | dns.flags.AD,
        (),
    )
    asked = Question(NAME, dns.rdatatype.AAAA, do=True, cd=True, ecs=ip_network("2001:db8::/48"))
    full = dns.message.from_wire(make_query(asked, cookies=CookieJar(b"12345678", b"s" * 16)).wire)
    assert full.flags == dns.flags.RD | dns.flags.AD | dns.flags.CD
    assert full.ednsflags == dns.flags.DO
    assert [option.to_text() for option in full.options] == [
        "ECS 2001:db8::/48 scope/0",
        f"COOKIE {b'12345678'.hex()}{(b's' * 16).hex()}",
    ]
    bare = dns.message.from_wire(make_query(asked, has_edns=False, cookies=CookieJar()).wire)
    assert bare.edns == -1


@given(st.lists(st.text("abcxyz", min_size=1, max_size=60), min_size=1, max_size=4))
def test_padded_queries_are_a_multiple_of_128(labels: list[str]) -> None:
    query = make_query(Question(dns.name.from_text(".".join(labels)), dns.rdatatype.A), is_padded=True)
    assert len(query.wire) % 128 == 0


def test_mixed_case_must_come_back() -> None:
    queries = [make_query(QUESTION, is_mixed=True) for _ in range(20)]
    spellings = {dns.message.from_wire(query.wire).question[0].name.to_text() for query in queries}
    assert len(spellings) > 15
    for query in queries:
        query.read(reply_to(query))
        other = make_query(QUESTION)
        if other.wire[12:] != query.wire[12 : len(other.wire)]:
            with pytest.raises(Mismatch):
                query.read(reply_to(other))
    assert make_query(QUESTION).read(reply_to(queries[0])).answer


@pytest.mark.parametrize("length", range(40))
def test_every_prefix_of_a_response(length: int) -> None:
    query = make_query(QUESTION)
    with pytest.raises(dns.exception.DNSException):
        query.read(reply_to(query)[:length])


def test_what_is_no_response() -> None:
    query = make_query(QUESTION)
    good = reply_to(query, 5)
    assert query.read(good, 5).answer
    for at, value in ((0, 1), (1, 4), (2, 0x01), (2, 0xA8), (5, 2), (12, 4), (13, 0x78), (len(query.wire) - 12, 9)):
        with pytest.raises(Mismatch):
            query.read(good[:at] + bytes([value]) + good[at + 1 :], 5)
    with pytest.raises(Mismatch):
        make_query(HTTPS).read(good, 5)
    with pytest.raises(Truncated):
        query.read(good[:2] + bytes([good[2] | 2]) + good[3:], 5)
    with pytest.raises(dns.exception.TooBig):
        query.read(good + bytes(MAX_MESSAGE), 5)


def test_the_type_is_not_compared_as_letters() -> None:
    """65 is HTTPS and a capital A; 97 is a small one."""
    wire = bytearray(make_query(HTTPS).wire)
    wire[12 + len(NAME.to_digestable()) + 1] = 97
    wire[2] |= 0x80
    with pytest.raises(Mismatch):
        make_query(HTTPS).read(bytes(wire))


@pytest.mark.parametrize(("rcode", "is_taken"), [(1, True), (2, True), (4, True), (5, True), (0, False), (3, False)])
def test_an_error_may_lack_the_question(rcode: int, is_taken: bool) -> None:
    bare = bytes([0, 9, 0x81, 0x80 | rcode]) + bytes(8)
    if is_taken:
        assert make_query(QUESTION).read(bare, 9).rcode() == rcode
    else:
        with pytest.raises(Mismatch):
            make_query(QUESTION).read(bare, 9)


@given(st.binary(max_size=200), st.binary(max_size=60), st.integers(0, 300))
def test_any_bytes_are_a_response_or_a_documented_error(tail: bytes, options: bytes, at: int) -> None:
    query = make_query(QUESTION)
    good = reply_to(query)
    opt = b"\0\0\x29\4\xd0\0\0\0\0" + len(options).to_bytes(2, "big") + options
    for wire in (tail, good[:12] + tail, good[:at] + tail + good[at:], good[:11] + b"\1" + good[12:-11] + opt):
        try:
            query.read(wire)
        except dns.exception.DNSException:
            pass


class TestCookies:
    """RFC 7873 §5.3."""

    @staticmethod
    def response(*options: dns.edns.Option) -> dns.message.Message:
        message = dns.message.make_response(dns.message.make_query("x.test", "A", use_edns=0))
        message.use_edns(options=list(options))
        return message

    def test_each_upstream_has_its_own(self) -> None:
        assert CookieJar().client != CookieJar().client
        assert len(CookieJar().option().to_wire() or b"") == 8

    def test_the_servers_part_is_kept(self) -> None:
        jar = CookieJar()
        jar.check(self.response(dns.edns.CookieOption(jar.client, b"t" * 16)), is_tcp=False)
        assert jar.option().to_wire() == jar.client + b"t" * 16
        jar.check(self.response(dns.edns.CookieOption(jar.client, b"u" * 8)), is_tcp=False)
        assert jar.server == b"u" * 8

    def test_a_strange_cookie_is_refused(self) -> None:
        for is_tcp in (False, True):
            with pytest.raises(Mismatch):
                CookieJar().check(self.response(dns.edns.CookieOption(b"forged!!", b"t" * 16)), is_tcp=is_tcp)

    def test_a_missing_cookie_is_refused_once_there_was_one(self) -> None:
        jar = CookieJar()
        jar.check(self.response(), is_tcp=False)
        jar.server = b"t" * 16
        with pytest.raises(Mismatch):
            jar.check(self.response(), is_tcp=False)
        jar.check(self.response(), is_tcp=True)
        assert jar.server == b""
