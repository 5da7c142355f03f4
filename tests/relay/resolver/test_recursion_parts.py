"""The parts of iterative resolution: hints, names shown in part, servers' records, responses of any kind."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

import anyio
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rrset
import pytest
from dns.rdatatype import RdataType
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import RelayError
from relay.resolver.expiring import ExpiringMap
from relay.resolver.keyed import KeyedLock
from relay.resolver.recursion import (
    BoundedAsker,
    Delegation,
    RecursionLimits,
    Recursor,
    parse_root_hints,
    read_root_hints,
)
from relay.resolver.recursion.limits import NoAuthority, spending_for
from relay.resolver.recursion.minimise import next_name
from relay.resolver.recursion.reading import Finding, read_response
from relay.resolver.recursion.servers import ServerBook
from relay.resolver.upstream import Answer, Question
from tests.relay.resolver.authority import running_hierarchy
from tests.relay.resolver.zones import Zone, name_of

LIMITS = RecursionLimits()
FAST, SLOW, NEW = (ip_address(f"192.0.2.{number}") for number in (1, 2, 3))
ZONE = name_of("example.test")


def test_the_shipped_hints_are_the_thirteen_root_servers() -> None:
    hints = read_root_hints(None)
    assert hints.zone == dns.name.root
    assert sorted(name.labels[0] for name in hints.servers) == [bytes([letter]) for letter in b"abcdefghijklm"]
    assert all(sorted(address.version for address in found) == [4, 6] for found in hints.servers.values())
    assert all(address.is_global for found in hints.servers.values() for address in found)


@pytest.mark.parametrize("text", ["", "nonsense", ". NS a.", "a. A 192.0.2.1", "test. NS a.\na. A 192.0.2.1", "\0"])
def test_hints_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must hold"):
        parse_root_hints(text)


@given(st.integers(1, 120))
def test_a_name_is_shown_whole_after_few_steps(labels: int) -> None:
    name = dns.name.Name((*[b"x"] * labels, b""))
    shown, steps = dns.name.root, 0
    while shown != name:
        following = next_name(shown, name, steps, LIMITS)
        assert following.is_subdomain(shown)
        assert name.is_subdomain(following)
        assert len(following) == len(shown) + 1 or steps >= LIMITS.one_label
        shown, steps = following, steps + 1
    assert steps <= LIMITS.minimised


def test_fast_servers_come_first_and_silent_ones_last() -> None:
    book = ServerBook(10, LIMITS)
    book.note_answer(FAST, 0.05, 0.0)
    book.note_answer(SLOW, 0.5, 0.0)
    assert book.order([SLOW, FAST, NEW], ZONE, 0.0) == [NEW, FAST, SLOW]
    for _ in range(2):
        book.note_silence(FAST, 0.0)
    assert book.order([SLOW, FAST], ZONE, 0.0) == [SLOW, FAST]
    assert book.order([SLOW, FAST], ZONE, 10.0) == [FAST, SLOW]
    book.note_lame(FAST, ZONE, 10.0)
    assert book.order([SLOW, FAST], ZONE, 10.0) == [SLOW, FAST]
    assert book.order([SLOW, FAST], name_of("other.test"), 10.0) == [FAST, SLOW]


def test_a_server_gets_the_time_that_it_usually_takes() -> None:
    book = ServerBook(10, LIMITS)
    assert book.timeout(NEW, 0.0) == LIMITS.first_wait
    book.note_answer(FAST, 0.001, 0.0)
    assert book.timeout(FAST, 0.0) == LIMITS.least_wait
    book.note_answer(SLOW, 30.0, 0.0)
    assert book.timeout(SLOW, 0.0) == LIMITS.longest_wait
    book.note_silence(FAST, 0.0)
    assert book.timeout(FAST, 0.0) == 2 * LIMITS.least_wait


def test_a_server_without_edns_is_tried_again_after_a_while() -> None:
    """Its answers in the meantime do not put that off: without EDNS, no signatures come."""
    book = ServerBook(10, LIMITS)
    book.note_no_edns(FAST, 0.0)
    for now in range(0, 300, 30):
        assert not book.knows_edns(FAST, now)
        book.note_answer(FAST, 0.01, now)
    assert book.knows_edns(FAST, 300.0)


def test_one_renaming_is_kept_for_an_alias() -> None:
    """Nothing is below a renamed name, so further ones mean nothing."""
    question = Question(name_of("x." * 50 + "example.test"), RdataType.A)
    response = dns.message.make_response(dns.message.make_query(question.name, question.rdtype))
    response.flags |= dns.flags.AA
    for labels in range(4, 50):
        owner = question.name.split(labels)[1]
        response.answer.append(dns.rrset.from_text(owner, 300, "IN", "DNAME", "www.example.test."))
    response.answer.append(dns.rrset.from_text(question.name, 300, "IN", "CNAME", "www.example.test."))
    found = read_response(response, ZONE, question, LIMITS)
    assert [rrset.rdtype for rrset in found.answer] == [RdataType.DNAME, RdataType.CNAME]


@given(st.binary(max_size=200), st.sampled_from(["www.example.test", "example.test", "a.b.www.example.test"]))
def test_any_response_is_read(tail: bytes, name: str) -> None:
    """Whatever parses is read, and what it says of absence or leads to is in or below the zone."""
    question = Question(name_of(name), RdataType.A)
    head = dns.message.make_response(dns.message.make_query(question.name, question.rdtype)).to_wire()
    for counts in (b"\0\1\0\0\0\0", b"\0\0\0\2\0\1", b"\0\2\0\2\0\2"):
        wire = head[:2] + b"\x84\0\0\1" + counts + head[12:] + tail
        try:
            response = dns.message.from_wire(wire, ignore_trailing=True, continue_on_error=True)
        except (dns.exception.DNSException, ValueError):
            continue
        found = read_response(response, ZONE, question, LIMITS)
        assert isinstance(found, Finding)
        assert all(rrset.name.is_subdomain(ZONE) for rrset in (*found.answer, *found.authority))
        assert found.delegation is None or found.delegation.zone.is_subdomain(ZONE)


def test_an_expiring_map_forgets() -> None:
    values: ExpiringMap[str, int] = ExpiringMap(2)
    for number, key in enumerate("abc"):
        values.put(key, number, 10, now=number)
    assert [values.get(key, now=10) for key in "abc"] == [None, 1, 2]
    assert values.get("b", now=11) is None
    assert len(values) == 1
    nothing: ExpiringMap[str, int] = ExpiringMap(0)
    nothing.put("a", 1, 10, now=0)
    assert nothing.get("a", now=1) is None


@pytest.mark.anyio
async def test_a_keyed_lock_lets_one_in_and_keeps_nothing() -> None:
    locks, inside = KeyedLock(), 0

    async def enter(key: str) -> None:
        nonlocal inside
        async with locks.hold(key):
            inside += 1
            await anyio.lowlevel.checkpoint()
            assert inside <= 2  # one for each key
            inside -= 1

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(enter, "ab"[number % 2])
        await anyio.lowlevel.checkpoint()
        assert len(locks) == 2
    assert len(locks) == 0


@pytest.mark.anyio
async def test_one_account_for_a_question_and_all_that_is_asked_for_it() -> None:
    class Below:
        async def ask(self, question: Question, deadline: float) -> Answer:
            for _ in range(LIMITS.queries):
                spending_for(LIMITS).add_query()
            with pytest.raises(NoAuthority):
                spending_for(LIMITS).add_query()
            return Answer(dns.message.Message())

    bounded = BoundedAsker(Below(), LIMITS)
    for _ in range(2):
        await bounded.ask(Question(ZONE, RdataType.A), 0.0)
    assert spending_for(LIMITS).queries == 0


@pytest.mark.anyio
async def test_servers_inside_are_not_asked_when_the_root_is_outside() -> None:
    """Whoever owns a name could otherwise have the relay send datagrams to the machines around it."""
    outside = parse_root_hints(". NS ns.\nns. A 198.41.0.4")
    inside: Mapping[dns.name.Name, tuple[str, ...]] = {
        ZONE: ("127.0.2.9", "10.0.0.1", "::1", "::ffff:127.0.2.9", "fe80::1")
    }
    addresses = {name: tuple(ip_address(text) for text in texts) for name, texts in inside.items()}
    async with running_hierarchy({"127.0.2.9": [Zone("example.test", ("www A 192.0.2.1",))]}) as hierarchy:
        for hints, is_asked in ((hierarchy.hints, True), (outside, False)):
            recursor = Recursor(hints, port=hierarchy.port)
            recursor._delegations.put(Delegation(ZONE, addresses), anyio.current_time())
            question, deadline = Question(name_of("www.example.test"), RdataType.A), anyio.current_time() + 5
            if is_asked:
                assert (await recursor.ask(question, deadline)).message.answer
            else:
                with pytest.raises(RelayError):
                    await recursor.ask(question, deadline)
        assert hierarchy.queries == 1
