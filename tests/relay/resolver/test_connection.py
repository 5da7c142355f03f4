"""A connection to an upstream by itself: what ends it, whom that concerns, and what does not end it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import anyio
import anyio.lowlevel
import dns.message
import dns.name
import dns.rdatatype
import pytest

from relay.resolver import Query, Question, Resolver, make_query
from relay.resolver.transport import stream
from relay.resolver.transport.connection import Connection
from relay.resolver.transport.stream import StreamConnection, connect_stream
from relay.settings import ResolverSettings, Upstream, UpstreamTransport
from tests.relay.dns_server import records
from tests.relay.resolver.encrypted import running_encrypted
from tests.relay.resolver.listener import Serve, running

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient")]


def query_for(name: str) -> Query:
    return make_query(Question(dns.name.from_text(name), dns.rdatatype.A))


class Scripted(Connection):
    """A connection whose peer is a function of the test."""

    def __init__(self, script: Callable[[], None]) -> None:
        super().__init__(idle=30.0)
        self._script = script
        self.asked = asyncio.Event()
        self.is_closed = False

    def _send(self, query: Query) -> int:
        self.asked.set()
        return 0

    async def _receive(self) -> None:
        await self.asked.wait()
        await anyio.lowlevel.checkpoint()
        self._script()

    def _close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(
    "error", [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "secret.test"), KeyError("secret.test")]
)
async def test_whatever_is_raised_ends_this_connection_only(
    error: Exception, capfd: pytest.CaptureFixture[str]
) -> None:
    def script() -> None:
        raise error

    scripted = Scripted(script)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(scripted.run)
            with pytest.raises(OSError, match="the connection broke"):
                await scripted.ask(query_for("www.test"))
    assert scripted.is_closed
    assert not scripted.is_open
    captured = capfd.readouterr()
    assert type(error).__name__ in captured.out + captured.err
    assert "secret" not in captured.out + captured.err


async def test_header_fields_may_hold_any_bytes(folder: Path) -> None:
    async with running_encrypted(UpstreamTransport.HTTPS, folder) as server:
        server.dns.answer("www.test", records("www.test. 60 IN A 192.0.2.1"))
        server.headers = [(b"server", "N\xe9on".encode("latin-1")), ("age", "\u0663")]
        async with Resolver(ResolverSettings(), [server.upstream]) as resolver:
            assert (await resolver.query("www.test", dns.rdatatype.A)).ttl == 60


@asynccontextmanager
async def connected(serve: Serve) -> AsyncIterator[StreamConnection]:
    """Run a server of TCP, and a connection to it."""
    async with running(serve) as port:
        upstream = Upstream(ip_address("127.0.0.1"), port, UpstreamTransport.TCP)
        made = await connect_stream(upstream, None, idle=30.0)
        async with anyio.create_task_group() as group:
            group.start_soon(made.run)
            yield made
            group.cancel_scope.cancel()


async def asked(reader: asyncio.StreamReader) -> dns.message.Message:
    size = int.from_bytes(await reader.readexactly(2), "big")
    return dns.message.from_wire(await reader.readexactly(size))


async def answer_all(
    queries: list[dns.message.Message], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer these, and stay until the other side goes."""
    for query in queries:
        wire = dns.message.make_response(query).to_wire()
        writer.write(len(wire).to_bytes(2, "big") + wire)
    await reader.read()
    writer.close()


async def give_up(made: StreamConnection, count: int) -> None:
    """Ask so many questions, and wait for none of the answers."""
    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(made.ask, query_for(f"n{number}.test"))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()


async def test_late_answers_do_not_end_the_connection() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queries = [await asked(reader) for _ in range(81)]
        await answer_all(queries, reader, writer)

    async with connected(serve) as made:
        await give_up(made, 80)
        with anyio.fail_after(5):
            assert (await made.ask(query_for("www.test"))).question[0].name.to_text() == "www.test."
        assert made.is_open


async def test_a_late_answers_id_is_not_used_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_GIVEN_UP", 3)
    idents: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queries = [await asked(reader) for _ in range(6)]
        idents.extend(query.id for query in queries)
        await answer_all(queries[-1:], reader, writer)

    async with connected(serve) as made:
        await give_up(made, 5)
        late = set(made._late)
        assert len(late) == 3
        made._ident -= 5
        with anyio.fail_after(5):
            await made.ask(query_for("www.test"))
    assert idents[5] in set(idents[:5]) - late


async def test_an_answer_to_a_question_given_up_counts_once() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer_all([await asked(reader)] * 34, reader, writer)

    async with connected(serve) as made:
        await give_up(made, 1)
        with anyio.fail_after(5):
            while made.is_open:
                await anyio.lowlevel.checkpoint()


async def test_a_message_that_stalls_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_MESSAGE_TIME", 0.05)
    is_closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(b"\0\x40abc")
        try:
            await reader.read()
        finally:
            is_closed.set()
            writer.close()

    async with connected(serve) as made:
        await give_up(made, 1)
        with anyio.fail_after(5):
            await is_closed.wait()
        assert not made.is_open
