"""Directories over real HTTPS: what is taken, what is refused, and what an issuer that is away costs."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st
from structlog.typing import EventDict

from masque.privacypass import DIRECTORY_PATH, MAX_DIRECTORY_SIZE, TokenType, parse_directory
from relay.auth.private_token import directory as module
from relay.auth.private_token import refresh
from relay.auth.private_token.directory import (
    DirectoryError,
    DirectoryFault,
    FetchedDirectory,
    directory_url,
    fetch_directory,
    make_trust,
)
from relay.auth.private_token.key_ring import KeyRing
from relay.auth.private_token.refresh import Refresh
from relay.settings import IssuerSettings
from relay.telemetry import CounterMetrics, Metric
from tests.relay.private_token.rig import HttpsServer, directory, https_server, new_issuer, vector_issuer

pytestmark = pytest.mark.anyio

GOOD = directory(vector_issuer())


async def fetch(server: HttpsServer, certificates: Path, ca: bool = True) -> FetchedDirectory:
    """Fetch the directory of a server."""
    trust = make_trust(certificates / "ca.pem" if ca else None)
    async with httpx.AsyncClient(verify=trust, trust_env=False, follow_redirects=False) as client:
        return await fetch_directory(client, directory_url(server.url))


async def fault(server: HttpsServer, certificates: Path, ca: bool = True) -> DirectoryFault:
    """Fetch a directory that cannot be had; returns why."""
    with pytest.raises(DirectoryError) as caught:
        await fetch(server, certificates, ca)
    assert str(caught.value) == caught.value.fault.value
    return caught.value.fault


async def test_a_directory_is_at_the_well_known_place(certificates: Path) -> None:
    async with https_server(certificates) as server:
        server.serve(GOOD)
        fetched = await fetch(server, certificates)
        assert server.paths == [DIRECTORY_PATH]
        assert [key.token_key for key in fetched.directory.keys] == [vector_issuer().spki]
        assert fetched.max_age is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.example", f"https://a.example{DIRECTORY_PATH}"),
        ("https://a.example:8443/", f"https://a.example:8443{DIRECTORY_PATH}"),
        ("https://a.example/keys", "https://a.example/keys"),
    ],
)
def test_where_a_directory_is(url: str, expected: str) -> None:
    assert directory_url(url) == expected


@pytest.mark.parametrize("url", ["https://256.0.0.1", "https://[::g]", "https://a:b", "https://a.example/\n"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ValueError, match=r"^a URL that cannot be fetched$"):
        directory_url(url)


@given(st.text(max_size=40).map(lambda text: f"https://{text}"))
def test_any_text_is_a_url_or_refused(url: str) -> None:
    with contextlib.suppress(ValueError):
        assert directory_url(url)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("max-age=60", 60.0),
        ("public, MAX-AGE=7", 7.0),
        ("no-cache", 0.0),
        ("max-age=60, no-store", 0.0),
        ("max-age=soon", None),
        ("max-age=99999999999", None),
        ("public", None),
    ],
)
async def test_cache_control(certificates: Path, value: str, seconds: float | None) -> None:
    async with https_server(certificates) as server:
        server.serve(GOOD, cache_control=value)
        assert (await fetch(server, certificates)).max_age == seconds


async def test_redirects_stay_on_the_host(certificates: Path) -> None:
    async with https_server(certificates) as server, https_server(certificates) as other:
        other.serve(GOOD)
        server.serve(b"", "302 Found", location=other.url + "/keys")
        assert await fault(server, certificates) is DirectoryFault.REDIRECTED
        server.serve(b"", "302 Found", location=server.url.replace("https", "http") + "/keys")
        assert await fault(server, certificates) is DirectoryFault.REDIRECTED
        server.serve(b"", "302 Found", location="/again")
        assert await fault(server, certificates) is DirectoryFault.REDIRECTED
        assert other.paths == []
        assert server.paths[-4:] == [DIRECTORY_PATH, "/again", "/again", "/again"]
        moved = b"HTTP/1.1 308 Moved\r\nlocation: keys\r\ncontent-length: 0\r\n\r\n"
        found = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(GOOD), GOOD)
        server.answer = lambda path: moved if path == DIRECTORY_PATH else found
        assert (await fetch(server, certificates)).directory.keys
        assert server.paths[-1] == "/.well-known/keys"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", DirectoryFault.STATUS),
        (b"HTTP/1.1 204 None\r\n\r\n", DirectoryFault.STATUS),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", DirectoryFault.MALFORMED),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n<html></h", DirectoryFault.MALFORMED),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(MAX_DIRECTORY_SIZE + 1), DirectoryFault.TOO_LONG),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + GOOD[:50], DirectoryFault.UNREACHABLE),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(GOOD), DirectoryFault.MALFORMED),
        (b"not HTTP at all\r\n\r\n", DirectoryFault.UNREACHABLE),
        (b"HTTP/1.1 302 Found\r\nlocation: https://[bad\r\ncontent-length: 0\r\n\r\n", DirectoryFault.REDIRECTED),
        (b"HTTP/1.1 302 Found\r\nlocation: https://a:bad/\r\ncontent-length: 0\r\n\r\n", DirectoryFault.UNREACHABLE),
        (b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", DirectoryFault.STATUS),
        (b"", DirectoryFault.UNREACHABLE),
    ],
)
async def test_answers_that_are_no_directory(certificates: Path, answer: bytes, expected: DirectoryFault) -> None:
    async with https_server(certificates) as server:
        server.answer = lambda path: answer
        assert await fault(server, certificates) is expected


async def test_issuers_that_do_not_answer(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with https_server(certificates) as server:
        server.serve(GOOD)
        assert await fault(server, certificates, ca=False) is DirectoryFault.UNTRUSTED
        monkeypatch.setattr(module, "_PATIENCE", 0.1)
        server.answer = lambda path: None
        assert await fault(server, certificates) is DirectoryFault.TIMEOUT
    assert await fault(server, certificates) is DirectoryFault.UNREACHABLE


async def until(fact: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(5):
        while not fact():  # noqa: ASYNC110 - a count tells nobody that it changed
            await asyncio.sleep(0.005)


class Issuer:
    """An issuer on the loopback, and the ring that follows its directory."""

    def __init__(self, server: HttpsServer, ring: KeyRing, refresh: Refresh, metrics: CounterMetrics) -> None:
        self.server = server
        self.ring = ring
        self.refresh = refresh
        self.metrics = metrics

    @property
    def keys(self) -> list[bytes]:
        return [key.encoded for key in self.ring.live(TokenType.BLIND_RSA_2048).values()]

    def fetched(self) -> int:
        return self.metrics.value(Metric.DIRECTORIES_FETCHED)

    def failed(self) -> int:
        return self.metrics.value(Metric.DIRECTORIES_FAILED)

    async def next(self) -> None:
        """Have it fetched, and wait for that."""
        before = self.fetched() + self.failed()
        self.refresh.hurry()
        await until(lambda: self.fetched() + self.failed() > before)


@asynccontextmanager
async def following(certificates: Path, content: bytes, **changes: object) -> AsyncIterator[Issuer]:
    async with https_server(certificates) as server:
        server.serve(content)
        ca_file = certificates / "ca.pem"
        settings = {"name": "a.example", "directory": server.url, "ca_file": ca_file, **changes}
        ring, metrics = KeyRing(0, IssuerSettings.model_validate(settings)), CounterMetrics()
        refreshing = Refresh(ring, make_trust(ca_file), metrics)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(refreshing.run())
            try:
                yield Issuer(server, ring, refreshing, metrics)
            finally:
                running.cancel()


def events(lines: list[EventDict]) -> list[tuple[object, ...]]:
    return [(line["event"], line.get("reason"), line.get("count")) for line in lines]


async def test_keys_follow_the_directory(certificates: Path) -> None:
    first, second = vector_issuer(), new_issuer(1)
    with structlog.testing.capture_logs() as lines:
        async with following(certificates, directory(first)) as issuer:
            await until(issuer.fetched)
            assert issuer.keys == [first.spki]
            issuer.server.serve(directory(second, first))
            await issuer.next()
            assert issuer.keys == [second.spki, first.spki]
            await issuer.next()
            issuer.server.serve(directory(second))
            await issuer.next()
            assert issuer.keys == [second.spki]
    assert events(lines) == [("issuer_keys_changed", None, count) for count in (1, 2, 1)]
    assert "127.0.0.1" not in str(lines)


async def test_an_issuer_that_is_away_keeps_its_keys_and_one_line_tells(certificates: Path) -> None:
    with structlog.testing.capture_logs() as lines:
        async with following(certificates, directory(vector_issuer(), new_issuer(1))) as issuer:
            await until(issuer.fetched)
            for content, status in [(b"", "503 No"), (b"{}", "200 OK"), (directory(), "200 OK")]:
                issuer.server.serve(content, status)
                await issuer.next()
                assert len(issuer.keys) == 2
            issuer.server.serve(directory(vector_issuer()))
            await issuer.next()
            assert len(issuer.keys) == 1
    assert events(lines) == [
        ("issuer_keys_changed", None, 2),
        ("issuer_away", "status", 2),
        ("issuer_back", None, 3),
        ("issuer_keys_changed", None, 1),
    ]


async def test_it_is_fetched_again_by_itself(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "_SOONEST", 0.02)
    async with following(certificates, b"") as issuer:
        issuer.server.serve(directory(vector_issuer()), cache_control="max-age=0")
        await until(lambda: issuer.fetched() > 2)


async def test_a_failure_is_tried_again_ever_more_rarely(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "_RETRY", 0.01)
    monkeypatch.setattr(refresh, "_RETRY_AT_MOST", 0.04)
    async with following(certificates, b"nonsense") as issuer:
        await until(lambda: issuer.failed() > 3)
        assert issuer.refresh._retry == 0.04
        issuer.server.serve(GOOD)
        await until(issuer.fetched)
        assert issuer.refresh._retry == 0.01


@pytest.mark.parametrize(("max_age", "seconds"), [(None, 3600), (0, 60), (600, 600), (86_400, 3600)])
def test_how_long_a_directory_is_used(max_age: float | None, seconds: float, certificates: Path) -> None:
    settings = IssuerSettings(name="a.example", directory="https://a.example")
    refreshing = Refresh(KeyRing(0, settings), make_trust(certificates / "ca.pem"), CounterMetrics())
    fetched = FetchedDirectory(parse_directory(GOOD), max_age)
    assert refreshing._lifetime(fetched) == seconds


def test_authorities_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for path in (tmp_path / "ca.pem", tmp_path / "none.pem"):
        with pytest.raises(OSError, match=r"."):
            make_trust(path)
