"""DNS over HTTPS: streams that an upstream does not take yet, or no more (RFC 9113 §5.1.2, §6.8, §8.7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import dns.name
import dns.rdatatype
import pytest

from relay.errors import FailureKind, RelayError
from relay.resolver import Forwarder, Question
from relay.settings import ResolverSettings, UpstreamTransport
from relay.telemetry import CounterMetrics
from tests.relay.dns_server import records
from tests.relay.resolver.encrypted import EncryptedServer, running_encrypted

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient")]


class Asking:
    """An HTTPS upstream, who asks it, and the addresses found so far by name."""

    def __init__(self, server: EncryptedServer, forwarder: Forwarder) -> None:
        self.server = server
        self.forwarder = forwarder
        self.found: dict[str, str] = {}

    async def ask(self, name: str, patience: float = 5.0) -> None:
        self.server.dns.replies[name, "A"] = records(f"{name}. 60 IN A 192.0.2.1")
        question = Question(dns.name.from_text(name), dns.rdatatype.A)
        answer = await self.forwarder.ask(question, anyio.current_time() + patience)
        self.found[name] = answer.message.answer[0][0].to_text()

    async def queries(self, count: int) -> None:
        """Wait until the server has seen so many queries."""
        with anyio.fail_after(5):
            while len(self.server.dns.queries) < count:
                await anyio.lowlevel.checkpoint()

    @property
    def failures(self) -> int:
        return self.forwarder._peers[0].health.failures


@asynccontextmanager
async def running(folder: Path, streams: int | None = None) -> AsyncIterator[Asking]:
    async with running_encrypted(UpstreamTransport.HTTPS, folder) as server, anyio.create_task_group() as group:
        server.streams = streams
        yield Asking(server, Forwarder([server.upstream], ResolverSettings(), group, CounterMetrics()))
        group.cancel_scope.cancel()


async def test_questions_wait_for_a_free_stream(folder: Path) -> None:
    async with running(folder, streams=2) as asking:
        await asking.ask("first.test")
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(asking.ask, f"n{number}.test")
        assert len(asking.found) == 21
        assert (asking.failures, asking.server.dns.connections) == (0, 1)


async def test_a_question_given_up_makes_room(folder: Path) -> None:
    async with running(folder, streams=1) as asking:
        await asking.ask("first.test")
        asking.server.dns.gate = asyncio.Event()
        scope = anyio.CancelScope()

        async def give_up() -> None:
            with scope:
                await asking.ask("given-up.test")

        async with anyio.create_task_group() as group:
            group.start_soon(give_up)
            await asking.queries(2)
            group.start_soon(asking.ask, "second.test")
            await anyio.wait_all_tasks_blocked()
            assert len(asking.server.dns.queries) == 2
            scope.cancel()
            await asking.queries(3)
            asking.server.dns.gate.set()
        assert set(asking.found) == {"first.test", "second.test"}


async def test_a_question_waits_for_a_stream_within_its_time(folder: Path) -> None:
    async with running(folder, streams=1) as asking:
        await asking.ask("first.test")
        asking.server.dns.gate = asyncio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(asking.ask, "second.test")
            await asking.queries(2)
            with pytest.raises(RelayError) as caught:
                await asking.ask("third.test", 0.05)
            asking.server.dns.gate.set()
        assert caught.value.failure.kind is FailureKind.DNS_TIMEOUT
        assert set(asking.found) == {"first.test", "second.test"}
        assert len(asking.server.dns.queries) == 2


async def test_an_upstream_that_retires_answers_what_is_under_way(folder: Path) -> None:
    """Streams are 1, 3 and 5; the last of them it has not looked at, and it is asked again over a new connection."""
    async with running(folder) as asking:
        gate = asking.server.dns.gate = asyncio.Event()
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(asking.ask, f"n{number}.test")
            await asking.queries(3)
            asking.server.retire(3)
            await asking.queries(4)
            group.start_soon(asking.ask, "new.test")
            await asking.queries(5)
            assert asking.found == {}
            gate.set()
        assert len(asking.found) == 4
        assert (asking.failures, asking.server.dns.connections) == (0, 2)
        with anyio.fail_after(5):
            while not asking.server.lost:
                await anyio.lowlevel.checkpoint()
        await asking.ask("newer.test")
        assert (asking.server.dns.connections, asking.server.lost) == (2, 1)


@pytest.mark.parametrize("last", [0, 1, (1 << 31) - 1])
async def test_an_upstream_may_retire_more_than_once(last: int, folder: Path) -> None:
    async with running(folder) as asking:
        asking.server.dns.gate = asyncio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(asking.ask, "www.test")
            await asking.queries(1)
            asking.server.retire((1 << 31) - 1)
            asking.server.retire(last)
            if last == 0:
                await asking.queries(2)
            asking.server.dns.gate.set()
        assert (len(asking.found), asking.failures) == (1, 0)


async def test_a_refused_stream_is_asked_again(folder: Path) -> None:
    async with running(folder) as asking:
        asking.server.refusals = 3
        await asking.ask("www.test")
        assert (asking.failures, asking.server.dns.connections) == (0, 1)
        asking.server.refusals = 1000
        with pytest.raises(RelayError) as caught:
            await asking.ask("www.test")
        assert caught.value.failure.kind is FailureKind.DNS_ERROR
        assert asking.server.refusals >= 1000 - 5
