"""Responses are read: aliases, addresses, absence."""

from __future__ import annotations

from ipaddress import ip_address

import dns.edns
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import FailureKind
from relay.resolver import (
    FAILURE_TTL,
    MAX_ALIASES,
    Question,
    Reading,
    joined_reading,
    read_answer,
)
from tests.relay.dns_server import records
from tests.relay.resolver.lab import Lab, failure_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient")]


def chain(length: int) -> list[str]:
    links = [f"n{i}.test. 60 IN CNAME n{i + 1}.test." for i in range(length)]
    return [*links, f"n{length}.test. 30 IN A 192.0.2.7"]


@pytest.mark.parametrize("length", [1, MAX_ALIASES])
async def test_aliases_are_followed_and_listed(lab: Lab, length: int) -> None:
    lab.server.answer("n0.test", records(*reversed(chain(length))))
    found = await (await lab.resolver()).resolve("n0.test")
    assert found.addresses == (ip_address("192.0.2.7"),)
    assert found.aliases == tuple(f"n{i + 1}.test" for i in range(length))


@pytest.mark.parametrize("lines", [chain(MAX_ALIASES + 1), ["n0.test. 60 IN CNAME n0.test."]])
async def test_too_many_aliases(lab: Lab, lines: list[str]) -> None:
    lab.server.answer("n0.test", records(*lines), records(*lines))
    found = await failure_of(await lab.resolver(), "n0.test")
    assert (found.kind, found.rcode) == (FailureKind.DNS_ERROR, None)


async def test_addresses_of_other_names_are_not_taken(lab: Lab) -> None:
    lab.server.answer("www.test", records("evil.test. 60 IN A 192.0.2.66"))
    assert (await failure_of(await lab.resolver(), "www.test")).rcode == "NODATA"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a.test.", "b.test.", "c.test."]),
            st.sampled_from(["A 192.0.2.1", "CNAME a.test.", "CNAME b.test.", "CNAME c.test.", "AAAA 2001:db8::1"]),
        ),
        max_size=6,
    ),
    st.sampled_from(list(dns.rcode.Rcode)),
)
def test_any_response_is_read(lines: list[tuple[str, str]], rcode: dns.rcode.Rcode) -> None:
    question = Question(dns.name.from_text("a.test"), dns.rdatatype.A)
    query = dns.message.make_query(question.name, question.rdtype, use_edns=0)
    reply = records(*(f"{name} 60 IN {value}" for name, value in lines), rcode=rcode)
    answer = read_answer(dns.message.from_wire(reply(query).to_wire()), question)  # type: ignore[union-attr]
    assert bool(answer.addresses) != (answer.failure is not None)
    assert len(answer.aliases) <= MAX_ALIASES
    assert "192.0.2.1" not in repr(answer)


def reading_of(name: str, *lines: str, rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> Reading:
    """Read a response to a question for addresses."""
    question = Question(dns.name.from_text(name), dns.rdatatype.A)
    response = records(*lines, rcode=rcode)(dns.message.make_query(question.name, question.rdtype))
    assert response is not None
    return read_answer(response, question)


@pytest.mark.parametrize("rcode", [dns.rcode.NOERROR, dns.rcode.NXDOMAIN])
def test_an_absence_behind_an_alias_holds_no_longer_than_the_alias(rcode: dns.rcode.Rcode) -> None:
    """The alias may lead somewhere else a moment later."""
    soa = "test. 200 IN SOA ns.test. admin.test. 1 2 3 4 200"
    assert reading_of("b.test", soa, rcode=rcode).ttl == 200
    assert reading_of("a.test", "a.test. 7 IN CNAME b.test.", soa, rcode=rcode).ttl == 7
    part = reading_of("a.test", "a.test. 7 IN CNAME b.test.")
    assert joined_reading(part, reading_of("b.test", soa, rcode=rcode)).ttl == 7
    brief = reading_of("a.test", "a.test. 0 IN CNAME b.test.")
    assert joined_reading(brief, reading_of("b.test", rcode=dns.rcode.SERVFAIL)).ttl == FAILURE_TTL


@pytest.mark.parametrize("ttls", [(7, 60, 90), (90, 7, 60), (60, 90, 7)])
def test_joined_parts_hold_as_long_as_the_shortest(ttls: tuple[int, int, int]) -> None:
    one, two, three = ttls
    parts = (
        reading_of("a.test", f"a.test. {one} IN CNAME b.test."),
        reading_of("b.test", f"b.test. {two} IN CNAME c.test."),
        reading_of("c.test", f"c.test. {three} IN A 192.0.2.1"),
    )
    joined = joined_reading(joined_reading(parts[0], parts[1]), parts[2])
    assert (joined.ttl, joined.aliases) == (7, ("b.test", "c.test"))
