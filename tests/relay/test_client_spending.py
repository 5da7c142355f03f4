"""How a client spends tokens: relays whose tokens admit a tunnel, several or a connection; files, issuers, errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from masque.privacypass import TokenType, challenge_digest, parse_token
from relay.auth import find_credentials
from relay.client import (
    FileTokens,
    IssuedTokens,
    RelayClient,
    TokenFile,
    TokenOffer,
    TokenSource,
    TokenSources,
    connect_relay,
)
from relay.errors import Failure, FailureKind, Side
from relay.hooks import Continue, ExchangeContext, Hooks, Phase, Reject, TunnelKind
from relay.issuance import Issuer, open_http
from tests.masque.privacypass_vectors import rsa_key, voprf_key
from tests.relay.hooks_rig import KINDS, application, hooks_at, refusal, round_trip
from tests.relay.rig import Relay, running_relay, tcp_origin, udp_origin
from tests.relay.token_rig import ISSUER, TokenOrigin, challenge, make_token, running_issuer

pytestmark = pytest.mark.anyio

WANTED = challenge()
VOPRF = challenge(TokenType.VOPRF_P384)


@dataclass
class Purse:
    """A source of tokens made on the spot, which counts them."""

    tokens: list[bytes] = field(default_factory=list)
    asked: list[list[bytes]] = field(default_factory=list)
    is_empty: bool = False

    async def take(self, offers: Sequence[TokenOffer]) -> bytes | None:
        self.asked.append([offer.digest for offer in offers])
        if self.is_empty:
            return None
        self.tokens.append(make_token(offers[0].offer.challenge))
        return self.tokens[-1]


def client_of(relay: Relay, tokens: TokenSource) -> AbstractAsyncContextManager[RelayClient]:
    """A client that spends."""
    return connect_relay(replace(relay.options, key=None, tokens=tokens))


def admitting(folder: Path, origin: TokenOrigin, *more: Hooks) -> AbstractAsyncContextManager[Relay]:
    """A relay that these hooks admit to."""
    return running_relay(folder, *(application(hooks) for hooks in (origin.hooks, *more)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", [WANTED, VOPRF])
async def test_a_challenge_is_answered(folder: Path, kind: TunnelKind, wanted: bytes) -> None:
    origin, purse = TokenOrigin([wanted]), Purse()
    async with (
        tcp_origin() as tcp,
        udp_origin() as udp,
        admitting(folder, origin) as relay,
        client_of(relay, purse) as client,
    ):
        await round_trip(client, kind, tcp.port if kind is TunnelKind.TCP else udp.port)
    assert origin.requests == [None, parse_token(purse.tokens[0]).nonce]


async def test_one_token_for_each_tunnel_costs_no_round_trip_once_it_is_known(folder: Path) -> None:
    origin, purse = TokenOrigin([WANTED]), Purse()
    async with tcp_origin() as tcp, admitting(folder, origin) as relay, client_of(relay, purse) as client:
        for _ in range(4):
            await round_trip(client, TunnelKind.TCP, tcp.port)
    first, second, third, fourth = [parse_token(token).nonce for token in purse.tokens]
    assert origin.requests == [None, first, first, second, third, fourth]
    assert set(origin.uses.values()) == {1}


@pytest.mark.parametrize("admits", ["connection", 100])
async def test_a_token_for_many_tunnels_is_spent_once(folder: Path, admits: int | str) -> None:
    origin, purse = TokenOrigin([WANTED], admits), Purse()
    async with tcp_origin() as tcp, admitting(folder, origin) as relay, client_of(relay, purse) as client:
        for _ in range(4):
            await round_trip(client, TunnelKind.TCP, tcp.port)
    assert len(purse.tokens) == origin.spent == 1
    assert len(origin.requests) == 5


async def test_a_token_for_three_tunnels(folder: Path) -> None:
    origin, purse = TokenOrigin([WANTED], 3), Purse()
    async with tcp_origin() as tcp, admitting(folder, origin) as relay, client_of(relay, purse) as client:
        for _ in range(9):
            await round_trip(client, TunnelKind.TCP, tcp.port)
    assert len(purse.tokens) == 3
    assert list(origin.uses.values()) == [3, 3, 3]


@pytest.mark.parametrize(("admits", "most"), [(1, 20), (5, 4), ("connection", 1)])
async def test_tunnels_at_the_same_time_spend_no_more_than_they_must(
    folder: Path, admits: int | str, most: int
) -> None:
    origin, purse = TokenOrigin([WANTED], admits), Purse()
    async with tcp_origin() as tcp, admitting(folder, origin) as relay, client_of(relay, purse) as client:
        await asyncio.gather(*(round_trip(client, TunnelKind.TCP, tcp.port) for _ in range(20)))
    assert len(purse.tokens) == most
    assert len(origin.requests) <= 60


async def test_another_connection_shows_another_token(folder: Path) -> None:
    origin, purse = TokenOrigin([WANTED], 100), Purse()
    async with tcp_origin() as tcp, admitting(folder, origin) as relay:
        for _ in range(2):
            async with client_of(relay, purse) as client:
                await round_trip(client, TunnelKind.TCP, tcp.port)
    first, second = [parse_token(token).nonce for token in purse.tokens]
    assert origin.requests == [None, first, None, second]


async def test_another_challenge_is_answered_when_it_comes(folder: Path) -> None:
    """Each tunnel brings a token along, until the challenge is another one."""
    origin, purse = TokenOrigin([WANTED]), Purse()
    async with tcp_origin() as tcp, admitting(folder, origin) as relay, client_of(relay, purse) as client:
        for _ in range(3):
            await round_trip(client, TunnelKind.TCP, tcp.port)
        origin.wanted = [VOPRF]
        for _ in range(2):
            await round_trip(client, TunnelKind.TCP, tcp.port)
    assert len(purse.tokens) == 6, "one was for the challenge before"


async def test_a_relay_that_refuses_every_token_gets_no_more_than_one_for_a_tunnel(folder: Path) -> None:
    origin, purse = TokenOrigin([WANTED], admits=0), Purse()
    async with admitting(folder, origin) as relay, client_of(relay, purse) as client:
        for number in range(1, 4):
            assert (await refusal(client, TunnelKind.TCP, 9)).status == 407
            assert len(purse.tokens) == number
    assert len(origin.requests) == 6


async def test_a_relay_that_refuses_after_admitting_gets_two_at_most(folder: Path) -> None:
    origin, purse = TokenOrigin([WANTED]), Purse()
    async with tcp_origin() as tcp, admitting(folder, origin) as relay, client_of(relay, purse) as client:
        for _ in range(2):
            await round_trip(client, TunnelKind.TCP, tcp.port)
        origin.admits = 0
        before = len(purse.tokens)
        assert (await refusal(client, TunnelKind.TCP, tcp.port)).status == 407
        assert len(purse.tokens) == before + 2


async def test_a_token_whose_tunnel_failed_is_used_again(folder: Path) -> None:
    """It was admitted; that the target was refused is another matter."""
    denied = Failure(FailureKind.HTTP_REQUEST_DENIED, Side.RELAY)
    is_denied = True

    async def decide(ctx: ExchangeContext) -> object:
        return Reject(denied) if is_denied else Continue()

    origin, purse = TokenOrigin([WANTED], 2), Purse()
    async with (
        tcp_origin() as tcp,
        admitting(folder, origin, hooks_at(Phase.AUTHORIZE, decide)) as relay,
        client_of(relay, purse) as client,
    ):
        assert (await refusal(client, TunnelKind.TCP, tcp.port)).status == 403
        is_denied = False
        await round_trip(client, TunnelKind.TCP, tcp.port)
    assert len(purse.tokens) == 1


@dataclass
class Moods:
    """A hook that refuses as it is told, before tokens are looked at or after."""

    failure: Failure | None = None

    async def decide(self, _ctx: ExchangeContext) -> object:
        return Continue() if self.failure is None else Reject(self.failure)

    def at(self, phase: Phase) -> Hooks:
        return hooks_at(phase, self.decide)


BUSY = Failure(FailureKind.AUTHENTICATION_UNAVAILABLE, Side.RELAY)
OVER_QUOTA = Failure(FailureKind.RATE_LIMITED, Side.CLIENT)


@pytest.mark.parametrize("known", [0, 2])
async def test_a_token_that_nobody_has_counted_goes_with_the_next_tunnel(folder: Path, known: int) -> None:
    """In the beginning, and when each tunnel is known to take one."""
    origin, purse, moods = TokenOrigin([WANTED]), Purse(), Moods()

    async def only_tokens(ctx: ExchangeContext) -> object:
        return await moods.decide(ctx) if find_credentials(ctx.head.fields) else Continue()

    async with (
        tcp_origin() as tcp,
        running_relay(
            folder, application(hooks_at(Phase.AUTHENTICATE, only_tokens)), application(origin.hooks)
        ) as relay,
        client_of(relay, purse) as client,
    ):
        for _ in range(known):
            await round_trip(client, TunnelKind.TCP, tcp.port)
        moods.failure = BUSY
        for _ in range(3):
            assert (await refusal(client, TunnelKind.TCP, tcp.port)).status == 503
        assert len(purse.tokens) == known + 1
        moods.failure = None
        for _ in range(3):
            await round_trip(client, TunnelKind.TCP, tcp.port)
    assert len(purse.tokens) == origin.spent == known + 3
    nones = origin.requests.count(None)
    assert len(origin.requests) - nones == known + 3 + 1, "a token for each tunnel, and one shown twice"


async def test_tokens_of_tunnels_refused_together_are_all_kept(folder: Path) -> None:
    origin, purse, moods = TokenOrigin([WANTED]), Purse(), Moods()
    async with (
        tcp_origin() as tcp,
        running_relay(folder, application(moods.at(Phase.AUTHENTICATE)), application(origin.hooks)) as relay,
        client_of(relay, purse) as client,
    ):
        for _ in range(2):
            await round_trip(client, TunnelKind.TCP, tcp.port)
        moods.failure = BUSY
        for _ in range(3):
            await asyncio.gather(*(refusal(client, TunnelKind.TCP, tcp.port) for _ in range(5)))
        moods.failure = None
        await asyncio.gather(*(round_trip(client, TunnelKind.TCP, tcp.port) for _ in range(5)))
    assert len(purse.tokens) == origin.spent == 7


async def test_a_token_that_was_counted_after_all_costs_another_attempt_and_no_more(folder: Path) -> None:
    """A quota is looked at after the token."""
    origin, purse, moods = TokenOrigin([WANTED]), Purse(), Moods()
    async with (
        tcp_origin() as tcp,
        admitting(folder, origin, moods.at(Phase.AUTHORIZE)) as relay,
        client_of(relay, purse) as client,
    ):
        for _ in range(2):
            await round_trip(client, TunnelKind.TCP, tcp.port)
        moods.failure = OVER_QUOTA
        assert (await refusal(client, TunnelKind.TCP, tcp.port)).status == 429
        assert len(purse.tokens) == 3
        assert (await refusal(client, TunnelKind.TCP, tcp.port)).status == 429
        assert len(purse.tokens) == 4, "the third was spent"
        moods.failure = None
        asked = len(origin.requests)
        for _ in range(2):
            await round_trip(client, TunnelKind.TCP, tcp.port)
    assert len(origin.requests) - asked == 3
    assert len(purse.tokens) == 6
    assert set(origin.uses.values()) == {1}


async def test_no_token_left_says_whose(folder: Path) -> None:
    purse = Purse(is_empty=True)
    async with admitting(folder, TokenOrigin([WANTED, VOPRF])) as relay, client_of(relay, purse) as client:
        error = await refusal(client, TunnelKind.TCP, 9)
    assert "issuer.example (type 1), issuer.example (type 2)" in str(error)
    assert error.status == 407
    assert purse.asked == [[challenge_digest(WANTED), challenge_digest(VOPRF)]]


async def test_challenges_for_other_origins_are_not_answered(folder: Path) -> None:
    purse = Purse()
    wrong = challenge(origin="other.example")
    async with admitting(folder, TokenOrigin([wrong])) as relay, client_of(relay, purse) as client:
        assert (await refusal(client, TunnelKind.TCP, 9)).status == 407
    assert purse.asked == []


async def test_nothing_that_is_shown_names_a_token(folder: Path) -> None:
    origin, purse = TokenOrigin([WANTED], admits=0), Purse()
    async with admitting(folder, origin) as relay, client_of(relay, purse) as client:
        error = await refusal(client, TunnelKind.TCP, 9)
        shown = repr(client.options) + repr(error) + str(error)
    for word in ("PrivateToken", "Purse", purse.tokens[0].hex()):
        assert word not in shown


class TestSources:
    async def test_a_file_shared_by_two_clients(self, folder: Path, tmp_path: Path) -> None:
        file = TokenFile(tmp_path / "tokens")
        tokens = [make_token(WANTED) for _ in range(4)]
        file.append(tokens)
        origin = TokenOrigin([WANTED])
        async with tcp_origin() as tcp, admitting(folder, origin) as relay:
            for _ in range(2):
                async with client_of(relay, FileTokens(file.path)) as client:
                    await asyncio.gather(*(round_trip(client, TunnelKind.TCP, tcp.port) for _ in range(2)))
            async with client_of(relay, FileTokens(file.path)) as client:
                assert "none left" in str(await refusal(client, TunnelKind.TCP, tcp.port))
        assert set(origin.uses) == {parse_token(token).nonce for token in tokens}

    async def test_an_issuer_is_asked_for_exactly_that_challenge(self, folder: Path) -> None:
        origin = TokenOrigin([challenge(context=b"\5" * 32)])
        async with (
            tcp_origin() as tcp,
            issued(folder) as tokens,
            admitting(folder, origin) as relay,
            client_of(relay, tokens) as client,
        ):
            for _ in range(3):
                await round_trip(client, TunnelKind.TCP, tcp.port)
        assert origin.spent == 3

    async def test_a_file_goes_before_an_issuer(self, folder: Path, tmp_path: Path) -> None:
        file = TokenFile(tmp_path / "tokens")
        file.append([make_token(WANTED)])
        origin = TokenOrigin([WANTED])
        async with (
            tcp_origin() as tcp,
            issued(folder) as tokens,
            admitting(folder, origin) as relay,
            client_of(relay, TokenSources([FileTokens(file.path), tokens])) as client,
        ):
            for _ in range(2):
                await round_trip(client, TunnelKind.TCP, tcp.port)
        assert origin.spent == 2
        assert file.count() == {}

    async def test_another_issuers_challenge_is_not_answered(self, folder: Path) -> None:
        async with (
            issued(folder, "other.example") as tokens,
            admitting(folder, TokenOrigin([WANTED])) as relay,
            client_of(relay, tokens) as client,
        ):
            assert "none left" in str(await refusal(client, TunnelKind.TCP, 9))

    async def test_an_issuer_that_is_away_is_a_refusal(self, folder: Path) -> None:
        async with open_http(folder / "ca.pem") as http:
            tokens = IssuedTokens(Issuer(http, "https://127.0.0.1:1", lambda: 0.0), ISSUER)
            async with admitting(folder, TokenOrigin([WANTED])) as relay, client_of(relay, tokens) as client:
                assert "cannot be reached" in str(await refusal(client, TunnelKind.TCP, 9))


@asynccontextmanager
async def issued(folder: Path, name: str = ISSUER) -> AsyncIterator[IssuedTokens]:
    """Tokens of a running issuer."""
    async with running_issuer(folder, [rsa_key(), voprf_key()]) as url, open_http(folder / "ca.pem") as http:
        yield IssuedTokens(Issuer(http, url, lambda: 0.0), name)
