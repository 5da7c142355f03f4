"""`relay token` and `relay forward` with tokens: what they print, write and refuse."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio.to_thread
import pytest
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import LimitExceeded, Malformed
from masque.privacypass import (
    ChallengeOffer,
    DirectoryKey,
    IssuerDirectory,
    IssuerKey,
    Token,
    TokenType,
    challenge_digest,
    encode_base64url,
    encode_challenges,
    encode_credentials,
    encode_directory,
    encode_public_key_file,
    encode_seed_file,
    parse_base64url,
    read_token,
    verify_token,
)
from relay.auth.private_token.key_file import read_key_file as load_for_relay
from relay.cli import main
from relay.cli.token_facts import MAX_INPUT, describe
from relay.client import TokenFile
from relay.hooks import Application
from relay.issuance import read_key_file
from relay.issuer import Answer, DevelopmentIssuer, Request
from tests.e2e.rig import start_command
from tests.masque.privacypass_vectors import rsa_key, voprf_key
from tests.relay.hooks_rig import application
from tests.relay.rig import PATIENCE, Relay, running_relay, tcp_origin
from tests.relay.token_rig import TokenOrigin, challenge, make_token, running_issuer, verifying

pytestmark = pytest.mark.anyio

WANTED = challenge()
KEYS = (rsa_key(), voprf_key())

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process; returns its exit code, output and errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def complaint(done: tuple[int, str, str], code: int = 2) -> str:
    """The one line of a command that must fail."""
    assert done[:2] == (code, "")
    assert done[2].startswith("relay: ")
    assert done[2].count("\n") == 1
    return done[2].removeprefix("relay: ").strip()


async def in_thread(run: Run, *arguments: object) -> tuple[int, str, str]:
    """Run a command that has a loop of its own."""
    return await anyio.to_thread.run_sync(partial(run, *arguments))


@asynccontextmanager
async def silent_relay(folder: Path, *applications: Application, is_open: bool = False) -> AsyncIterator[Relay]:
    """A relay in this process that logs nothing into the command's output."""
    with structlog.testing.capture_logs():
        async with running_relay(folder, *applications, auth__open=str(is_open).lower()) as relay:
            yield relay


class TestKey:
    @pytest.mark.parametrize("token_type", [1, 2])
    def test_two_files_and_what_to_do_with_them(self, run: Run, tmp_path: Path, token_type: int) -> None:
        code, out, err = run("token", "key", tmp_path / "issuer", "--type", token_type)
        assert (code, err) == (0, "")
        key = read_key_file(tmp_path / "issuer")
        assert key.public.token_type == token_type
        assert key.public.key_id.hex() in out
        wanted = "issuer" if token_type == 1 else "issuer.pub"
        [verifying_key] = load_for_relay(tmp_path / wanted)
        assert verifying_key.key_id == key.public.key_id, "the relay reads it"
        assert f'keys = ["{tmp_path / wanted}"], types = [{token_type}]' in out
        assert (tmp_path / "issuer").stat().st_mode & 0o077 == 0
        for line in (tmp_path / "issuer").read_text().splitlines():
            assert line.startswith(("#", "---")) or line not in out, "no secret is printed"
        assert "not overwritten" in complaint(run("token", "key", tmp_path / "issuer"))
        assert read_key_file(tmp_path / "issuer").public == key.public

    def test_a_folder_that_is_not_there(self, run: Run, tmp_path: Path) -> None:
        assert "No such file" in complaint(run("token", "key", tmp_path / "none" / "issuer", "--type", 1))


class TestShow:
    @pytest.mark.parametrize("own", KEYS, ids=["type 2", "type 1"])
    def test_a_token(self, run: Run, tmp_path: Path, own: IssuerKey) -> None:
        token = make_token(challenge(own.public.token_type), own)
        text = encode_base64url(token).decode()
        (tmp_path / "tokens").write_text(f"# mine\n{text}\n\n")
        credentials = encode_credentials(token).decode()
        for what in (text, credentials, f"Proxy-Authorization: {credentials}", tmp_path / "tokens"):
            code, out, err = run("token", "show", "--json", what)
            assert (code, err) == (0, "")
            [facts] = json.loads(out)
            assert (facts["what"], facts["type"]) == ("token", own.public.token_type)
            assert facts["key-id"] == own.public.key_id.hex()
            assert facts["challenge-digest"] == challenge_digest(challenge(own.public.token_type)).hex()
            assert encode_base64url(token[-48:]).decode().strip("=")[:40] not in out, "no authenticator"

    def test_challenges(self, run: Run) -> None:
        offers = [
            ChallengeOffer(challenge(origin="a.example", context=b"\1" * 32), rsa_key().public.encoded, 60),
            ChallengeOffer(challenge(TokenType.VOPRF_P384), b"nonsense"),
            ChallengeOffer(b"\xda\x7a" + WANTED[2:], b"unknown"),
        ]
        value = 'Preshared realm="relay", ' + encode_challenges(offers).decode()
        code, out, _ = run("token", "show", "--json", f"proxy-authenticate: {value}")
        first, second, third = json.loads(out)
        assert code == 0
        assert (first["issuer"], first["origins"], first["max-age"]) == ("issuer.example", ["a.example"], "60")
        assert first["redemption-context"] == "01" * 32
        assert first["digest"] == challenge_digest(offers[0].challenge).hex()
        assert first["token-key"][0]["key-id"] == rsa_key().public.key_id.hex()
        assert "no compressed point" in second["token-key"][0]["error"]
        assert third["type-name"] == "unknown"
        code, out, _ = run("token", "show", value)
        assert code == 0
        assert re.search(r"^issuer: +issuer\.example$", out, re.MULTILINE)
        assert (
            json.loads(run("token", "show", "--json", encode_base64url(WANTED).decode())[1])[0]["what"] == "challenge"
        )

    def test_a_directory(self, run: Run, tmp_path: Path) -> None:
        keys = (
            DirectoryKey(2, rsa_key().public.encoded, 1_800_000_000),
            DirectoryKey(1, b"no key"),
            DirectoryKey(9, b"x", 2**53),
        )
        (tmp_path / "directory").write_bytes(encode_directory(IssuerDirectory("/token-request", keys)))
        code, out, _ = run("token", "show", "--json", tmp_path / "directory")
        [facts] = json.loads(out)
        assert code == 0
        assert facts["issuer-request-uri"] == "/token-request"
        assert facts["keys"][0]["not-before"] == "2027-01-15T08:00:00+00:00"
        assert "error" in facts["keys"][1]
        assert facts["keys"][2] == {"type": 9, "type-name": "unknown", "not-before": str(2**53)}

    def test_keys(self, run: Run, tmp_path: Path) -> None:
        seed = bytes(range(48))
        (tmp_path / "seed").write_bytes(encode_seed_file(seed))
        (tmp_path / "public").write_bytes(encode_public_key_file(rsa_key().public))
        (tmp_path / "der").write_bytes(rsa_key().public.encoded)
        code, out, _ = run("token", "show", tmp_path / "seed")
        assert code == 0
        assert re.search(r"^what: +private key$", out, re.MULTILINE)
        assert encode_base64url(seed).decode() not in out
        for name in ("public", "der"):
            [facts] = json.loads(run("token", "show", "--json", tmp_path / name)[1])
            assert (facts["what"], facts["key-id"]) == ("public key", rsa_key().public.key_id.hex())

    @pytest.mark.parametrize(
        "what", ["", "nonsense", "{}", "PrivateToken x=y", "AAAA", "-----BEGIN X-----", "/", "ü", "x" * 5000]
    )
    def test_what_is_none_of_these(self, run: Run, what: str) -> None:
        complaint(run("token", "show", what))

    def test_a_file_that_is_too_large(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "large").write_bytes(bytes(MAX_INPUT + 1))
        assert "more bytes" in complaint(run("token", "show", tmp_path / "large"))

    @given(
        st.one_of(st.binary(max_size=300), st.binary(max_size=80).map(lambda data: b"PrivateToken challenge=" + data))
    )
    def test_anything_is_described_or_refused(self, data: bytes) -> None:
        try:
            assert describe(data)
        except (Malformed, LimitExceeded):
            pass


class TestFetch:
    async def test_for_a_challenge_of_ones_own(self, run: Run, certificates: Path) -> None:
        async with running_issuer(certificates, KEYS) as url:
            common = ("token", "fetch", "--issuer", url, "--issuer-ca", certificates / "ca.pem")
            more = ("--issuer-name", "issuer.example", "--origin", "a.example", "--context", "05" * 32)
            done = await in_thread(run, *common, *more, "--count", 3)
        check_tokens(done[1].split(), challenge(origin="a.example", context=b"\5" * 32))
        assert (done[0], done[2]) == (0, "relay: 3 of type 2 for issuer.example\n")

    async def test_for_a_challenge_of_somebody(self, run: Run, certificates: Path, tmp_path: Path) -> None:
        wanted = challenge(TokenType.VOPRF_P384)
        value = encode_challenges(
            [ChallengeOffer(WANTED), ChallengeOffer(wanted, voprf_key().public.encoded)]
        ).decode()
        out = tmp_path / "tokens"
        async with running_issuer(certificates, KEYS) as url:
            common = ("token", "fetch", "--issuer", url, "--issuer-ca", certificates / "ca.pem", "--out", out)
            for text in (f"Proxy-Authenticate: {value}", encode_base64url(wanted).decode()):
                code, printed, _ = await in_thread(run, *common, "--challenge", text, "--type", 1, "--count", 2)
                assert (code, printed) == (0, "")
        assert out.stat().st_mode & 0o777 == 0o600
        check_tokens(out.read_text().split(), wanted)
        assert TokenFile(out).count() == {challenge_digest(wanted): 4}

    async def test_for_a_relays_challenge(self, run: Run, certificates: Path) -> None:
        async with (
            running_issuer(certificates, KEYS) as url,
            silent_relay(certificates, application(TokenOrigin([WANTED]).hooks)) as relay,
        ):
            ca = certificates / "ca.pem"
            common = ("token", "fetch", "--relay", relay.options.url, "--ca", ca, "--issuer", url, "--issuer-ca", ca)
            done = await in_thread(run, *common)
        assert done[0] == 0
        check_tokens(done[1].split(), WANTED)

    async def test_relays_that_ask_for_no_token(self, run: Run, certificates: Path) -> None:
        async with silent_relay(certificates, is_open=True) as relay:
            common = ("token", "fetch", "--relay", relay.options.url, "--ca", certificates / "ca.pem")
            assert "does not ask for a token" in complaint(await in_thread(run, *common))
        async with silent_relay(certificates) as relay:
            common = ("token", "fetch", "--relay", relay.options.url, "--ca", certificates / "ca.pem")
            assert "no challenge of PrivateToken" in complaint(await in_thread(run, *common))

    async def test_an_issuer_that_gives_none(self, run: Run, certificates: Path, tmp_path: Path) -> None:
        async with running_issuer(certificates, [voprf_key()]) as url:
            done = await in_thread(run, "token", "fetch", "--issuer", url, "--issuer-ca", certificates / "ca.pem")
            assert "no key of type 2" in complaint(done, 1)
        done = await in_thread(run, "token", "fetch", "--issuer", "https://127.0.0.1:1")
        assert "cannot be reached" in complaint(done, 1)

    async def test_an_issuer_that_stops_giving(
        self, run: Run, certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What there is is kept and counted, and the exit code says that it is not all."""
        answer, asked = DevelopmentIssuer.answer, 0

        def stingy(issuer: DevelopmentIssuer, request: Request) -> Answer:
            nonlocal asked
            asked += request.method == b"POST"
            return Answer(429) if asked > 23 else answer(issuer, request)

        monkeypatch.setattr(DevelopmentIssuer, "answer", stingy)
        out = tmp_path / "tokens"
        async with running_issuer(certificates, KEYS) as url:
            common = ("token", "fetch", "--issuer", url, "--issuer-ca", certificates / "ca.pem", "--out", out)
            code, printed, said = await in_thread(run, *common, "--issuer-name", "issuer.example", "--count", 30)
        reason = "the issuer answered 429: it gives no more tokens for now"
        assert (code, printed) == (1, "")
        assert said == f"relay: 23 of the 30 tokens of type 2 for issuer.example, into {out}; then {reason}\n"
        assert TokenFile(out).count() == {challenge_digest(WANTED): 23}

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ([], "say what the tokens are for"),
            (["--issuer", "x"], "must be https"),
            (["--issuer", "https://x", "--count", "0"], "--count"),
            (["--issuer", "https://x", "--context", "0"], "--context"),
            (["--issuer", "https://x", "--context", "00"], "impossible size"),
            (["--issuer", "https://x", "--origin", "a b"], "no server name"),
            (["--issuer", "https://x", "--issuer-ca", "/none"], "--issuer-ca"),
            (["--issuer", "https://x", "--issuer-key-file", "/none"], "--issuer-key-file"),
            (["--challenge", "x", "--relay", "https://x"], "one of the two"),
            (["--challenge", "x", "--origin", "y"], "there is one already"),
            (["--challenge", "Bearer"], "no challenge of PrivateToken"),
            (["--challenge", "ü"], "characters"),
        ],
    )
    def test_mistakes_are_one_line(self, run: Run, arguments: list[str], words: str) -> None:
        done = run("token", "fetch", *arguments)
        assert words in complaint(done, 1 if "must be https" in words else 2)


def check_tokens(lines: list[str], wanted: bytes) -> None:
    """Every line is a token for the challenge, and no two are alike."""
    own = rsa_key() if wanted[:2] == b"\0\2" else voprf_key()
    key = verifying(own)
    assert lines
    assert len(lines) == len(set(lines))
    for line in lines:
        token = read_token(parse_base64url(line.encode()))
        assert isinstance(token, Token)
        assert verify_token(token, {challenge_digest(wanted): {key.key_id: key}}) is None


@asynccontextmanager
async def started(*arguments: object) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """A command that goes on; yields its first line, and ends it by SIGTERM, which must be in order."""
    process = await start_command(*map(str, arguments), stderr=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(15):
            yield (await process.stdout.readline()).decode(), process
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class TestProcesses:
    async def test_an_issuer_and_a_forwarder_that_spends(self, run: Run, certificates: Path, tmp_path: Path) -> None:
        """A file first, then the issuer, until SIGTERM."""
        await in_thread(run, "token", "key", tmp_path / "key")
        issuer = (
            "token",
            "issuer",
            "--key",
            tmp_path / "key",
            "--listen",
            "127.0.0.1:0",
            "--certificates",
            certificates,
        )
        async with started(*issuer) as (line, _), tcp_origin() as tcp:
            found = re.fullmatch(r"relay: an issuer of tokens, for development only, at (https://\S+)\n", line)
            assert found is not None, line
            origin = TokenOrigin([WANTED], keys=[read_key_file(tmp_path / "key")])
            TokenFile(tmp_path / "tokens").append([make_token(WANTED, read_key_file(tmp_path / "key"))])
            async with silent_relay(certificates, application(origin.hooks)) as relay:
                ca = certificates / "ca.pem"
                to = ("forward", "tcp", f"127.0.0.1:{tcp.port}", "--relay", relay.options.url, "--ca", ca)
                by = ("--token-issuer", found[1], "--token-issuer-ca", ca, "--token-issuer-name", "issuer.example")
                async with started(*to, *by, "--tokens", tmp_path / "tokens") as (line, _):
                    address = re.fullmatch(r"relay: forwarding tcp (\S+):(\d+) to \S+\n", line)
                    assert address is not None, line
                    for _ in range(3):
                        reader, writer = await asyncio.open_connection(address[1], int(address[2]))
                        writer.write(b"ping")
                        writer.write_eof()
                        async with asyncio.timeout(PATIENCE):
                            assert await reader.read() == b"ping"
                        writer.close()
        assert origin.spent == 3
        assert TokenFile(tmp_path / "tokens").count() == {}

    async def test_a_forwarder_without_a_token_says_whose_it_wants(self, certificates: Path, tmp_path: Path) -> None:
        TokenFile(tmp_path / "tokens").append([])
        async with silent_relay(certificates, application(TokenOrigin([WANTED]).hooks)) as relay:
            to = ("forward", "tcp", "127.0.0.1:9", "--relay", relay.options.url, "--ca", certificates / "ca.pem")
            async with started(*to, "--tokens", tmp_path / "tokens") as (line, process):
                port = int(line.split()[3].rpartition(":")[2])
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                assert await reader.read() == b""
                writer.close()
                assert process.stderr is not None
                told = (await process.stderr.readline()).decode()
        assert "the relay wants a token of issuer.example (type 2) for its challenge" in told

    def test_mistakes_of_an_issuer(self, run: Run, tmp_path: Path, certificates: Path) -> None:
        (tmp_path / "key").write_bytes(encode_seed_file(bytes(32)))
        (tmp_path / "pub").write_bytes(encode_public_key_file(rsa_key().public))
        good = (
            "token",
            "issuer",
            "--certificates",
            certificates,
            "--key",
            tmp_path / "key",
            "--listen",
            "127.0.0.1:0",
        )
        assert "public key where" in complaint(run("token", "issuer", "--key", tmp_path / "pub"))
        assert "No such file" in complaint(run("token", "issuer", "--key", tmp_path / "none"))
        assert "certs.generate" in complaint(run(*good, "--certificates", tmp_path))
        assert "--preshared" in complaint(run(*good, "--preshared", "secret"))
        assert "--listen" in complaint(run(*good, "--listen", "192.0.2.1:0"))
        assert "--listen" in complaint(run(*good, "--listen", "nowhere"))

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--tokens", "/none"], "--tokens: no file"),
            (["--tokens", "/dev/null", "--key", "x"], "not together with a key"),
            (["--token-issuer-ca", "x"], "they need --token-issuer"),
            (["--token-issuer-name", "x"], "it needs --token-issuer"),
            (["--token-issuer", "https://x", "--token-stock", "-1"], "--token-stock"),
            (["--token-issuer", "https://x", "--token-issuer-ca", "/none"], "--token-issuer-ca"),
        ],
    )
    def test_mistakes_of_a_forwarder(self, run: Run, arguments: list[str], words: str) -> None:
        assert words in complaint(run("forward", "tcp", "127.0.0.1:9", "--relay", "https://127.0.0.1:1", *arguments))
