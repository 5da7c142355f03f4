"""Tokens are spent once, whatever is replayed, killed or away; and keys rotate under a relay that serves."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import pytest

from masque.connect import connect_head
from masque.errors import ErrorCode
from masque.privacypass import Token
from relay.conformance.wire import WireClient
from relay.telemetry import Metric, TokenRefusal
from tests.e2e.origins import tcp_listener
from tests.e2e.rig import Relay, RelayProcess, running_process, running_relay, until
from tests.e2e.tokens import ask, offers, token_settings
from tests.relay.private_token.rig import (
    credentials,
    directory,
    https_server,
    new_issuer,
    pem,
    vector_issuer,
    voprf_token,
)

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def connections(relays: Iterable[Relay | RelayProcess], each: int) -> AsyncIterator[list[WireClient]]:
    """Connect so often to each."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(relay.wire()) for relay in relays for _ in range(each)]


class TestReplay:
    async def test_over_many_connections_at_once(self, certificates: Path, tmp_path: Path) -> None:
        overrides = token_settings(tmp_path, store__kind="sqlite", store__path=str(tmp_path / "spent.db"))
        async with (
            tcp_listener() as origin,
            running_relay(certificates, "qh3", overrides) as relay,
            connections([relay], 10) as clients,
        ):
            challenge = (await offers(clients[0]))[0].challenge
            for _ in range(5):
                token = vector_issuer().token(challenge)
                answers = await asyncio.gather(*[ask(client, origin.port, token) for client in clients * 3])
                assert sorted(str(stream.status) for stream in answers) == ["200"] + ["407"] * 29

    @pytest.mark.slow
    async def test_over_two_processes_that_share_a_file(self, certificates: Path, tmp_path: Path) -> None:
        """Each token is sent to both relays over several connections while others are spent: one tunnel each."""
        overrides = token_settings(tmp_path, store__kind="sqlite", store__path=str(tmp_path / "spent.db"))
        async with AsyncExitStack() as stack:
            origin = await stack.enter_async_context(tcp_listener())
            relays = [await stack.enter_async_context(running_process(certificates, "qh3", overrides)) for _ in "ab"]
            clients = await stack.enter_async_context(connections(relays, 4))
            challenge = (await offers(clients[0]))[0].challenge
            tokens = [vector_issuer().token(challenge) for _ in range(60)]

            async def replay(token: Token) -> list[int | None]:
                answers = await asyncio.gather(*[ask(client, origin.port, token) for client in clients])
                for client, stream in zip(clients, answers, strict=True):
                    client.reset(stream, ErrorCode.H3_REQUEST_CANCELLED)
                return [stream.status for stream in answers]

            found: list[list[int | None]] = []
            for at in range(0, len(tokens), 10):
                found += await asyncio.gather(*[replay(token) for token in tokens[at : at + 10]])
            assert [sorted(map(str, answers)) for answers in found] == [["200"] + ["407"] * 7] * len(tokens)
            for relay in relays:
                assert await relay.stop() == 0
                assert "error" not in relay.output

    @pytest.mark.slow
    @pytest.mark.parametrize("mode", ["die_before_commit", "die_after_commit"])
    async def test_a_kill_around_the_commit(self, certificates: Path, tmp_path: Path, mode: str) -> None:
        """The relay that was killed has admitted nobody. Before the commit the token is still good, after it not."""
        overrides = token_settings(tmp_path, store__kind="sqlite", store__path=str(tmp_path / "spent.db"))
        async with tcp_listener() as origin:
            deadly = ("tests.e2e.deadly_relay", mode)
            async with (
                running_process(certificates, "qh3", overrides, module=deadly) as relay,
                relay.wire() as client,
            ):
                token = vector_issuer().token((await offers(client))[0].challenge)
                fields = ((b"proxy-authorization", credentials(token)),)
                stream = client.request(connect_head("127.0.0.1", origin.port, fields))
                async with asyncio.timeout(30):
                    assert await relay.process.wait() == -signal.SIGKILL
                assert stream.status is None
            async with running_process(certificates, "qh3", overrides) as relay, relay.wire() as client:
                expected = [200, 407] if mode == "die_before_commit" else [407, 407]
                assert [(await ask(client, origin.port, token)).status for _ in range(2)] == expected


async def test_no_process_is_left_of_a_relay_that_was_killed(certificates: Path, tmp_path: Path) -> None:
    async with (
        tcp_listener() as origin,
        running_process(certificates, "qh3", token_settings(tmp_path)) as relay,
        relay.wire() as client,
    ):
        token = voprf_token((await offers(client))[1].challenge)
        assert (await ask(client, origin.port, token)).status == 200
        (evaluator,) = psutil.Process(relay.process.pid).children()
        assert await relay.stop(signal.SIGKILL) == -signal.SIGKILL
        await until(lambda: not evaluator.is_running() or evaluator.status() == psutil.STATUS_ZOMBIE)


class TestStoreAway:
    async def test_503_until_it_is_back(self, certificates: Path, tmp_path: Path) -> None:
        path, aside = tmp_path / "spent.db", tmp_path / "aside"
        overrides = token_settings(tmp_path, store__kind="sqlite", store__path=str(path), store__retry="0.05")
        async with tcp_listener() as origin, running_process(certificates, "qh3", overrides) as relay:
            async with relay.wire() as client:
                challenge = (await offers(client))[0].challenge
                tokens = [vector_issuer().token(challenge) for _ in range(4)]
                assert (await ask(client, origin.port, tokens[0])).status == 200
                path.rename(aside)
                for token in tokens:
                    stream = await ask(client, origin.port, token)
                    if token is tokens[0]:
                        assert stream.status == 407, "what is known to be spent needs no store"
                        continue
                    assert stream.status == 503
                    assert stream.field(b"retry-after") == b"5"
                    assert stream.field(b"proxy-status") == b"masque-relay;error=proxy_internal_error"
                assert (await ask(client, origin.port)).status == 407
                aside.rename(path)

                async def good() -> bool:
                    return (await ask(client, origin.port, vector_issuer().token(challenge))).status == 200

                async with asyncio.timeout(5):
                    while not await good():  # noqa: ASYNC110 - who else could tell
                        await asyncio.sleep(0.02)
                await asyncio.sleep(0.06)  # the time without a failure that the log calls it back after
                assert await good()
            assert await relay.stop() == 0
            assert relay.output.count("spent_store_away") == 1
            assert relay.output.count("spent_store_back") == 1


class TestRotation:
    async def test_keys_of_a_directory_change_without_a_restart(self, certificates: Path, tmp_path: Path) -> None:
        old, new = vector_issuer(), new_issuer(1)
        async with tcp_listener() as origin, https_server(certificates) as server:
            server.serve(directory(old))
            issuer: dict[str, object] = {"directory": server.url, "ca_file": str(certificates / "ca.pem")}
            async with running_relay(certificates, "qh3", token_settings(tmp_path, issuer)) as relay:
                await until(lambda: relay.count(Metric.DIRECTORIES_FETCHED))
                async with relay.wire() as client:
                    (offer,) = await offers(client)
                    assert offer.token_key == old.spki
                    kept = old.token(offer.challenge)
                    server.serve(directory(new, old))
                    assert await relay.server.reload_keys()
                    await until(lambda: relay.count(Metric.DIRECTORIES_FETCHED) == 2)
                    assert [each.token_key for each in await offers(client)] == [new.spki]
                    for token in (kept, new.token(offer.challenge)):
                        assert (await ask(client, origin.port, token)).status == 200
                    server.serve(b"", "500 Broken")
                    await relay.server.reload_keys()
                    await until(lambda: relay.count(Metric.DIRECTORIES_FAILED))
                    assert (await ask(client, origin.port, old.token(offer.challenge))).status == 200
                    server.serve(directory(new))
                    await relay.server.reload_keys()
                    await until(lambda: relay.count(Metric.DIRECTORIES_FETCHED) == 3)
                    assert (await ask(client, origin.port, old.token(offer.challenge))).status == 407
                    assert relay.count(Metric.TOKENS_REFUSED, TokenRefusal.UNKNOWN_KEY) == 1

    async def test_a_relay_starts_without_its_issuer(self, certificates: Path, tmp_path: Path) -> None:
        async with https_server(certificates) as server, tcp_listener() as origin:
            server.serve(b"", "503 Later")
            issuer: dict[str, object] = {"directory": server.url, "ca_file": str(certificates / "ca.pem")}
            async with (
                running_relay(certificates, "qh3", token_settings(tmp_path, issuer)) as relay,
                relay.wire() as client,
            ):
                (offer,) = await offers(client)
                assert offer.token_key is None
                token = vector_issuer().token(offer.challenge)
                assert (await ask(client, origin.port, token)).status == 503
                server.serve(directory(vector_issuer()))
                await relay.server.reload_keys()
                await until(lambda: relay.count(Metric.DIRECTORIES_FETCHED))
                assert (await ask(client, origin.port, token)).status == 200

    async def test_files_are_read_again_with_sighup(self, certificates: Path, tmp_path: Path) -> None:
        new = new_issuer(1)
        async with tcp_listener() as origin, running_process(certificates, "qh3", token_settings(tmp_path)) as relay:
            async with relay.wire() as client:
                challenge = (await offers(client))[0].challenge
                (tmp_path / "key.pem").write_bytes(b"nonsense!")
                relay.process.send_signal(signal.SIGHUP)
                await until(lambda: "token_keys_refused" in relay.output)
                assert (await ask(client, origin.port, vector_issuer().token(challenge))).status == 200
                (tmp_path / "key.pem").write_bytes(pem(new.spki))
                relay.process.send_signal(signal.SIGHUP)
                await until(lambda: "token_keys_reloaded" in relay.output)
                assert (await ask(client, origin.port, new.token(challenge))).status == 200
                assert (await ask(client, origin.port, vector_issuer().token(challenge))).status == 407
            assert await relay.stop() == 0
