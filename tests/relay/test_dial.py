"""relay.tunnels.dial: Happy Eyeballs on real sockets of the loopback interface."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.target import IPAddress
from relay.errors import Failure, FailureKind, RelayError, Side
from relay.hooks import EgressBinding
from relay.settings import load_settings
from relay.tunnels import Dialer, ReachMemory, Standing, dial_tcp, interleave
from tests.relay.rig import PATIENCE, black_hole, eventually, open_sockets

pytestmark = pytest.mark.anyio

FIRST, SECOND, THIRD = (ip_address(f"127.0.0.{number}") for number in (1, 2, 3))
NOBODY, NOBODY_EITHER = ip_address("127.0.0.8"), ip_address("127.0.0.9")
SIX = ip_address("::1")
LONG = 5.0
"Longer than any test may take: what would wait for it has failed."


class Egress:
    """Chooses a binding and notes when each attempt began."""

    def __init__(self, failures: dict[IPAddress, FailureKind] | None = None, source: IPAddress | None = None) -> None:
        self.asked: list[IPAddress] = []
        self.times: list[float] = []
        self._failures = failures or {}
        self._source = source

    async def __call__(self, address: IPAddress) -> EgressBinding:
        self.asked.append(address)
        self.times.append(time.monotonic())
        if address in self._failures:
            raise RelayError(Failure(self._failures[address], Side.RELAY))
        return EgressBinding(self._source)


@contextlib.contextmanager
def listening(*addresses: IPAddress) -> Iterator[tuple[int, list[socket.socket]]]:
    """Listen on the same port of several addresses; yields the port and the listeners."""
    with contextlib.ExitStack() as stack:
        port = 0
        sockets = []
        for address in addresses:
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            sock = stack.enter_context(socket.create_server((str(address), port), family=family))
            sock.settimeout(PATIENCE)
            port = sock.getsockname()[1]
            sockets.append(sock)
        yield port, sockets


@contextlib.contextmanager
def listening_at(port: int, address: IPAddress) -> Iterator[None]:
    """Listen on this port of an address."""
    with socket.create_server((str(address), port)):
        yield


@contextlib.contextmanager
def no_socket_left() -> Iterator[None]:
    """Whatever was opened meanwhile is closed again."""
    before = open_sockets()
    yield
    assert open_sockets() - before == set()


@contextlib.contextmanager
def faster_than(seconds: float) -> Iterator[None]:
    """The block takes less time."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


async def test_the_socket_is_connected_and_ready_to_use() -> None:
    with listening(FIRST) as (port, (server,)):
        egress = Egress()
        with await dial_tcp((FIRST,), port, egress, LONG) as sock:
            accepted, peer = server.accept()
            accepted.close()
            assert peer == sock.getsockname()
            assert sock.getpeername() == (str(FIRST), port)
            assert not sock.getblocking()
            assert not sock.get_inheritable()
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert egress.asked == [FIRST]


async def test_the_first_that_answers_is_the_only_one_tried() -> None:
    with listening(FIRST, SECOND) as (port, _), faster_than(LONG / 2):
        egress = Egress()
        with await dial_tcp((FIRST, SECOND), port, egress, LONG, attempt_delay=LONG) as sock:
            assert sock.getpeername()[0] == str(FIRST)
        assert egress.asked == [FIRST]


async def test_the_source_address_is_bound() -> None:
    with listening(FIRST) as (port, (server,)):
        with await dial_tcp((FIRST,), port, Egress(source=ip_address("127.0.0.5")), LONG):
            accepted, peer = server.accept()
            accepted.close()
        assert peer[0] == "127.0.0.5"


async def test_a_failure_starts_the_next_attempt_at_once() -> None:
    with listening(SECOND) as (port, _), no_socket_left(), faster_than(LONG / 2):
        egress = Egress()
        with await dial_tcp((NOBODY, NOBODY_EITHER, SECOND), port, egress, LONG, attempt_delay=LONG) as sock:
            assert sock.getpeername()[0] == str(SECOND)
        assert egress.asked == [NOBODY, NOBODY_EITHER, SECOND]


async def test_attempts_are_staggered() -> None:
    delay = 0.05
    with listening(THIRD) as (port, _), black_hole(str(FIRST), port), black_hole(str(SECOND), port):
        egress = Egress()
        with no_socket_left(), await dial_tcp((FIRST, SECOND, THIRD), port, egress, LONG, delay) as sock:
            assert sock.getpeername()[0] == str(THIRD)
        assert egress.asked == [FIRST, SECOND, THIRD]
        first, second, third = egress.times
        assert second - first >= delay * 0.9
        assert third - second >= delay * 0.9
        assert third - first < LONG


async def test_losers_are_closed_before_the_winner_is_handed_over() -> None:
    with listening(SECOND) as (port, _), black_hole(str(FIRST), port):
        before = open_sockets()
        with await dial_tcp((FIRST, SECOND), port, Egress(), LONG, attempt_delay=0.01) as sock:
            assert len(open_sockets() - before) == 1
            assert sock.getpeername()[0] == str(SECOND)


async def test_two_at_once_give_one_socket() -> None:
    with listening(FIRST, SECOND) as (port, _):
        before = open_sockets()
        with await dial_tcp((FIRST, SECOND), port, Egress(), LONG, attempt_delay=0.0):
            assert len(open_sockets() - before) == 1


async def test_an_earlier_attempt_that_wins_late_is_handed_over_at_once() -> None:
    """The first attempt becomes ready while the second is waiting and a third could be started."""
    delay = 0.3
    egress = Egress()

    async def choose(address: IPAddress) -> EgressBinding:
        binding = await egress(address)
        if address == FIRST:
            await eventually(lambda: len(egress.asked) == 2)
        return binding

    with listening(FIRST) as (port, _), black_hole(str(SECOND), port), no_socket_left():
        with await dial_tcp((FIRST, SECOND, THIRD), port, choose, LONG, delay) as sock:
            assert sock.getpeername()[0] == str(FIRST)
        assert time.monotonic() - egress.times[1] < delay * 0.7
        assert egress.asked == [FIRST, SECOND]


async def test_families_take_turns() -> None:
    with black_hole("::1") as port:
        egress = Egress()
        with no_socket_left(), pytest.raises(RelayError):
            await dial_tcp((SIX, SIX, NOBODY, NOBODY_EITHER), port, egress, timeout=0.3, attempt_delay=0.01)
        assert [address.version for address in egress.asked] == [6, 4, 6, 4]


async def test_ipv6_is_reached() -> None:
    with listening(SIX) as (port, _), await dial_tcp((SIX,), port, Egress(), LONG) as sock:
        assert sock.getpeername()[0] == "::1"


async def test_nobody_in_time_is_a_timeout_and_leaves_nothing() -> None:
    with black_hole(str(FIRST)) as port, no_socket_left(), faster_than(LONG / 2):
        with pytest.raises(RelayError) as raised:
            await dial_tcp((FIRST,), port, Egress(), timeout=0.1, attempt_delay=0.01)
        assert raised.value.failure == Failure(FailureKind.CONNECTION_TIMEOUT, Side.TARGET)


async def test_the_time_is_for_all_attempts_together() -> None:
    with black_hole(str(FIRST)) as port, black_hole(str(SECOND), port), faster_than(LONG / 2):
        egress = Egress()
        with pytest.raises(RelayError):
            await dial_tcp((FIRST, SECOND), port, egress, timeout=0.1, attempt_delay=LONG)
        assert egress.asked == [FIRST]


async def test_an_egress_that_takes_too_long_times_out_too() -> None:
    async def never(address: IPAddress) -> EgressBinding:
        await asyncio.Event().wait()
        raise AssertionError

    with no_socket_left(), pytest.raises(RelayError) as raised:
        await dial_tcp((FIRST,), 1, never, timeout=0.05)
    assert raised.value.failure.kind is FailureKind.CONNECTION_TIMEOUT


async def test_cancelling_the_dial_closes_everything() -> None:
    with black_hole(str(FIRST)) as port, black_hole(str(SECOND), port), no_socket_left():
        egress = Egress()
        task = asyncio.create_task(dial_tcp((FIRST, SECOND), port, egress, LONG, attempt_delay=0.01))
        async with asyncio.timeout(PATIENCE):
            while len(egress.asked) < 2:  # noqa: ASYNC110 - attempts have no event of their own
                await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_cancelling_just_when_it_succeeds_leaks_nothing() -> None:
    with listening(FIRST) as (port, _):
        for turns in range(12):
            with no_socket_left():
                task = asyncio.create_task(dial_tcp((FIRST,), port, Egress(), LONG))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    (await task).close()


async def test_all_refused_is_refused() -> None:
    with listening(FIRST) as (port, _), no_socket_left(), pytest.raises(RelayError) as raised:
        await dial_tcp((NOBODY, NOBODY_EITHER), port, Egress(), LONG)
    assert raised.value.failure == Failure(FailureKind.CONNECTION_REFUSED, Side.TARGET)


RANKED = (
    FailureKind.CONNECTION_REFUSED,
    FailureKind.CONNECTION_TERMINATED,
    FailureKind.CONNECTION_TIMEOUT,
    FailureKind.CONNECTION_LIMIT_REACHED,
    FailureKind.DESTINATION_IP_UNROUTABLE,
    FailureKind.HTTP_REQUEST_DENIED,
)


@pytest.mark.parametrize("worse", range(1, len(RANKED)))
@pytest.mark.parametrize("is_reversed", [False, True])
async def test_the_failure_told_is_the_one_that_came_furthest(worse: int, is_reversed: bool) -> None:
    kinds = RANKED[worse - 1], RANKED[worse]
    addresses = (SECOND, FIRST) if is_reversed else (FIRST, SECOND)
    egress = Egress(dict(zip((FIRST, SECOND), kinds, strict=True)))
    with pytest.raises(RelayError) as raised:
        await dial_tcp(addresses, 1, egress, LONG, attempt_delay=LONG)
    assert raised.value.failure.kind is kinds[0]
    assert egress.asked == list(addresses)


async def test_a_rejected_address_does_not_keep_the_next_from_being_tried() -> None:
    with listening(SECOND) as (port, _), faster_than(LONG / 2):
        egress = Egress({FIRST: FailureKind.HTTP_REQUEST_DENIED})
        with await dial_tcp((FIRST, SECOND), port, egress, LONG, attempt_delay=LONG) as sock:
            assert sock.getpeername()[0] == str(SECOND)


async def test_a_source_of_the_wrong_family_fails_that_attempt_only() -> None:
    with listening(FIRST) as (port, _):
        egress = Egress(source=ip_address("127.0.0.5"))
        with no_socket_left(), await dial_tcp((SIX, FIRST), port, egress, LONG) as sock:
            assert sock.getpeername()[0] == str(FIRST)


def remembering(keep: float = 60) -> ReachMemory:
    return ReachMemory(keep, 100, asyncio.get_running_loop().time)


async def test_an_address_that_left_us_waiting_is_tried_last_the_next_time() -> None:
    delay = 0.1
    with black_hole("::1") as port, listening_at(port, FIRST):
        memory = remembering()
        for asked, is_fast in (([SIX, FIRST], False), ([FIRST], True)):
            egress = Egress()
            started = time.monotonic()
            with no_socket_left(), await dial_tcp((SIX, FIRST), port, egress, LONG, delay, memory) as sock:
                assert sock.getpeername()[0] == str(FIRST)
            assert egress.asked == asked
            assert (time.monotonic() - started < delay) is is_fast
        assert memory.standing(SIX) is Standing.SILENT
        assert memory.standing(FIRST) is Standing.ANSWERED


async def test_an_attempt_that_had_not_a_delays_time_says_nothing() -> None:
    delay = 0.15

    async def choose(address: IPAddress) -> EgressBinding:
        if address == SIX:
            await asyncio.sleep(delay * 0.9)
        return EgressBinding()

    with black_hole("::1") as port, listening_at(port, FIRST):
        memory = remembering()
        with await dial_tcp((SIX, FIRST), port, choose, LONG, delay, memory):
            assert memory.standing(SIX) is Standing.UNKNOWN
            assert memory.standing(FIRST) is Standing.ANSWERED


async def test_a_race_that_nobody_wins_teaches_nothing() -> None:
    with black_hole(str(FIRST)) as port, black_hole("::1", port):
        memory = remembering()
        with pytest.raises(RelayError):
            await dial_tcp((SIX, FIRST), port, Egress(), 0.1, 0.01, memory)
        assert len(memory) == 0


async def test_who_refuses_has_answered() -> None:
    memory = remembering()
    with listening(SIX) as (port, _), await dial_tcp((NOBODY, SIX), port, Egress(), LONG, LONG, memory):
        assert memory.standing(NOBODY) is Standing.UNKNOWN
        assert memory.standing(SIX) is Standing.ANSWERED


async def test_a_client_that_leaves_teaches_nothing() -> None:
    with black_hole(str(FIRST)) as port, no_socket_left():
        memory = remembering()
        task = asyncio.create_task(dial_tcp((FIRST,), port, Egress(), LONG, 0.01, memory))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(memory) == 0


async def test_a_dialer_takes_its_order_from_the_settings() -> None:
    settings = load_settings(None, {}, {"dial.first_family_count": "2", "dial.remember": "0"}).dial
    dialer = Dialer.of(settings, asyncio.get_running_loop().time)
    others = [ip_address("::2"), ip_address("::3")]
    egress = Egress(dict.fromkeys((SIX, *others, FIRST), FailureKind.HTTP_REQUEST_DENIED))
    with pytest.raises(RelayError):
        await dialer.open([SIX, *others, FIRST], 9, egress)
    assert egress.asked == [SIX, others[0], FIRST, others[1]]
    with listening(FIRST) as (port, _), await dialer.connect((FIRST,), port, Egress(), LONG) as sock:
        assert sock.getpeername() == (str(FIRST), port)


addresses = st.lists(st.ip_addresses(), min_size=1, max_size=9, unique=True)


@given(addresses)
def test_interleave_keeps_all_and_takes_turns(given_addresses: list[IPAddress]) -> None:
    ordered = interleave(given_addresses)
    assert sorted(map(str, ordered)) == sorted(map(str, given_addresses))
    assert ordered[0] == given_addresses[0]
    for version in (4, 6):
        kept = [address for address in given_addresses if address.version == version]
        assert [address for address in ordered if address.version == version] == kept
    fewer = min(sum(address.version == version for address in given_addresses) for version in (4, 6))
    versions = [address.version for address in ordered[: 2 * fewer]]
    assert all(left != right for left, right in pairwise(versions))


def test_interleave_of_nothing_is_nothing() -> None:
    assert interleave(()) == []
