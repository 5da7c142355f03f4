"""The cases of tokens: our implementation passes them; relays and implementations that are wrong do not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest

from masque.privacypass import IssuerKey, TokenType, VoprfPrivateKey
from relay.conformance import (
    Case,
    Need,
    Origins,
    Outcome,
    OwnTokens,
    Server,
    Stage,
    TokenKeys,
    Verdict,
    WireDriver,
    WireOptions,
    play,
    running_origins,
)
from relay.conformance.cases.tokens import TOKEN_CASES
from relay.quic.development import write_certificates
from tests.relay.hooks_rig import application
from tests.relay.rig import PATIENCE, running_relay
from tests.relay.token_rig import TokenOrigin, challenge

pytestmark = pytest.mark.anyio

CASES = {case.name: case for case in TOKEN_CASES.cases}


@pytest.fixture
async def origins(tmp_path: Path) -> AsyncIterator[Origins]:
    write_certificates(tmp_path, ["127.0.0.1"])
    (tmp_path / "pages").mkdir()
    async with running_origins(("127.0.0.1",), tmp_path / "pages", ("127.0.0.1",)) as running:
        yield running


@pytest.fixture(scope="module")
async def keys() -> Mapping[TokenType, TokenKeys]:
    return {token_type: await OwnTokens().make_key(token_type) for token_type in TokenType}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


async def play_on(
    folder: Path,
    origins: Origins,
    case: Case,
    keys: Mapping[TokenType, TokenKeys],
    tokens: OwnTokens | None,
    change: Callable[[TokenOrigin], None] = lambda origin: None,
) -> Outcome:
    """Play a case on a relay that admits by tokens of these keys."""
    private: list[IssuerKey] = [key.load(token_type) for token_type, key in keys.items()]
    origin = TokenOrigin([challenge(token_type) for token_type in keys], keys=private)
    change(origin)
    async with running_relay(folder, application(origin.hooks)) as relay:
        server = Server(frozenset(Need), "127.0.0.1", token_keys=keys, is_strict=True)
        options = WireOptions("127.0.0.1", relay.port, ca_file=folder / "ca.pem", timeout=PATIENCE)
        async with WireDriver(options, PATIENCE) as driver:
            return await play(case, Stage(driver, server, origins, tokens))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_ours_pass(tmp_path: Path, origins: Origins, keys: Mapping[TokenType, TokenKeys], case: Case) -> None:
    outcome = await play_on(tmp_path, origins, case, keys, OwnTokens())
    assert (outcome.verdict, outcome.reason) == (Verdict.PASS, "")


async def test_without_an_implementation_nothing_is_played(
    tmp_path: Path, origins: Origins, keys: Mapping[TokenType, TokenKeys]
) -> None:
    outcome = await play_on(tmp_path, origins, CASES["token-our-issuer"], keys, None)
    assert (outcome.verdict, outcome.reason) == (Verdict.NONE, "the client lacks tokens")


def _never_spent(origin: TokenOrigin) -> None:
    origin.admits = 1000


def _careless(origin: TokenOrigin) -> None:
    origin.is_careless = True


def _nobody(origin: TokenOrigin) -> None:
    origin.admits = 0


@pytest.mark.parametrize(
    ("change", "name", "reason"),
    [
        (_never_spent, "token-admitted", "granted with 200"),
        (_careless, "token-refused", "granted with 200"),
        (_nobody, "token-admitted", "type 1 refused"),
        (_nobody, "token-refused", "the good token was refused"),
    ],
)
async def test_a_relay_that_is_wrong_fails(
    tmp_path: Path,
    origins: Origins,
    keys: Mapping[TokenType, TokenKeys],
    change: Callable[[TokenOrigin], None],
    name: str,
    reason: str,
) -> None:
    outcome = await play_on(tmp_path, origins, CASES[name], keys, OwnTokens(), change)
    assert outcome.verdict is Verdict.FAIL
    assert reason in outcome.reason


class Gullible(OwnTokens):
    """Takes every token."""

    async def verify_token(self, token_type: TokenType, credentials: str, keys: TokenKeys) -> bool:
        return True


class Strict(OwnTokens):
    """Takes no token."""

    async def verify_token(self, token_type: TokenType, credentials: str, keys: TokenKeys) -> bool:
        return False


class OtherKey(OwnTokens):
    """Answers by another key than it said."""

    async def answer_request(self, token_type: TokenType, request: bytes, keys: TokenKeys) -> bytes:
        if token_type is TokenType.VOPRF_P384:
            other = VoprfPrivateKey(bytes(32))
            return other.evaluate(request[3:])
        return bytes(256)


@pytest.mark.parametrize(
    ("tokens", "name", "reason"),
    [
        (Gullible(), "token-our-issuer", "its origin took a changed token of type 2"),
        (Strict(), "token-its-issuer", "its origin refused a good token of type 2"),
        (OtherKey(), "token-its-issuer", "does not verify"),
    ],
)
async def test_an_implementation_that_is_wrong_fails(
    tmp_path: Path,
    origins: Origins,
    keys: Mapping[TokenType, TokenKeys],
    tokens: OwnTokens,
    name: str,
    reason: str,
) -> None:
    outcome = await play_on(tmp_path, origins, CASES[name], keys, tokens)
    assert outcome.verdict is Verdict.FAIL
    assert reason in outcome.reason
