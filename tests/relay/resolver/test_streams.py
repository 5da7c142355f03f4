"""Upstreams over TCP, TLS, HTTPS and QUIC: one connection for many questions, and what its peer can do wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import anyio
import anyio.lowlevel
import dns.message
import dns.name
import dns.rdatatype
import pytest

from relay.errors import FailureKind
from relay.quic.development import write_certificates
from relay.resolver import Resolver
from relay.resolver.transport import connection
from relay.settings import ResolverSettings, SettingsError, Upstream, UpstreamTransport
from tests.relay.dns_server import records, running_server, silent
from tests.relay.resolver.encrypted import EncryptedServer, running_encrypted
from tests.relay.resolver.lab import failure_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient")]

ENCRYPTED = (UpstreamTransport.TLS, UpstreamTransport.HTTPS, UpstreamTransport.QUIC)


@pytest.fixture(scope="session")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that nobody trusts."""
    made = tmp_path_factory.mktemp("strange")
    write_certificates(made, ["localhost"])
    return made


@pytest.fixture(params=[UpstreamTransport.TCP, *ENCRYPTED], ids=str)
async def server(request: pytest.FixtureRequest, folder: Path, anyio_backend: str) -> AsyncIterator[EncryptedServer]:
    """A server of each kind."""
    if request.param is UpstreamTransport.TCP:
        async with running_server() as plain:
            upstream = replace(plain.upstream, transport=UpstreamTransport.TCP)
            yield EncryptedServer(plain, upstream, plain.hang_up)
    else:
        async with running_encrypted(request.param, folder) as made:
            yield made


@pytest.fixture
async def stack(anyio_backend: str) -> AsyncIterator[AsyncExitStack]:
    """Leaves the resolvers before their servers end."""
    async with AsyncExitStack() as made:
        yield made


async def resolver(stack: AsyncExitStack, *upstreams: Upstream, **settings: object) -> Resolver:
    chosen = ResolverSettings.model_validate({"timeout": 3, **settings})
    return await stack.enter_async_context(Resolver(chosen, upstreams))


def fill(server: EncryptedServer, count: int) -> list[str]:
    names = [f"n{number}.test" for number in range(count)]
    for number, name in enumerate(names):
        server.dns.answer(name, records(f"{name}. 60 IN A 192.0.2.{number % 256}"))
    return names


async def resolve_all(chosen: Resolver, names: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}

    async def one(name: str) -> None:
        found[name] = str((await chosen.resolve(name)).addresses[0])

    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(one, name)
    return found


async def test_many_questions_share_one_connection(server: EncryptedServer, stack: AsyncExitStack) -> None:
    names = fill(server, 80)
    found = await resolve_all(await resolver(stack, server.upstream), names)
    assert found == {name: f"192.0.2.{number}" for number, name in enumerate(names)}
    assert server.dns.connections == 1
    assert len(server.dns.queries) == 160


async def test_answers_may_come_in_any_order(server: EncryptedServer, stack: AsyncExitStack) -> None:
    names = fill(server, 2)
    server.dns.answer("slow.test", silent, silent)
    chosen = await resolver(stack, server.upstream)
    async with anyio.create_task_group() as group:
        group.start_soon(chosen.resolve, "slow.test")
        await anyio.wait_all_tasks_blocked()
        assert len(await resolve_all(chosen, names)) == 2
        group.cancel_scope.cancel()
    assert server.dns.connections == 1


async def test_queries_are_padded_where_it_helps(server: EncryptedServer, stack: AsyncExitStack) -> None:
    (name,) = fill(server, 1)
    await (await resolver(stack, server.upstream)).resolve(name)
    for query in server.dns.queries:
        size = len(query.to_wire())
        options = {int(option.otype) for option in query.options}
        if server.upstream.transport.is_encrypted:
            assert size % 128 == 0
            assert options == {12}
        else:
            assert size < 128
            assert options == {10}


async def test_a_connection_that_ended_is_made_anew(server: EncryptedServer, stack: AsyncExitStack) -> None:
    first, second = fill(server, 2)
    chosen = await resolver(stack, server.upstream)
    await chosen.resolve(first)
    server.hang_up()
    assert len((await chosen.resolve(second)).addresses) == 1
    assert server.dns.connections == 2


async def test_questions_under_way_survive_the_end_of_a_kept_connection(
    server: EncryptedServer, stack: AsyncExitStack
) -> None:
    first, second = fill(server, 2)
    chosen = await resolver(stack, server.upstream)
    await chosen.resolve(first)
    server.dns.gate = asyncio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(chosen.resolve, second)
        while len(server.dns.queries) < 4:
            await anyio.lowlevel.checkpoint()
        gate, server.dns.gate = server.dns.gate, None
        server.hang_up()
        gate.set()
    assert server.dns.connections == 2


async def test_an_unused_connection_is_closed(server: EncryptedServer, stack: AsyncExitStack) -> None:
    first, second = fill(server, 2)
    chosen = await resolver(stack, server.upstream, connection_idle=0.15)
    await chosen.resolve(first)
    await anyio.sleep(0.3)
    await chosen.resolve(second)
    assert server.dns.connections == 2


async def test_an_upstream_that_falls_silent_is_connected_to_anew(
    server: EncryptedServer, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_SILENCE", 0.1)
    first, second = fill(server, 2)
    server.dns.answer("mute.test", silent, silent)
    chosen = await resolver(stack, server.upstream)
    await chosen.resolve(first)
    with anyio.move_on_after(0.15):
        await chosen.resolve("mute.test")
    await chosen.resolve(second)
    assert server.dns.connections == 2


async def test_a_long_answer_is_refused(server: EncryptedServer, stack: AsyncExitStack) -> None:
    many = [f"www.test. 60 IN A 192.0.{n >> 8}.{n & 255}" for n in range(1200)]
    server.dns.answer("www.test", records(*many), records(*many))
    chosen = await resolver(stack, server.upstream)
    found = await failure_of(chosen, "www.test")
    assert (found.kind, found.rcode) == (FailureKind.DNS_ERROR, None)
    (name,) = fill(server, 1)
    assert len((await chosen.resolve(name)).addresses) == 1


@pytest.mark.parametrize("wrong", ["id", "question"])
async def test_a_forged_answer_is_not_believed(server: EncryptedServer, stack: AsyncExitStack, wrong: str) -> None:
    def forge(query: dns.message.Message) -> dns.message.Message:
        made = records("www.test. 60 IN A 192.0.2.66")(query)
        assert made is not None
        if wrong == "id":
            made.id ^= 1
        else:
            made.question[0].name = dns.name.from_text("other.test")
        return made

    server.dns.answer("www.test", forge, forge)
    found = await failure_of(await resolver(stack, server.upstream, timeout=0.15), "www.test")
    assert found.rcode is None


@pytest.mark.parametrize("kind", ENCRYPTED, ids=str)
async def test_a_certificate_must_hold_the_name_and_be_trusted(
    kind: UpstreamTransport, folder: Path, strange: Path, stack: AsyncExitStack
) -> None:
    async with running_encrypted(kind, folder) as server:
        (name,) = fill(server, 1)
        for wrong in (
            replace(server.upstream, name="other.test"),
            replace(server.upstream, ca_file=strange / "ca.pem"),
            replace(server.upstream, ca_file=None),
        ):
            found = await failure_of(await resolver(stack, wrong), name)
            assert (found.kind, found.rcode) == (FailureKind.DNS_ERROR, None)
        assert server.dns.queries == []


@pytest.mark.parametrize("kind", [UpstreamTransport.TLS, UpstreamTransport.QUIC], ids=str)
async def test_a_certificate_may_hold_the_address(
    kind: UpstreamTransport, folder: Path, stack: AsyncExitStack
) -> None:
    async with running_encrypted(kind, folder, name=None) as server:
        (name,) = fill(server, 1)
        assert (await (await resolver(stack, server.upstream)).resolve(name)).addresses
        await stack.aclose()


@pytest.mark.parametrize(
    ("status", "media_type"), [("404", "application/dns-message"), ("200", "text/html"), ("503", "text/plain")]
)
async def test_https_that_is_no_dns(folder: Path, stack: AsyncExitStack, status: str, media_type: str) -> None:
    async with running_encrypted(UpstreamTransport.HTTPS, folder) as server:
        (name,) = fill(server, 1)
        server.status, server.media_type = status, media_type
        assert (await failure_of(await resolver(stack, server.upstream), name)).kind is FailureKind.DNS_ERROR
        await stack.aclose()


async def test_the_time_in_https_caches_counts(folder: Path, stack: AsyncExitStack) -> None:
    async with running_encrypted(UpstreamTransport.HTTPS, folder) as server:
        (name,) = fill(server, 1)
        server.headers = [("age", "50")]
        chosen = await resolver(stack, server.upstream)
        assert (await chosen.query(name, dns.rdatatype.A)).ttl == 10
        await stack.aclose()


@pytest.mark.parametrize("kind", [UpstreamTransport.HTTPS, UpstreamTransport.QUIC], ids=str)
@pytest.mark.parametrize("body", [b"", b"\0", b"\0\5ab", b"\0\0", b"x" * 40000])
async def test_a_body_that_is_no_message(
    kind: UpstreamTransport, body: bytes, folder: Path, stack: AsyncExitStack
) -> None:
    async with running_encrypted(kind, folder) as server:
        (name,) = fill(server, 1)
        server.body = lambda _: body
        found = await failure_of(await resolver(stack, server.upstream, timeout=0.5), name)
        assert found.rcode is None
        server.body = lambda wire: wire
        assert (await (await resolver(stack, server.upstream)).resolve(name)).addresses
        await stack.aclose()


async def test_a_ca_file_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    upstream = Upstream(ip_address("127.0.0.1"), 853, UpstreamTransport.TLS, "localhost")
    (tmp_path / "empty.pem").write_text("nothing")
    for file in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        with pytest.raises(SettingsError, match=file.name):
            async with Resolver(ResolverSettings(), [replace(upstream, ca_file=file)]):
                pytest.fail("it was entered")
