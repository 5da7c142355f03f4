"""relay.resolver: what zones' owners can make an iterative and validating resolver remember has an end in bytes."""

from __future__ import annotations

import secrets
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import anyio
import dns.name
import dns.rdataclass
import pytest
from dns.dnssectypes import Algorithm
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.DNSKEY import DNSKEY

from masque.target import IPAddress
from relay.resolver.dnssec import InfoCode, ValidationLimits, Work, wall_clock
from relay.resolver.dnssec.chain import TrustChain, _size_of, _Step
from relay.resolver.dnssec.signatures import Verifier, ZoneKeys
from relay.resolver.dnssec.verdict import BogusData
from relay.resolver.recursion.delegation import Delegation, DelegationCache
from relay.resolver.recursion.limits import RecursionLimits
from relay.resolver.recursion.servers import ServerBook
from relay.resolver.sized import SizedMap
from tests.relay.resolver.judging import LIMITS
from tests.relay.resolver.world import World
from tests.relay.resolver.zones import name_of

SMALL = 100_000
ENTRIES = 10_000


class Taken:
    """Bytes that were taken in a block, and not given back."""

    size = 0


@contextmanager
def counted() -> Iterator[Taken]:
    """Count bytes."""
    taken = Taken()
    tracemalloc.start()
    try:
        yield taken
        taken.size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def name(labels: int) -> dns.name.Name:
    """Make a name of this many labels that no other equals."""
    return dns.name.Name((secrets.token_hex(8).encode(), *(bytes([97 + n % 26]) for n in range(labels)), b""))


def addresses(number: int) -> tuple[IPAddress, ...]:
    return tuple(ip_address(secrets.token_bytes(16)) for _ in range(number))


def delegation(labels: int) -> Delegation:
    """Make as large a delegation as is kept."""
    limits = RecursionLimits()
    servers = {name(labels): addresses(2 * limits.addresses) for _ in range(limits.servers)}
    return Delegation(name(labels), servers)


def keys(size: int) -> ZoneKeys:
    """Make as many keys as are kept."""
    head = (dns.rdataclass.IN, RdataType.DNSKEY, 257, 3, Algorithm.ECDSAP256SHA256)
    made = (DNSKEY(*head, secrets.token_bytes(size)) for _ in range(LIMITS.keys))  # type: ignore[no-untyped-call]
    return ZoneKeys(name(2), tuple((0, key) for key in made))


@pytest.mark.parametrize("labels", [1, 100])
def test_delegations_end_in_bytes(labels: int) -> None:
    with counted() as taken:
        cache = DelegationCache(ENTRIES, SMALL)
        for _ in range(30 if labels == 1 else 4):
            cache.put(delegation(labels), 0.0)
    assert SMALL / 2 < cache._zones.size <= SMALL
    assert taken.size < 1.5 * SMALL


@pytest.mark.parametrize("make", [lambda: keys(64), lambda: keys(516), lambda: BogusData(InfoCode.DNSSEC_BOGUS)])
def test_steps_of_the_chain_end_in_bytes(make: Callable[[], _Step]) -> None:
    with counted() as taken:
        steps: SizedMap[dns.name.Name, _Step] = SizedMap(ENTRIES, SMALL, _size_of)
        for _ in range(10 if isinstance(make(), ZoneKeys) else 250):
            steps.put(name(3), make(), 60.0, 0.0)
    assert SMALL / 2 < steps.size <= SMALL
    assert taken.size < 1.5 * SMALL


def test_servers_end_in_bytes() -> None:
    book = ServerBook(ENTRIES, RecursionLimits())
    with counted() as taken:
        for address in addresses(3000):
            book.note_answer(address, 0.1, 0.0)
        before = book._servers.size
        book.note_answer(address, 0.1, 0.0)
    assert book._servers.size == before <= 1 << 20
    assert taken.size < 1.5 * (1 << 20)


def test_what_is_dropped_is_no_longer_counted() -> None:
    values: SizedMap[str, int] = SizedMap(3, 10_000, lambda _key, value: value)
    for number, key in enumerate("abcda"):
        values.put(key, 100, 10, now=number)
    assert (len(values), [values.get(key, now=5) for key in "abcd"]) == (3, [100, None, 100, 100])
    assert values.size == 3 * (values.size // 3) > 300
    assert values.get("c", now=12) is None
    values.put("e", 20_000, 10, now=12)
    assert (len(values), values.size) == (0, 0)
    values.put("f", 1, 10, now=12)
    assert [values.get(key, now=30) for key in "def"] == [None, None, None]
    assert (len(values), values.size) == (0, 0)


@pytest.mark.anyio
async def test_a_broken_step_holds_on_to_nothing(world: World) -> None:
    """An exception that was raised keeps every frame on its way, and the responses in them."""
    limits = ValidationLimits()
    chain = TrustChain(world, world.anchors, Verifier(limits, wall_clock), limits, ENTRIES)
    with pytest.raises(BogusData):
        await chain.find(name_of("www.wrongds.test"), Work(limits), anyio.current_time() + 5)
    kept = chain._steps.get(name_of("wrongds.test"), chain._clock())
    assert isinstance(kept, BogusData)
    assert kept.__traceback__ is None
    assert kept.__context__ is None
