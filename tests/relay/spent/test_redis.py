"""The server: away, slow, restarted, refusing, evicting, replicated, behind TLS and passwords."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from relay.quic.development import write_certificates
from relay.spent import GRACE, SpentStore, StoreAway, StoreKind, open_store
from relay.spent.redis import RedisServer
from tests.relay.spent.rig import NOW, Clock, RedisProcess, answers, redis_process, token, until

pytestmark = pytest.mark.anyio

LATER = NOW + 86_400
PASSWORD = "a:password/with@signs"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    """A server that the test may break."""
    with redis_process(tmp_path) as process:
        yield process


@contextlib.asynccontextmanager
async def opened(url: str, *, timeout: float = 10.0, retry: float = 0.0, **more: Any) -> AsyncIterator[SpentStore]:
    store = open_store(StoreKind.REDIS, Clock(), url=url, timeout=timeout, retry=retry, **more)
    try:
        yield store
    finally:
        await store.close()


async def refusal(store: SpentStore) -> str:
    """Why the store refuses a spend."""
    with pytest.raises(StoreAway) as caught:
        await store.spend(token(), 1, LATER)
    return caught.value.reason.value


@contextlib.contextmanager
def one_outage(reason: str) -> Iterator[None]:
    with capture_logs() as logs:
        yield
    assert [line["event"] for line in logs] == ["spent_store_away", "spent_store_back"]
    assert logs[0]["reason"] == reason
    assert "127.0.0.1" not in str(logs)


async def test_what_is_in_the_server(redis_server: RedisProcess) -> None:
    used, other = token(), token()
    prefix = f"test:{token().hex()}:"
    async with opened(redis_server.url, prefix=prefix) as store:
        assert await store.spend(used, 3, NOW + 10)
        assert await store.spend(used, 3, LATER)
        assert await store.spend(used, 3, NOW + 20)
        assert await store.spend(other, 1, NOW + 20)
        assert not await store.spend(other, 1, LATER)
    with contextlib.closing(redis.Redis(port=redis_server.port)) as client:
        keys = {prefix.encode() + used, prefix.encode() + other}
        assert set(client.scan_iter(prefix + "*")) == keys
        assert client.get(prefix.encode() + used) == b"3"
        left = client.pttl(prefix.encode() + used)
        assert isinstance(left, int)
        assert 0 < (86_400 + GRACE) * 1000 - left < 60_000


async def test_the_server_forgets_in_time(redis_server: RedisProcess) -> None:
    """With a clock that is `GRACE` behind, so that the entry ends as soon as a test can wait for."""
    clock = Clock()
    store = open_store(StoreKind.REDIS, clock, url=redis_server.url, prefix="test:forget:")
    used = token()
    assert await store.spend(used, 1, clock.now + 1)
    with contextlib.closing(redis.Redis(port=redis_server.port)) as client:
        key = b"test:forget:" + used
        left = client.pttl(key)
        assert isinstance(left, int)
        assert 0 < left - GRACE * 1000 <= 1000
        client.pexpire(key, 1)

        async def is_gone() -> bool:
            return not client.exists(key)

        await until(is_gone)
    await store.close()


async def test_a_server_that_restarts(server: RedisProcess) -> None:
    """The store is back without a restart of its own; what the server lost, a process still knows itself."""
    used = token()
    async with opened(server.url) as store:
        assert await store.spend(used, 1, LATER)
        with one_outage("unreachable"):
            server.stop()
            assert await refusal(store) == "unreachable"
            assert await refusal(store) == "unreachable"
            server.start()
            await until(lambda: answers(store))
        assert not await store.spend(used, 1, LATER)


async def test_a_connection_that_the_server_closed_is_no_outage(server: RedisProcess) -> None:
    async with opened(server.url) as store:
        assert await answers(store)
        with contextlib.closing(redis.Redis(port=server.port)) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        with capture_logs() as logs:
            assert await answers(store)
        assert not logs


async def test_a_server_with_a_file_loses_nothing(tmp_path: Path) -> None:
    """`appendfsync always`: killed and started anew, it has all that was answered."""
    with redis_process(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        tokens = [token() for _ in range(50)]
        async with opened(server.url) as store:
            assert all(await asyncio.gather(*[store.spend(used, 1, LATER) for used in tokens]))
        server.stop()
        server.start()
        async with opened(server.url) as store:
            await until(lambda: answers(store))
            assert not any(await asyncio.gather(*[store.spend(used, 1, LATER) for used in tokens]))


async def test_a_server_that_is_away_at_the_start(server: RedisProcess) -> None:
    server.stop()
    async with opened(server.url) as store:
        with one_outage("unreachable"):
            with pytest.raises(StoreAway, match="unreachable"):
                await store.probe()
            server.start()
            await until(lambda: answers(store))


async def test_a_slow_server_is_away_within_the_timeout(server: RedisProcess) -> None:
    async with opened(server.url, timeout=0.2) as store:
        await store.probe()
        with one_outage("timeout"):
            with server.paused():
                begun = time.monotonic()
                waiting = [store.spend(token(), 1, LATER) for _ in range(20)]
                found = await asyncio.gather(*waiting, return_exceptions=True)
                assert time.monotonic() - begun < 2
                assert {str(answer) for answer in found} == {"timeout"}
            await until(lambda: answers(store))


async def test_a_late_answer_admits_nobody_and_the_use_counts_at_most_once(server: RedisProcess) -> None:
    used = token()
    async with opened(server.url, timeout=0.2) as store, opened(server.url) as other:
        await store.probe()
        with server.paused(), pytest.raises(StoreAway, match="timeout"):
            await store.spend(used, 1, LATER)
        admitted = await asyncio.gather(*[other.spend(used, 1, LATER) for _ in range(10)])
        assert sum(admitted) <= 1
        assert not await other.spend(used, 1, LATER)


async def test_a_batch_is_sent_once() -> None:
    """A connection that breaks after the script was sent is not a reason to send it again: it may have counted."""
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while data := await reader.read(65536):
            if b"EVAL" in data:
                sent += 1
                break
            writer.write(
                b"$0\r\n\r\n" if b"INFO" in data and b"SETINFO" not in data else b"+OK\r\n" * data.count(b"*")
            )
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with opened(f"redis://127.0.0.1:{port}") as store:
            assert await refusal(store) == "unreachable"
            assert sent == 1


async def test_a_password_and_tls(tmp_path: Path) -> None:
    write_certificates(tmp_path, ["localhost", "127.0.0.1"])
    files = {"--tls-cert-file": "server.pem", "--tls-key-file": "server.key", "--tls-ca-cert-file": "ca.pem"}
    options = [word for name, file in files.items() for word in (name, str(tmp_path / file))]
    options += ["--tls-port", "{port}", "--tls-auth-clients", "no", "--requirepass", PASSWORD]
    quoted = "a%3Apassword%2Fwith%40signs"
    with redis_process(tmp_path, *options) as server:
        place = f"127.0.0.1:{server.port}/0"
        async with opened(f"rediss://:{quoted}@{place}", ca_file=tmp_path / "ca.pem") as store:
            assert await store.spend(token(), 1, LATER)
        for url, reason in (
            (f"rediss://:wrong@{place}", "refused"),
            (f"rediss://{place}", "refused"),
            (f"redis://:{quoted}@{place}", "unreachable"),
        ):
            async with opened(url, ca_file=tmp_path / "ca.pem") as store:
                assert await refusal(store) == reason
        async with opened(f"rediss://:{quoted}@{place}") as store:
            assert await refusal(store) == "untrusted"


async def test_a_server_that_evicts_is_refused(server: RedisProcess) -> None:
    with contextlib.closing(redis.Redis(port=server.port)) as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "volatile-ttl")
        async with opened(server.url) as store:
            with one_outage("evicts"):
                assert await refusal(store) == "evicts"
                client.config_set("maxmemory-policy", "noeviction")
                assert await answers(store)


async def test_a_server_whose_memory_is_full(server: RedisProcess) -> None:
    with contextlib.closing(redis.Redis(port=server.port)) as client:
        async with opened(server.url) as store:
            assert await answers(store)
            with one_outage("full"):
                client.config_set("maxmemory", "1")
                assert await refusal(store) == "full"
                client.config_set("maxmemory", "0")
                assert await answers(store)


async def test_a_user_with_the_least_rights(server: RedisProcess) -> None:
    """Who may not ask for INFO is believed; who may not write is refused."""
    with contextlib.closing(redis.Redis(port=server.port)) as client:
        commands, keys = ["+eval", "+get", "+incr", "+pttl", "+pexpire"], ["relay:spent:*"]
        client.acl_setuser("relay", True, passwords="+secret", commands=commands, keys=keys)
        client.acl_setuser("reader", True, passwords="+secret", commands=["+eval", "+get"], keys=["*"])
    place = f"127.0.0.1:{server.port}/0"
    async with opened(f"redis://relay:secret@{place}") as store:
        used = token()
        assert [await store.spend(used, 2, LATER) for _ in range(3)] == [True, True, False]
    async with opened(f"redis://reader:secret@{place}") as store:
        assert await refusal(store) in {"refused", "failed"}
    async with opened(f"redis://relay:secret@{place}", prefix="other:") as store:
        assert await refusal(store) in {"refused", "failed"}


async def test_replicas(tmp_path: Path) -> None:
    """A replica is refused. With `replicas`, a batch waits for them, and fails closed without."""
    (tmp_path / "replica").mkdir()
    with (
        redis_process(tmp_path, "--repl-diskless-sync-delay", "0") as server,
        redis_process(tmp_path / "replica", "--replicaof", "127.0.0.1", str(server.port)) as replica,
    ):

        async def is_in_step() -> bool:
            with contextlib.closing(redis.Redis(port=server.port)) as client:
                client.incr("step")
                return client.wait(1, 100) == 1

        await until(is_in_step)
        async with opened(replica.url) as store:
            assert await refusal(store) == "read_only"
        used = token()
        async with opened(server.url, replicas=1, timeout=20.0) as store:
            assert await store.spend(used, 1, LATER)
            with contextlib.closing(redis.Redis(port=replica.port)) as client:
                assert client.get(b"relay:spent:" + used) == b"1"
        async with opened(server.url, replicas=1, timeout=1.0) as store:
            with one_outage("not_replicated"):
                with replica.paused():
                    assert await refusal(store) == "not_replicated"
                await until(lambda: answers(store))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:6379",
        "http://secret@h",
        "redis://h:secret",
        "redis://h/0?socket_timeout=9",
        "redis://h/0#secret",
    ],
)
def test_urls_that_cannot_be_used(url: str, clock: Clock) -> None:
    with pytest.raises(ValueError, match="the URL of the Redis server") as caught:
        open_store(StoreKind.REDIS, clock, url=url)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_the_url_is_in_no_text() -> None:
    assert "secret" not in repr(RedisServer("redis://:secret@h", "p:", None, 0, 1.0))
