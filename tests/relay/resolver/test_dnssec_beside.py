"""relay.resolver.dnssec: what stands beside the records that a verdict is about is not believed with them."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import dns.message
import dns.rcode
import dns.rrset
import pytest
from dns.rdatatype import RdataType

from relay.resolver import Reading, read_answer
from relay.resolver.dnssec import ValidatingAsker
from relay.resolver.upstream import Answer, Question
from tests.relay.resolver.judging import Response, on
from tests.relay.resolver.world import World
from tests.relay.resolver.zones import Signing, Zone, name_of

pytestmark = pytest.mark.anyio

SERVICE = "1 . alpn=h3"


class Wire:
    """Asks a world by way of bytes, so that its answers are as parsed ones are."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def ask(self, question: Question, deadline: float) -> Answer:
        """Answer as the world does."""
        message = (await self._world.ask(question, deadline)).message
        return Answer(dns.message.from_wire(message.to_wire(max_size=65535)))


@pytest.fixture(scope="module")
def small() -> World:
    """A root and one signed zone below it."""
    zone = Zone("example.test", ("www A 192.0.2.1", f"www HTTPS {SERVICE}", "alias CNAME www"), Signing())
    root = Zone(".", ("example.test NS ns.example.test.", f"example.test DS {zone.ds()}"), Signing())
    return World([root.sign(), zone.sign()])


async def read(world: World, question: Question, change: Callable[[Response], None]) -> tuple[Answer, Reading]:
    """Validate a changed answer, and read what is left of it."""
    world.tamper = on(question, change)
    answer = await ValidatingAsker(Wire(world), world.anchors).ask(question, anyio.current_time() + 5)
    return answer, read_answer(answer.message, question)


def records(*lines: str) -> list[dns.rrset.RRset]:
    found = []
    for line in lines:
        name, ttl, rdclass, rdtype, value = line.split(maxsplit=4)
        found.append(dns.rrset.from_text(name, int(ttl), rdclass, rdtype, value))
    return found


@pytest.mark.parametrize("name", ["www.example.test", "alias.example.test"])
@pytest.mark.parametrize("rdtype", [RdataType.A, RdataType.HTTPS])
async def test_an_alias_beside_records_leads_nowhere(small: World, name: str, rdtype: RdataType) -> None:
    value = "192.0.2.66" if rdtype == RdataType.A else "1 evil. alpn=h3"
    forged = records("www.example.test. 300 IN CNAME evil.", f"evil. 300 IN {rdtype.name} {value}")
    question = Question(name_of(name), rdtype)
    for place in (0, 99):

        def add(response: Response, at: int = place) -> None:
            response.answer[at:at] = forged

        answer, reading = await read(small, question, add)
        assert answer.is_authenticated
        assert "evil" not in answer.message.to_text()
        assert "evil" not in reading.aliases
        assert [str(one) for one in reading.addresses] == (["192.0.2.1"] if rdtype == RdataType.A else [])
        assert [str(one) for one in reading.records] == ([] if rdtype == RdataType.A else ['1 . alpn="h3"'])


def test_an_alias_beside_records_is_not_read_either() -> None:
    """Without a validator too, the records of the type that was asked for come first."""
    question = Question(name_of("www.example.test"), RdataType.A)
    response = dns.message.make_response(dns.message.make_query(question.name, question.rdtype))
    response.answer = records("www.example.test. 60 IN CNAME evil.", "evil. 60 IN A 192.0.2.66")
    assert read_answer(response, question).aliases == ("evil",)
    response.answer += records("www.example.test. 60 IN A 192.0.2.1")
    reading = read_answer(response, question)
    assert (reading.aliases, [str(one) for one in reading.addresses]) == ((), ["192.0.2.1"])


async def test_what_was_not_judged_is_dropped(small: World) -> None:
    def add(response: Response) -> None:
        response.answer += records("evil.example.test. 300 IN A 192.0.2.66", "www.example.test. 300 CH A evil. 66")
        response.authority += records("test. 5 IN SOA ns. admin. 1 2 3 4 5", "example.test. 5 IN NS evil.")

    answer, _ = await read(small, Question(name_of("www.example.test"), RdataType.A), add)
    assert answer.is_authenticated
    assert [rrset.to_text() for rrset in answer.message.answer] == ["www.example.test. 300 IN A 192.0.2.1"]
    assert not answer.message.authority


async def test_the_time_of_an_absence_is_that_of_its_own_zone(small: World) -> None:
    """A record of a zone above, unsigned and in front, would otherwise say how long the absence is kept."""

    def add(response: Response) -> None:
        response.authority[:0] = records("test. 1 IN SOA ns. admin. 1 2 3 4 1")

    answer, reading = await read(small, Question(name_of("none.example.test"), RdataType.A), add)
    assert answer.is_authenticated
    assert [rrset.name for rrset in answer.message.authority] == [name_of("example.test")]
    assert reading.ttl == 60


async def test_a_zone_of_another_class_makes_no_absence_of_an_alias() -> None:
    """The alias is signed; what it leads to is not said, and not said to be absent either."""
    zone = Zone("example.test", ("alias CNAME www.other.test.",), Signing())
    root = Zone(".", ("example.test NS ns.example.test.", f"example.test DS {zone.ds()}"), Signing())
    world = World([root.sign(), zone.sign()])

    def cut(response: Response) -> None:
        response.set_rcode(dns.rcode.NOERROR)
        response.authority = records("other.test. 300 CH SOA ns. admin. 1 2 3 4 300")

    question = Question(name_of("alias.example.test"), RdataType.A)
    answer, reading = await read(world, question, cut)
    assert answer.is_authenticated
    assert reading.goes_on == name_of("www.other.test")
    response = dns.message.make_response(dns.message.make_query(question.name, question.rdtype))
    response.answer = records("alias.example.test. 60 IN CNAME www.other.test.")
    response.authority = records("other.test. 300 CH SOA ns. admin. 1 2 3 4 300")
    assert read_answer(response, question).goes_on == name_of("www.other.test")


async def test_an_alias_made_by_a_wildcard_may_lead_elsewhere() -> None:
    """Its proof is no absence of what it leads to."""
    zone = Zone("example.test", ("*.wild CNAME www.other.test.",), Signing())
    root = Zone(".", ("example.test NS ns.example.test.", f"example.test DS {zone.ds()}"), Signing())
    world = World([root.sign(), zone.sign()])
    proof = {RdataType.NSEC, RdataType.RRSIG}

    def cut(response: Response) -> None:
        response.set_rcode(dns.rcode.NOERROR)
        response.authority = [
            rrset
            for rrset in response.authority
            if rrset.rdtype in proof and rrset.covers != RdataType.SOA and rrset.name.is_subdomain(zone.apex)
        ]

    answer, reading = await read(world, Question(name_of("x.wild.example.test"), RdataType.A), cut)
    assert answer.is_authenticated
    assert reading.goes_on == name_of("www.other.test")
