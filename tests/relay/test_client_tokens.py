"""Where a client's tokens come from: the stock of an issuer's, and which challenges may be answered."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.privacypass import ChallengeOffer, TokenType, challenge_digest, encode_challenges, parse_token
from relay.client import ClientError, IssuedTokens, read_offers, run_stocked
from relay.issuance import IssuanceError
from tests.relay.rig import PATIENCE, eventually
from tests.relay.token_rig import ISSUER, challenge, make_token

pytestmark = pytest.mark.anyio

WANTED = challenge()
VOPRF = challenge(TokenType.VOPRF_P384)


class CountingIssuer:
    """An issuer in this process, which counts what is asked of it."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.is_away = False

    async def fetch(self, offer: ChallengeOffer, count: int = 1) -> list[bytes]:
        self.counts.append(count)
        await asyncio.sleep(0)
        if self.is_away:
            raise IssuanceError("away")
        return [make_token(offer.challenge) for _ in range(count)]


class KeyedIssuer:
    """An issuer whose tokens begin with the key that was named, and that may let clients wait."""

    def __init__(self) -> None:
        self.keys: list[bytes | None] = []
        self.given = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def fetch(self, offer: ChallengeOffer, count: int = 1) -> list[bytes]:
        self.keys += [offer.token_key] * count
        await asyncio.sleep(0)
        await self.may_answer.wait()
        self.given += count
        return [(offer.token_key or b"") + secrets.token_bytes(8) for _ in range(count)]


class TestStock:
    async def test_a_challenge_that_comes_again_is_worth_a_stock(self) -> None:
        issuer = CountingIssuer()
        tokens = IssuedTokens(issuer, ISSUER, stock=3)  # type: ignore[arg-type]  # it does what an issuer does
        offers = read_offers([encode_challenges([ChallengeOffer(WANTED)])], None)
        taken: list[bytes | None] = []

        async def work() -> None:
            nonlocal taken
            taken.append(await tokens.take(offers))
            assert issuer.counts == [1], "a challenge that came once may never come again"
            taken.append(await tokens.take(offers))
            await eventually(lambda: issuer.counts == [1, 1, 3])
            taken += [await tokens.take(offers) for _ in range(3)]
            await eventually(lambda: sum(issuer.counts) >= 8)

        async with asyncio.timeout(PATIENCE):
            await run_stocked(tokens, work)
        assert len(set(taken)) == 5

    async def test_the_stock_of_another_challenge_is_given_up(self) -> None:
        issuer = CountingIssuer()
        tokens = IssuedTokens(issuer, ISSUER, stock=2)  # type: ignore[arg-type]  # it does what an issuer does

        async def work() -> None:
            for wanted in (WANTED, WANTED, VOPRF, WANTED):
                offers = read_offers([encode_challenges([ChallengeOffer(wanted)])], None)
                token = await tokens.take(offers)
                assert token is not None
                assert parse_token(token).challenge_digest == challenge_digest(wanted)
                await asyncio.sleep(0.01)

        async with asyncio.timeout(PATIENCE):
            await run_stocked(tokens, work)

    async def test_the_stock_of_a_key_that_was_replaced_is_given_up(self) -> None:
        issuer = KeyedIssuer()
        tokens = IssuedTokens(issuer, ISSUER, stock=2)  # type: ignore[arg-type]  # it does what an issuer does

        async def take(key: bytes) -> bytes:
            token = await tokens.take(read_offers([encode_challenges([ChallengeOffer(WANTED, key)])], None))
            assert token is not None
            return token[:3]

        async def work() -> None:
            assert [await take(b"old") for _ in range(2)] == [b"old"] * 2
            await eventually(lambda: issuer.given == 4)  # two of them are in stock
            assert [await take(b"new") for _ in range(2)] == [b"new"] * 2
            await eventually(lambda: issuer.given == 8)
            issuer.may_answer.clear()
            assert await take(b"new") == b"new"
            await eventually(lambda: len(issuer.keys) == 9)  # one is asked for ahead, and does not come yet
            asked = asyncio.ensure_future(take(b"nxt"))
            await eventually(lambda: issuer.keys[-1] == b"nxt")
            issuer.may_answer.set()
            assert [await asked, await take(b"nxt"), await take(b"nxt")] == [b"nxt"] * 3

        async with asyncio.timeout(PATIENCE):
            await run_stocked(tokens, work)

    async def test_what_fails_ahead_is_tried_when_it_is_wanted(self) -> None:
        issuer = CountingIssuer()
        tokens = IssuedTokens(issuer, ISSUER, stock=2)  # type: ignore[arg-type]  # it does what an issuer does
        offers = read_offers([encode_challenges([ChallengeOffer(WANTED)])], None)

        async def work() -> None:
            await tokens.take(offers)
            issuer.is_away = True
            with pytest.raises(ClientError, match="away"):
                await tokens.take(offers)
            await eventually(lambda: len(issuer.counts) == 3)
            issuer.is_away = False
            assert await tokens.take(offers) is not None

        async with asyncio.timeout(PATIENCE):
            await run_stocked(tokens, work)

    async def test_what_the_work_raises_comes_out_alone(self) -> None:
        async def work() -> None:
            raise ClientError("no")

        tokens = IssuedTokens(CountingIssuer(), ISSUER)  # type: ignore[arg-type]  # it does what an issuer does
        for stocked in (tokens, None):
            with pytest.raises(ClientError, match="no"):
                await run_stocked(stocked, work)


class TestOffers:
    def test_those_that_can_be_answered_in_order(self) -> None:
        unknown = b"\xda\x7a" + WANTED[2:]
        value = encode_challenges([ChallengeOffer(data) for data in (VOPRF, unknown, b"\0\2nonsense", WANTED)])
        found = read_offers([b'Preshared realm="x"', value], "relay.example")
        assert [offer.offer.challenge for offer in found] == [VOPRF, WANTED]
        assert [offer.token_type for offer in found] == [1, 2]

    @pytest.mark.parametrize(("origin", "count"), [("Relay.example", 1), ("other.example", 0), (None, 1)])
    def test_only_for_the_origin_that_asks(self, origin: str | None, count: int) -> None:
        value = encode_challenges([ChallengeOffer(challenge(origin="relay.example"))])
        assert len(read_offers([value], origin)) == count

    @given(st.lists(st.binary(max_size=200), max_size=4))
    def test_any_field_has_offers_or_none(self, values: list[bytes]) -> None:
        assert read_offers(values, "relay.example") == []

    @given(st.binary(max_size=100))
    def test_any_challenge_is_an_offer_or_none(self, data: bytes) -> None:
        offers = read_offers([encode_challenges([ChallengeOffer(b"\0\2" + data)])], None)
        assert len(offers) in (0, 1)
