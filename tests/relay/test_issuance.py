"""relay.issuance: tokens over real HTTPS, from our issuer and from issuers that break the rules."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.privacypass import (
    DIRECTORY_MEDIA_TYPE,
    DIRECTORY_PATH,
    REQUEST_MEDIA_TYPE,
    RESPONSE_MEDIA_TYPE,
    BlindRsaPrivateKey,
    ChallengeOffer,
    Token,
    TokenType,
    VoprfPrivateKey,
    challenge_digest,
    encode_base64url,
    read_token,
    verify_token,
)
from relay.auth import generate_key, preshared_entry
from relay.issuance import (
    IssuanceError,
    Issuer,
    KeyFileError,
    directory_url,
    issuer_authority,
    make_key_files,
    open_http,
    read_key_file,
)
from relay.issuer import REQUEST_PATH, DevelopmentIssuer, Request
from tests.masque.privacypass_vectors import rsa_key, voprf_key
from tests.relay.rig import PATIENCE
from tests.relay.token_rig import challenge, running_issuer, verifying

pytestmark = pytest.mark.anyio

KEYS = (rsa_key(), voprf_key())
TYPES = (TokenType.BLIND_RSA_2048, TokenType.VOPRF_P384)
NOW = 1_000_000.0


@asynccontextmanager
async def asking(url: str, folder: Path, key: str | None = None, timeout: float = PATIENCE) -> AsyncIterator[Issuer]:
    """The issuer at a URL."""
    authorization = None if key is None else f"Preshared {key}"
    async with open_http(folder / "ca.pem", authorization, timeout) as http:
        yield Issuer(http, url, lambda: NOW)


def offer(token_type: TokenType, *, names_key: bool = True) -> ChallengeOffer:
    """A challenge of the tests' issuer."""
    key = KEYS[TYPES.index(token_type)].public.encoded
    return ChallengeOffer(challenge(token_type), key if names_key else None)


class TestOurIssuer:
    @pytest.mark.parametrize("token_type", TYPES)
    @pytest.mark.parametrize("names_key", [True, False])
    async def test_tokens_verify(self, folder: Path, token_type: TokenType, names_key: bool) -> None:
        key = verifying(KEYS[TYPES.index(token_type)])
        wanted = offer(token_type, names_key=names_key)
        accepted = {challenge_digest(wanted.challenge): {key.key_id: key}}
        async with running_issuer(folder, KEYS) as url, asking(url, folder) as issuer:
            tokens = await issuer.fetch(wanted, 7)
        assert len(set(tokens)) == 7
        for data in tokens:
            token = read_token(data)
            assert isinstance(token, Token)
            assert verify_token(token, accepted) is None

    async def test_a_key_that_is_not_listed_is_not_used(self, folder: Path) -> None:
        other = VoprfPrivateKey(b"\2" * 32)
        marked = ChallengeOffer(challenge(TokenType.VOPRF_P384), other.public.encoded)
        async with running_issuer(folder, KEYS) as url, asking(url, folder) as issuer:
            with pytest.raises(IssuanceError, match="does not list"):
                await issuer.fetch(marked)

    async def test_a_new_key_is_found_at_once(self, folder: Path) -> None:
        """The directory that was kept is older than the challenge."""
        keys: list[BlindRsaPrivateKey | VoprfPrivateKey] = [rsa_key()]
        async with asking_changing(folder, keys) as issuer:
            await issuer.directory()
            keys.insert(0, voprf_key())
            assert len(await issuer.fetch(offer(TokenType.VOPRF_P384))) == 1

    async def test_a_type_that_the_issuer_lacks(self, folder: Path) -> None:
        async with running_issuer(folder, [rsa_key()]) as url, asking(url, folder) as issuer:
            with pytest.raises(IssuanceError, match="no key of type 1"):
                await issuer.fetch(offer(TokenType.VOPRF_P384, names_key=False))

    @pytest.mark.parametrize("data", [b"", b"\0", b"\xda\x7a" + bytes(50)])
    async def test_a_challenge_of_an_unknown_type(self, folder: Path, data: bytes) -> None:
        async with asking("https://127.0.0.1:9", folder) as issuer:
            with pytest.raises(IssuanceError, match="type that we do not know"):
                await issuer.fetch(ChallengeOffer(data))

    async def test_only_who_has_the_key_gets_tokens(self, folder: Path) -> None:
        key = generate_key()
        async with running_issuer(folder, KEYS, preshared_entry(key)) as url:
            async with asking(url, folder, key) as issuer:
                assert len(await issuer.fetch(offer(TokenType.BLIND_RSA_2048))) == 1
            for wrong in (None, generate_key()):
                async with asking(url, folder, wrong) as issuer:
                    with pytest.raises(IssuanceError, match="401"):
                        await issuer.fetch(offer(TokenType.BLIND_RSA_2048))

    async def test_an_untrusted_certificate_is_told(self, folder: Path) -> None:
        async with running_issuer(folder, KEYS) as url, open_http() as http:
            with pytest.raises(IssuanceError, match="not trusted"):
                await Issuer(http, url, lambda: NOW).directory()

    async def test_nobody_there(self, folder: Path) -> None:
        async with asking("https://127.0.0.1:1", folder) as issuer:
            with pytest.raises(IssuanceError, match="no connection"):
                await issuer.directory()

    async def test_an_authority_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").write_text("no certificate")
        with pytest.raises(IssuanceError, match=r"ca\.pem"):
            async with open_http(tmp_path / "ca.pem"):
                pass


@asynccontextmanager
async def asking_changing(
    folder: Path, keys: list[BlindRsaPrivateKey | VoprfPrivateKey], cache: bytes = b"max-age=3600"
) -> AsyncIterator[Issuer]:
    """An issuer whose keys may change while it is asked."""

    def answer(head: bytes, content: bytes) -> bytes:
        method, path = head.split(b" ")[:2]
        found = DevelopmentIssuer(keys).answer(Request(method, path, REQUEST_MEDIA_TYPE, content=content))
        return response(found.content, found.media_type, status=found.status, more=b"cache-control: %b\r\n" % cache)

    async with raw_issuer(folder, answer) as url, asking(url, folder) as issuer:
        yield issuer


def response(content: bytes, media_type: bytes, *, status: int = 200, more: bytes = b"") -> bytes:
    """An answer on the wire."""
    head = b"HTTP/1.1 %d x\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n"
    return head % (status, media_type, len(content), more) + content


@asynccontextmanager
async def raw_issuer(folder: Path, answer: Callable[[bytes, bytes], bytes]) -> AsyncIterator[str]:
    """A server that answers each request with bytes of the test's own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                sizes = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                content = await reader.readexactly(int(sizes[0].split(b":")[1]) if sizes else 0)
                writer.write(answer(head, content))
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def directory(uri: str = REQUEST_PATH, more: Mapping[str, int] | None = None) -> bytes:
    """A directory with the tests' key of type 2."""
    key = {"token-type": 2, "token-key": encode_base64url(rsa_key().public.encoded).decode(), **(more or {})}
    return response(json.dumps({"issuer-request-uri": uri, "token-keys": [key]}).encode(), DIRECTORY_MEDIA_TYPE)


def issue(head: bytes, content: bytes, uri: str = REQUEST_PATH) -> bytes:
    """What a good issuer answers, with this URL for requests."""
    if head.startswith(b"GET"):
        return directory(uri)
    found = DevelopmentIssuer(KEYS).answer(
        Request(b"POST", REQUEST_PATH.encode(), REQUEST_MEDIA_TYPE, content=content)
    )
    return response(found.content, found.media_type, status=found.status)


class TestIssuersThatBreakTheRules:
    @pytest.mark.parametrize(
        ("answer", "complaint"),
        [
            (response(b"{}", DIRECTORY_MEDIA_TYPE), "without its URL"),
            (response(b"nonsense", DIRECTORY_MEDIA_TYPE), "no JSON"),
            (response(b"x" * 70_000, DIRECTORY_MEDIA_TYPE), "more bytes"),
            (response(b"{}", b"text/html"), "another media type"),
            (response(b"{}", DIRECTORY_MEDIA_TYPE, more=b"content-encoding: gzip\r\n"), "media type or encoding"),
            (response(b"", b"text/plain", status=302, more=b"location: https://127.0.0.1:9/\r\n"), "answered 302"),
            (response(b"", b"text/plain", status=429), "gives no more"),
            (b"nonsense\r\n\r\n", "cannot be asked"),
            (b"", "did not answer in 0.5 seconds"),
            (b"HTTP/1.1 200 x\r\ncontent-length: 99\r\n\r\n", "another media type"),
        ],
    )
    async def test_a_directory_that_is_none(self, folder: Path, answer: bytes, complaint: str) -> None:
        async with (
            raw_issuer(folder, lambda head, content: answer) as url,
            asking(url, folder, timeout=0.5) as issuer,
        ):
            with pytest.raises(IssuanceError, match=complaint) as raised:
                await issuer.directory()
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize(
        ("answer", "complaint"),
        [
            (response(bytes(256), RESPONSE_MEDIA_TYPE), "does not verify"),
            (response(bytes(255), RESPONSE_MEDIA_TYPE), "wrong size"),
            (response(bytes(257), RESPONSE_MEDIA_TYPE), "more bytes"),
            (response(bytes(256), b"text/plain"), "another media type"),
            (response(b"", b"text/plain", status=422), "does not have"),
        ],
    )
    async def test_a_response_that_is_no_token(self, folder: Path, answer: bytes, complaint: str) -> None:
        def reply(head: bytes, content: bytes) -> bytes:
            return answer if head.startswith(b"POST") else directory()

        async with raw_issuer(folder, reply) as url, asking(url, folder) as issuer:
            with pytest.raises(IssuanceError, match=complaint):
                await issuer.fetch(offer(TokenType.BLIND_RSA_2048), 3)

    @pytest.mark.parametrize("uri", ["http://127.0.0.1:9/x", "https://user@host/", "ftp:x"])
    async def test_requests_go_to_https_only(self, folder: Path, uri: str) -> None:
        async with raw_issuer(folder, lambda head, content: directory(uri)) as url, asking(url, folder) as issuer:
            with pytest.raises(IssuanceError, match="not https"):
                await issuer.fetch(offer(TokenType.BLIND_RSA_2048))

    @pytest.mark.parametrize(
        "uri",
        ["https://other.example/token-request", "//other.example/x", "https://127.0.0.1:1/x", "https://127.0.0.1/"],
    )
    async def test_requests_and_the_key_go_to_the_directory_s_host_only(self, folder: Path, uri: str) -> None:
        asked = []

        def reply(head: bytes, content: bytes) -> bytes:
            asked.append(head)
            return directory(uri)

        async with raw_issuer(folder, reply) as url, asking(url, folder, "key") as issuer:
            with pytest.raises(IssuanceError, match="another host or port"):
                await issuer.fetch(offer(TokenType.BLIND_RSA_2048))
        assert [head[:3] for head in asked] == [b"GET"]

    async def test_a_whole_url_on_the_same_host_is_used(self, folder: Path) -> None:
        place = ""
        async with raw_issuer(folder, lambda head, content: issue(head, content, place)) as url:
            place = f"https://127.0.0.1:{url.rpartition(':')[2]}{REQUEST_PATH}"
            async with asking(url, folder) as issuer:
                assert len(await issuer.fetch(offer(TokenType.BLIND_RSA_2048), 2)) == 2

    @pytest.mark.parametrize("good", [0, 1, 5])
    async def test_a_request_that_fails_costs_no_token_of_the_others(self, folder: Path, good: int) -> None:
        """Whether the failure or the tokens come first, what was issued is kept."""
        posts = 0

        def reply(head: bytes, content: bytes) -> bytes:
            nonlocal posts
            posts += head.startswith(b"POST")
            return issue(head, content) if posts <= good else response(b"", b"text/plain", status=429)

        async with raw_issuer(folder, reply) as url, asking(url, folder) as issuer:
            if good:
                tokens = await issuer.fetch(offer(TokenType.BLIND_RSA_2048), 12)
                assert len(set(tokens)) == len(tokens) == good
                assert posts < 12, "nothing more is asked for after a failure"
            with pytest.raises(IssuanceError, match="gives no more"):
                await issuer.fetch(offer(TokenType.BLIND_RSA_2048), 3)

    async def test_a_key_of_tomorrow_is_not_used(self, folder: Path) -> None:
        page = directory(more={"not-before": int(NOW) + 1})
        async with raw_issuer(folder, lambda head, content: page) as url, asking(url, folder) as issuer:
            with pytest.raises(IssuanceError, match="may be used now"):
                await issuer.fetch(offer(TokenType.BLIND_RSA_2048, names_key=False))

    async def test_a_directory_is_asked_for_once(self, folder: Path) -> None:
        asked = []

        def reply(head: bytes, content: bytes) -> bytes:
            asked.append(head)
            return directory()

        async with raw_issuer(folder, reply) as url, asking(url, folder) as issuer:
            for _ in range(3):
                await issuer.directory()
            assert len(asked) == 1
            assert asked[0].startswith(b"GET " + DIRECTORY_PATH.encode())


class TestUrls:
    def test_an_authority_gets_the_well_known_path(self) -> None:
        assert directory_url("https://issuer.example") == f"https://issuer.example{DIRECTORY_PATH}"
        assert directory_url("https://issuer.example:1/") == f"https://issuer.example:1{DIRECTORY_PATH}"
        assert directory_url("https://issuer.example/x/y") == "https://issuer.example/x/y"

    @pytest.mark.parametrize(
        ("url", "name"),
        [
            ("https://Issuer.example:443/x", "issuer.example"),
            ("https://issuer.example:4440", "issuer.example:4440"),
            ("https://[::1]:4440", "[::1]:4440"),
        ],
    )
    def test_the_name_in_challenges(self, url: str, name: str) -> None:
        assert issuer_authority(url) == name

    @pytest.mark.parametrize(
        "url", ["", "issuer.example", "http://issuer.example", "https://a:0", "https://a:x", "https://ü"]
    )
    def test_other_urls_are_refused(self, url: str) -> None:
        with pytest.raises(IssuanceError):
            directory_url(url)

    @given(st.text(max_size=60).map(lambda text: f"https://{text}"))
    def test_any_url_is_one_or_refused(self, url: str) -> None:
        try:
            assert issuer_authority(url)
        except IssuanceError:
            pass


class TestKeyFiles:
    @pytest.mark.parametrize("token_type", TYPES)
    def test_made_once_and_private(self, tmp_path: Path, token_type: TokenType) -> None:
        private, public = tmp_path / "key", tmp_path / "key.pub"
        key = make_key_files(token_type, private, public)
        assert read_key_file(private).public == key
        assert private.stat().st_mode & 0o777 == 0o600
        before = private.read_bytes()
        with pytest.raises(KeyFileError, match="not overwritten"):
            make_key_files(token_type, private, tmp_path / "other.pub")
        assert private.read_bytes() == before
        assert not (tmp_path / "other.pub").exists()

    def test_no_private_key_without_its_public_one(self, tmp_path: Path) -> None:
        (tmp_path / "key.pub").write_text("mine")
        with pytest.raises(KeyFileError, match=r"key\.pub"):
            make_key_files(TokenType.VOPRF_P384, tmp_path / "key", tmp_path / "key.pub")
        assert not (tmp_path / "key").exists()

    @pytest.mark.parametrize("content", [None, b"nonsense", b"x" * 20_000])
    def test_a_file_that_holds_no_key(self, tmp_path: Path, content: bytes | None) -> None:
        if content is not None:
            (tmp_path / "key").write_bytes(content)
        with pytest.raises(KeyFileError, match="key"):
            read_key_file(tmp_path / "key")
