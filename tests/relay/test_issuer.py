"""relay.issuer: what the development issuer answers, as a function and on the wire."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.privacypass import DIRECTORY_PATH, REQUEST_MEDIA_TYPE, TokenType, begin
from relay.auth import preshared_entry
from relay.issuer import MAX_REQUEST_SIZE, REQUEST_PATH, DevelopmentIssuer, Request
from tests.masque.privacypass_vectors import rsa_key, voprf_key
from tests.relay.rig import PATIENCE
from tests.relay.token_rig import challenge, running_issuer

pytestmark = pytest.mark.anyio

KEYS = (rsa_key(), voprf_key())


class TestAnswers:
    def ask(self, **changes: object) -> int:
        """The status of a request that would be good but for the changes."""
        pending = begin(challenge(TokenType.VOPRF_P384), voprf_key().public, bytes(32))
        parts = {
            "method": b"POST",
            "path": REQUEST_PATH.encode(),
            "media_type": REQUEST_MEDIA_TYPE,
            "content": pending.request,
            **changes,
        }
        return DevelopmentIssuer(KEYS).answer(Request(**parts)).status  # type: ignore[arg-type]  # by name, in a test

    def test_statuses(self) -> None:
        assert self.ask() == 200
        assert self.ask(method=b"GET") == 405
        assert self.ask(path=b"/other") == 404
        assert self.ask(path=DIRECTORY_PATH.encode()) == 405
        assert self.ask(path=DIRECTORY_PATH.encode() + b"?x", method=b"HEAD") == 200
        assert self.ask(media_type=b"text/plain") == 415
        assert self.ask(content=bytes(MAX_REQUEST_SIZE + 1)) == 413
        assert self.ask(content=b"") == 422

    @given(st.binary(max_size=MAX_REQUEST_SIZE))
    def test_any_content_is_a_token_or_422(self, content: bytes) -> None:
        assert self.ask(content=content) == 422

    @given(st.sampled_from([b"GET", b"POST", b"X"]), st.binary(max_size=40), st.binary(max_size=40))
    def test_any_request_has_an_answer(self, method: bytes, path: bytes, authorization: bytes) -> None:
        issuer = DevelopmentIssuer(KEYS, preshared_entry("key"))
        assert issuer.answer(Request(method, path, authorization=authorization)).status in (200, 401, 404, 405)


async def talk(url: str, folder: Path, data: bytes) -> bytes:
    """Send bytes to an issuer and return what comes until it closes; nothing when it does not let us in."""
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    port = int(url.rpartition(":")[2])
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            try:
                writer.write(data)
                await writer.drain()
                return await reader.read()
            finally:
                writer.close()
    except (ConnectionError, ssl.SSLError):
        return b""


GET = b"GET %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % DIRECTORY_PATH.encode()


class TestOnTheWire:
    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (GET, 200),
            (b"nonsense\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 20_000, 431),
            (
                b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: %b\r\ncontent-length: 99999\r\n\r\n"
                % (REQUEST_PATH.encode(), REQUEST_MEDIA_TYPE)
                + bytes(2000),
                413,
            ),
            (GET.replace(b"GET", b"HEAD"), 200),
        ],
    )
    async def test_what_comes_for_a_request(self, folder: Path, data: bytes, status: int) -> None:
        async with running_issuer(folder, KEYS) as url:
            assert (await talk(url, folder, data)).startswith(b"HTTP/1.1 %d" % status)

    async def test_connections_have_a_bound_and_are_given_back(self, folder: Path) -> None:
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        async with running_issuer(folder, KEYS) as url:
            port = int(url.rpartition(":")[2])
            held = [await asyncio.open_connection("127.0.0.1", port, ssl=context) for _ in range(64)]
            assert await talk(url, folder, GET) == b""
            for _, writer in held:
                writer.close()
            async with asyncio.timeout(PATIENCE):
                while not (await talk(url, folder, GET)).startswith(b"HTTP/1.1 200"):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)  # the issuer has yet to see that they are gone

    async def test_a_failed_handshake_disturbs_nobody(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        async with running_issuer(folder, KEYS) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(b"this is no TLS\r\n\r\n")
            async with asyncio.timeout(PATIENCE):
                await reader.read()
            writer.close()
            assert (await talk(url, folder, GET)).startswith(b"HTTP/1.1 200")
        assert not caplog.records
