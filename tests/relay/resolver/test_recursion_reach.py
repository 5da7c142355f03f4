"""relay.resolver.recursion: which servers are asked, where it starts, and where an answer ends before its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

import anyio
import dns.message
import dns.rcode
import dns.rrset
import pytest
from dns.rdatatype import RdataType

from masque.target import IPAddress
from relay.resolver import Lookup, Routes
from relay.resolver.recursion import Delegation, Recursor, reach
from relay.resolver.recursion.reach import Reach
from relay.resolver.upstream import Answer, Question
from relay.settings import ResolverSettings
from relay.telemetry import NoMetrics
from tests.relay.resolver.authority import PATIENT, running_hierarchy
from tests.relay.resolver.zones import Zone, name_of

pytestmark = pytest.mark.anyio

ROOT, TEST = "127.0.2.1", "127.0.2.2"
OUTSIDE, INSIDE = ip_address("198.41.0.4"), ip_address("127.0.2.1")
CARRIERS = [
    "64:ff9b::10.0.0.1",
    "64:ff9b::198.41.0.4",
    "64:ff9b:1::10.0.0.1",
    "64:ff9b:1:a00:0:100::",
    "::ffff:10.0.0.1",
    "::10.0.0.1",
    "::ffff:0:10.0.0.1",
    "2002:a00:1::1",
    "2001:0:a00:1::1",
    "2a00::5efe:a00:1",
    "2a00::200:5efe:a00:1",
]


def zones(*lines: str) -> dict[str, Sequence[Zone]]:
    """Return a root and `test`, with more lines."""
    root = Zone(".", ("@ NS ns", f"ns A {ROOT}", "test NS ns.test", f"ns.test A {TEST}"))
    return {ROOT: [root], TEST: [Zone("test", ("@ NS ns", f"ns A {TEST}", "www A 192.0.2.1", *lines))]}


async def ask(recursor: Recursor, name: str, rdtype: RdataType = RdataType.A) -> list[str]:
    """Return an answer's records as lines."""
    answer = await recursor.ask(Question(name_of(name), rdtype), anyio.current_time() + 5)
    return [line for rrset in answer.message.answer for line in rrset.to_text().splitlines()]


@pytest.fixture
def only_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have routes of one family."""

    def has_route(address: IPAddress) -> bool:
        return address.version == 4

    monkeypatch.setattr(reach, "_has_route", has_route)


@pytest.mark.parametrize("text", CARRIERS)
def test_an_address_that_holds_another_is_not_asked(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A translator on the way would turn it into a machine around us."""
    monkeypatch.setattr(reach, "_has_route", lambda _address: True)
    assert not Reach([OUTSIDE]).may_ask(ip_address(text))
    assert not Reach([OUTSIDE]).may_ask(ip_address("ff0e::1"))
    assert Reach([OUTSIDE]).may_ask(ip_address("2a00::1"))


@pytest.mark.usefixtures("only_ipv4")
def test_families_without_a_route_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    found = Reach([OUTSIDE], lambda: now)
    assert list(found.types) == [RdataType.A]
    assert not found.may_ask(ip_address("2a00::1"))
    monkeypatch.setattr(reach, "_has_route", lambda _address: True)
    assert list(found.types) == [RdataType.A]
    now = 31.0
    assert list(found.types) == [RdataType.A, RdataType.AAAA]
    monkeypatch.setattr(reach, "_has_route", lambda _address: False)
    now = 62.0
    assert list(found.types) == [RdataType.A, RdataType.AAAA]  # nothing is known


@pytest.mark.usefixtures("only_ipv4")
async def test_addresses_of_a_family_without_a_route_cost_nothing() -> None:
    async with running_hierarchy(zones()) as hierarchy:
        recursor = Recursor(hierarchy.hints, port=hierarchy.port, limits=replace(PATIENT, attempts=1))
        addresses = (*(ip_address(f"2001:db8::{number}") for number in range(1, 5)), ip_address(TEST))
        delegation = Delegation(name_of("test"), {name_of("ns.test"): addresses})
        for number in range(8):  # servers are drawn: none of these draws may fall on the others
            recursor._delegations.put(delegation, anyio.current_time())
            assert await ask(recursor, f"n{number}.test") == []
        assert hierarchy.queries == 8


@pytest.mark.parametrize("rcode", [dns.rcode.REFUSED, dns.rcode.SERVFAIL])
async def test_the_hints_do_when_no_root_server_says_who_they_are(rcode: dns.rcode.Rcode) -> None:
    def refuse(response: dns.message.Message) -> dns.message.Message:
        if response.question[0].rdtype == RdataType.NS:
            response.set_rcode(rcode)
        return response

    async with running_hierarchy(zones()) as hierarchy:
        recursor = hierarchy.recursor()
        hierarchy.servers[ROOT].change = refuse
        for _ in range(2):
            assert await ask(recursor, "www.test") == ["www.test. 300 IN A 192.0.2.1"]
        assert hierarchy.servers[ROOT].asked[".", "NS"] == 1


async def test_a_list_of_root_servers_that_may_not_be_asked_is_not_taken() -> None:
    def mislead(response: dns.message.Message) -> dns.message.Message:
        if response.question[0].rdtype == RdataType.NS:
            response.additional = [dns.rrset.from_text("ns.", 300, "IN", "A", "224.0.0.1")]
        return response

    async with running_hierarchy(zones()) as hierarchy:
        hierarchy.servers[ROOT].change = mislead
        assert await ask(hierarchy.recursor(), "www.test") == ["www.test. 300 IN A 192.0.2.1"]


class Corporate:
    """The upstream of a domain."""

    async def ask(self, question: Question, deadline: float) -> Answer:
        """Answer with an address of one's own."""
        response = dns.message.make_response(dns.message.make_query(question.name, question.rdtype))
        response.answer = [dns.rrset.from_text(question.name, 60, "IN", question.rdtype, "10.0.0.7")]
        return Answer(response)


@pytest.mark.parametrize("says_all", [False, True])
@pytest.mark.parametrize("name", ["alias.test", "far.test", "renamed.old.test", "x.wild.test"])
async def test_an_alias_into_a_domain_with_a_route_is_left_to_the_route(name: str, says_all: bool) -> None:
    """Whatever the public zone says of the domain, and whether it says so at once or when asked."""
    lines = (
        *("alias CNAME in.corp", "in.corp A 192.0.2.66", "far CNAME near", "near CNAME in.corp"),
        *("old DNAME corp", "renamed.corp A 192.0.2.66", "*.wild CNAME none.corp"),
    )

    def say_all(response: dns.message.Message) -> dns.message.Message:
        if response.answer and says_all:
            response.answer.append(dns.rrset.from_text("in.corp.test.", 60, "IN", "A", "192.0.2.66"))
        return response

    async with running_hierarchy(zones(*lines)) as hierarchy, anyio.create_task_group() as group:
        hierarchy.servers[TEST].change = say_all
        routed = [name_of("corp.test")]
        recursor = Recursor(hierarchy.hints, port=hierarchy.port, limits=PATIENT, routed=routed)
        found = await ask(recursor, name)
        assert found
        assert not any("192.0.2.66" in line or line.startswith("in.corp") for line in found)
        routes = Routes({"corp.test": Corporate()}, recursor)
        lookup = Lookup(ResolverSettings(), routes, group, NoMetrics(), time.monotonic)
        reading = await lookup.find((name, RdataType.A, None))
        assert [str(address) for address in reading.addresses] == ["10.0.0.7"]
        assert all("corp" not in asked for server in hierarchy.servers.values() for asked, _ in server.asked)
        assert (await ask(recursor, "alias.test", RdataType.CNAME))[0].endswith("CNAME in.corp.test.")
