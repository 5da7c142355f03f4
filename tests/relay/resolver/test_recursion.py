"""relay.resolver.recursion: a hierarchy of servers asked from the root down, and what each question costs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import anyio
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest
from dns.rdatatype import RdataType

from relay.errors import Failure, FailureKind, RelayError
from relay.resolver.recursion import RecursionLimits, Recursor
from relay.resolver.upstream import Answer, Question
from tests.relay.resolver.authority import PATIENT, Authority, Hierarchy, running_hierarchy
from tests.relay.resolver.zones import Zone, name_of

pytestmark = pytest.mark.anyio

ROOT, TEST, EXAMPLE, OTHER = "127.0.2.1", "127.0.2.2", "127.0.2.3", "127.0.2.4"


@dataclass
class Lab:
    """Servers and a resolver that starts at the first of them."""

    hierarchy: Hierarchy
    recursor: Recursor

    def server(self, address: str) -> Authority:
        """Return the server at an address."""
        return self.hierarchy.servers[address]

    async def ask(self, name: str, rdtype: RdataType = RdataType.A, *, within: float = 5) -> Answer:
        """Ask the resolver."""
        return await self.recursor.ask(Question(name_of(name), rdtype), anyio.current_time() + within)

    async def failure(self, name: str, rdtype: RdataType = RdataType.A, *, within: float = 5) -> Failure:
        """Ask the resolver for something that it cannot find out."""
        with pytest.raises(RelayError) as caught:
            await self.ask(name, rdtype, within=within)
        return caught.value.failure


def hierarchy_of(**more: str) -> dict[str, list[Zone]]:
    """Return a root, `test` and `example.test`; `more` are lines of the three, joined by `;`."""
    lines = {zone: tuple(text.split(";")) if text else () for zone, text in more.items()}
    root = Zone(".", ("@ NS ns", f"ns A {ROOT}", "test NS ns.test", f"ns.test A {TEST}", *lines.get("root", ())))
    example = ("@ NS ns", f"ns A {EXAMPLE}", "www A 192.0.2.1")
    below = ("@ NS ns", f"ns A {TEST}", "example NS ns.example", f"ns.example A {EXAMPLE}")
    return {
        ROOT: [root],
        TEST: [Zone("test", (*below, *lines.get("test", ())))],
        EXAMPLE: [Zone("example.test", (*example, *lines.get("example", ())))],
    }


@asynccontextmanager
async def running_lab(zones: Mapping[str, Sequence[Zone]], limits: RecursionLimits = PATIENT) -> AsyncIterator[Lab]:
    """Run the servers of some zones."""
    async with running_hierarchy(zones) as hierarchy:
        yield Lab(hierarchy, Recursor(hierarchy.hints, port=hierarchy.port, limits=limits))


def texts(answer: Answer) -> list[str]:
    """Return an answer's records as lines."""
    return [line for rrset in answer.message.answer for line in rrset.to_text().splitlines()]


def far_zones() -> dict[str, list[Zone]]:
    """Return a hierarchy with `far.test`, whose server is named below another top-level domain."""
    zones = hierarchy_of(test="far NS ns.elsewhere.", root=f"elsewhere NS ns.elsewhere;ns.elsewhere A {OTHER}")
    far = Zone("far.test", ("@ NS ns.elsewhere.", "www A 192.0.2.4"))
    zones[OTHER] = [Zone("elsewhere", ("@ NS ns", f"ns A {OTHER}")), far]
    return zones


async def test_from_the_root_down_each_server_sees_one_label_more() -> None:
    async with running_lab(hierarchy_of()) as lab:
        answer = await lab.ask("www.example.test")
        assert texts(answer) == ["www.example.test. 300 IN A 192.0.2.1"]
        assert lab.server(ROOT).asked == {(".", "NS"): 1, ("test", "A"): 1}
        assert lab.server(TEST).asked == {("example.test", "A"): 1}
        assert lab.server(EXAMPLE).asked == {("www.example.test", "A"): 1}


async def test_delegations_are_remembered() -> None:
    async with running_lab(hierarchy_of()) as lab:
        await lab.ask("www.example.test")
        await lab.ask("none.example.test")
        assert lab.server(ROOT).asked.total() == 2
        assert lab.server(TEST).asked.total() == 1


async def test_absence() -> None:
    async with running_lab(hierarchy_of()) as lab:
        assert (await lab.ask("none.example.test")).message.rcode() == dns.rcode.NXDOMAIN
        answer = await lab.ask("www.example.test", RdataType.AAAA)
        assert (answer.message.rcode(), answer.message.answer) == (dns.rcode.NOERROR, [])
        assert [rrset.rdtype for rrset in answer.message.authority] == [RdataType.SOA]


async def test_a_long_name_takes_few_queries() -> None:
    name = ".".join("abcdefghijklmnopqrstuvwxyz") + ".example.test"
    async with running_lab(hierarchy_of(example=f"{name}. A 192.0.2.9")) as lab:
        assert texts(await lab.ask(name)) == [f"{name}. 300 IN A 192.0.2.9"]
        assert lab.server(EXAMPLE).asked.total() == 10


async def test_aliases_across_zones() -> None:
    zones = hierarchy_of(
        example="alias CNAME www;out CNAME www.other.test.", test=f"other NS ns.other;ns.other A {OTHER}"
    )
    zones[OTHER] = [Zone("other.test", ("@ NS ns", f"ns A {OTHER}", "www A 192.0.2.2"))]
    async with running_lab(zones) as lab:
        assert texts(await lab.ask("alias.example.test")) == [
            "alias.example.test. 300 IN CNAME www.example.test.",
            "www.example.test. 300 IN A 192.0.2.1",
        ]
        assert texts(await lab.ask("out.example.test")) == [
            "out.example.test. 300 IN CNAME www.other.test.",
            "www.other.test. 300 IN A 192.0.2.2",
        ]


async def test_a_loop_of_aliases_ends() -> None:
    async with running_lab(hierarchy_of(example="one CNAME two;two CNAME one")) as lab:
        assert (await lab.failure("one.example.test")).rcode == "SERVFAIL"
        assert lab.server(EXAMPLE).asked.total() <= 9


async def test_a_server_without_an_address_is_looked_up() -> None:
    async with running_lab(far_zones()) as lab:
        assert texts(await lab.ask("www.far.test")) == ["www.far.test. 300 IN A 192.0.2.4"]
        assert lab.server(OTHER).asked == {("ns.elsewhere", "A"): 1, ("www.far.test", "A"): 1}


async def test_servers_that_are_named_in_a_circle_are_given_up() -> None:
    zones = hierarchy_of(test="one NS ns.two;two NS ns.one")
    async with running_lab(zones) as lab:
        assert (await lab.failure("www.one.test")).info_code == 22
        assert lab.hierarchy.queries <= 8


async def test_many_servers_without_addresses_cost_little() -> None:
    lines = ";".join(f"victim NS ns{number}.nowhere.example.test." for number in range(100))
    async with running_lab(hierarchy_of(test=lines)) as lab:
        await lab.failure("www.victim.test")
        assert lab.server(EXAMPLE).asked.total() <= 2 * RecursionLimits().server_names  # with one part of each name


async def test_nested_look_ups_share_one_account() -> None:
    """Each zone's servers are in the next zone, none of which gives an address."""
    lines = [f"z{number} NS ns{server}.z{number + 1}" for number in range(30) for server in range(13)]
    async with running_lab(hierarchy_of(test=";".join(lines)), replace(PATIENT, queries=20)) as lab:
        await lab.failure("www.z0.test")
        assert lab.hierarchy.queries <= 20


async def test_addresses_of_others_are_not_taken_from_a_referral() -> None:
    """The server of `test` says where `ns.elsewhere` is; only `elsewhere` may."""
    zones = hierarchy_of(test="far NS ns.elsewhere.", root=f"elsewhere NS ns.elsewhere;ns.elsewhere A {OTHER}")
    zones[OTHER] = [
        Zone("elsewhere", ("@ NS ns", f"ns A {OTHER}")),
        Zone("far.test", ("@ NS ns.elsewhere.", "www A 192.0.2.4")),
    ]

    def lie(response: dns.message.Message) -> dns.message.Message:
        if not response.answer and any(rrset.name == name_of("far.test") for rrset in response.authority):
            response.additional.append(dns.rrset.from_text("ns.elsewhere.", 300, "IN", "A", EXAMPLE))
        return response

    async with running_lab(far_zones()) as lab:
        lab.server(TEST).change = lie
        assert texts(await lab.ask("www.far.test")) == ["www.far.test. 300 IN A 192.0.2.4"]
        assert lab.server(EXAMPLE).asked.total() == 0


async def test_records_of_others_in_an_answer_are_dropped() -> None:
    def lie(response: dns.message.Message) -> dns.message.Message:
        response.answer.append(dns.rrset.from_text("www.bank.test.", 300, "IN", "A", "192.0.2.66"))
        response.authority.append(dns.rrset.from_text("test.", 300, "IN", "NS", "ns.example.test."))
        return response

    async with running_lab(hierarchy_of()) as lab:
        lab.server(EXAMPLE).change = lie
        answer = await lab.ask("www.example.test")
        assert texts(answer) == ["www.example.test. 300 IN A 192.0.2.1"]
        assert answer.message.authority == []
        assert (await lab.ask("www.bank.test")).message.rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize("upward", [".", "test.", "example.test.", "other.test."])
async def test_a_referral_that_does_not_lead_down_is_lame(upward: str) -> None:
    def refer(response: dns.message.Message) -> dns.message.Message:
        referral = dns.message.make_response(dns.message.make_query("www.example.test", "A"))
        referral.id, referral.flags = response.id, dns.flags.QR
        referral.authority.append(dns.rrset.from_text(upward, 300, "IN", "NS", "ns.example.test."))
        referral.additional.append(dns.rrset.from_text("ns.example.test.", 300, "IN", "A", EXAMPLE))
        return referral

    async with running_lab(hierarchy_of()) as lab:
        lab.server(EXAMPLE).change = refer
        assert (await lab.failure("www.example.test")).info_code == 22
        assert lab.server(EXAMPLE).asked.total() == 1


async def test_an_answer_without_authority_is_not_believed() -> None:
    def disclaim(response: dns.message.Message) -> dns.message.Message:
        response.flags &= ~dns.flags.AA
        return response

    async with running_lab(hierarchy_of()) as lab:
        lab.server(EXAMPLE).change = disclaim
        assert (await lab.failure("www.example.test")).rcode == "SERVFAIL"


async def test_a_lame_server_is_passed_over_and_asked_last_from_then_on() -> None:
    zones = hierarchy_of(test=f"example NS lame.example;lame.example A {OTHER}")
    zones[OTHER] = []
    async with running_lab(zones) as lab:
        for number in range(20):
            await lab.ask(f"n{number}.example.test")
        assert lab.server(OTHER).asked.total() <= 1
        assert lab.server(EXAMPLE).asked.total() == 20


async def test_a_silent_server_is_passed_over_and_left_alone() -> None:
    zones = hierarchy_of(test=f"example NS silent.example;silent.example A {OTHER}")
    zones[OTHER] = []
    async with running_lab(zones, replace(PATIENT, first_wait=0.1)) as lab:
        lab.server(OTHER).change = lambda _response: None
        for number in range(20):
            await lab.ask(f"n{number}.example.test")
        assert lab.server(OTHER).asked.total() <= 5  # of twenty; more if a busy machine makes the other one look slow


async def test_when_all_are_silent_the_question_ends_in_time() -> None:
    async with running_lab(hierarchy_of()) as lab:
        lab.server(EXAMPLE).change = lambda _response: None
        with anyio.fail_after(10):
            failure = await lab.failure("www.example.test", within=0.3)
        assert failure.kind is FailureKind.DNS_TIMEOUT
        assert lab.server(EXAMPLE).asked.total() <= 2


async def test_what_is_cut_comes_over_tcp() -> None:
    async with running_lab(hierarchy_of()) as lab:
        lab.server(EXAMPLE).truncates = True
        assert texts(await lab.ask("www.example.test")) == ["www.example.test. 300 IN A 192.0.2.1"]
        assert lab.server(EXAMPLE).asked_by_tcp == 1


async def test_a_server_without_edns_is_asked_without() -> None:
    async with running_lab(hierarchy_of()) as lab:
        lab.server(EXAMPLE).knows_edns = False
        await lab.ask("www.example.test")
        assert lab.server(EXAMPLE).asked.total() == 2
        await lab.ask("none.example.test")
        assert lab.server(EXAMPLE).asked.total() == 3


async def test_errors_with_and_without_edns_do_not_cost_a_server_edns() -> None:
    """Otherwise one name for which a server fails would take the signatures from all the others."""

    def fail(response: dns.message.Message) -> dns.message.Message:
        if response.question[0].name == name_of("bad.example.test"):
            response.use_edns(False)
            response.set_rcode(dns.rcode.FORMERR)
        return response

    async with running_lab(hierarchy_of()) as lab:
        lab.server(EXAMPLE).change = fail
        await lab.failure("bad.example.test")
        lab.server(EXAMPLE).knows_edns = False
        before = lab.server(EXAMPLE).asked.total()
        await lab.ask("www.example.test")
        assert lab.server(EXAMPLE).asked.total() == before + 2  # with EDNS, and without


async def test_other_ids_and_questions_are_not_answers() -> None:
    def lie(response: dns.message.Message) -> dns.message.Message:
        if response.question[0].name == name_of("wrong.example.test"):
            response.question[0].name = name_of("www.example.test")
        else:
            response.id ^= 1
        return response

    async with running_lab(hierarchy_of()) as lab:
        lab.server(EXAMPLE).change = lie
        for name in ("www.example.test", "wrong.example.test"):
            assert (await lab.failure(name, within=0.1)).kind is FailureKind.DNS_TIMEOUT


async def test_a_server_that_fails_at_names_in_between_is_shown_the_whole_name() -> None:
    """Some servers deny empty names, or answer them with errors (RFC 9156 §2.3)."""
    zones = hierarchy_of(example="a.b.c A 192.0.2.5")

    async with running_lab(zones) as lab:
        for rcode in (dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL, dns.rcode.REFUSED):

            def refuse(response: dns.message.Message, rcode: dns.rcode.Rcode = rcode) -> dns.message.Message:
                if response.question[0].name != name_of("a.b.c.example.test"):
                    response.set_rcode(rcode)
                return response

            lab.server(EXAMPLE).change = refuse
            assert texts(await lab.ask("a.b.c.example.test")) == ["a.b.c.example.test. 300 IN A 192.0.2.5"]


async def test_one_refused_name_does_not_cost_a_zone_its_server() -> None:
    def refuse(response: dns.message.Message) -> dns.message.Message:
        if response.question[0].name == name_of("bad.example.test"):
            response.set_rcode(dns.rcode.REFUSED)
        return response

    async with running_lab(hierarchy_of()) as lab:
        lab.server(EXAMPLE).change = refuse
        assert (await lab.failure("bad.example.test")).rcode == "SERVFAIL"
        assert texts(await lab.ask("www.example.test")) == ["www.example.test. 300 IN A 192.0.2.1"]


async def test_ds_is_asked_of_the_parent() -> None:
    zones = hierarchy_of(test="example DS 1 13 2 " + "ab" * 32)
    async with running_lab(zones) as lab:
        await lab.ask("www.example.test")
        answer = await lab.ask("example.test", RdataType.DS)
        assert [rrset.rdtype for rrset in answer.message.answer] == [RdataType.DS]
        assert lab.server(TEST).asked["example.test", "DS"] == 1
        assert lab.server(EXAMPLE).asked["example.test", "DS"] == 0


async def test_many_questions_at_once_prime_once() -> None:
    async with running_lab(hierarchy_of()) as lab, anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(lab.ask, f"n{number}.example.test")
    assert lab.server(ROOT).asked[".", "NS"] == 1
