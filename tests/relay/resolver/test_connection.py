"""A connection to an upstream by itself: what ends it, whom that concerns, and what does not end it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import dns.message
import dns.name
import dns.rdatatype
import pytest

from relay.resolver import Query, Question, Resolver, make_query
from relay.resolver.transport.connection import Connection
from relay.settings import ResolverSettings, UpstreamTransport
from tests.relay.dns_server import records
from tests.relay.resolver.encrypted import running_encrypted

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
