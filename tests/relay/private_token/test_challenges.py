"""Challenges and what they accept, over time."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from masque.privacypass import TokenType, challenge_digest, parse_challenges, parse_token_challenge
from relay.auth import prepare_tokens
from relay.auth.private_token.challenges import Challenges
from relay.auth.private_token.contexts import Contexts
from relay.settings import SettingsError, TokenSettings
from relay.telemetry import Metric, TokenRefusal
from tests.relay.private_token.rig import NAME, open_gate, settings, vector_issuer
from tests.relay.spent.rig import NOW, Clock

WINDOW = 100.0
VALUE = "ab" * 32


def challenges(token_settings: TokenSettings, clock: Clock) -> Challenges:
    parts = prepare_tokens(token_settings, clock)
    assert parts is not None
    return Challenges(parts.rings, token_settings.origins, parts.contexts, clock)


def offered(made: Challenges) -> list[bytes]:
    return [offer.challenge for offer in parse_challenges(made.offers())]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(b"s" * 32)
    return path


def test_one_challenge_for_each_type_in_the_settings_order(tmp_path: Path) -> None:
    made = challenges(settings(tmp_path), Clock())
    lines = made.offers()
    offers = parse_challenges(lines)
    assert len(lines) == len(offers) == 2
    assert [parse_token_challenge(offer.challenge).known_type for offer in offers] == [
        TokenType.BLIND_RSA_2048,
        TokenType.VOPRF_P384,
    ]
    assert offers[0].token_key == vector_issuer().spki
    assert [offer.max_age for offer in offers] == [None, None]
    asked = parse_token_challenge(offers[0].challenge)
    assert (asked.issuer_name, asked.origin_info, asked.redemption_context) == (NAME, ("relay.example",), b"")


def test_a_fixed_context_is_the_same_for_ever(tmp_path: Path, secret: Path) -> None:
    clock = Clock()
    by_value = challenges(settings(tmp_path, context="fixed", context_value=VALUE), clock)
    by_secret = challenges(settings(tmp_path, context="fixed", context_secret=secret), clock)
    contexts = [parse_token_challenge(offered(made)[0]).redemption_context for made in (by_value, by_secret)]
    assert contexts[0] == bytes.fromhex(VALUE)
    assert len(contexts[1]) == 32
    assert contexts[1] != b"s" * 32
    before = offered(by_secret)
    clock.now += 1e8
    assert offered(by_secret) == before


def test_a_rolling_context_changes_with_its_window_and_is_taken_for_one_more(tmp_path: Path, secret: Path) -> None:
    clock = Clock(NOW - NOW % WINDOW)
    made = challenges(settings(tmp_path, context="rolling", context_secret=secret, window=WINDOW), clock)
    first = offered(made)[0]
    digest = challenge_digest(first)
    assert parse_challenges(made.offers())[0].max_age == 200
    for step, is_offered, is_taken in [
        (99.9, True, True),
        (0.1, False, True),
        (99.9, False, True),
        (0.2, False, False),
    ]:
        clock.now += step
        assert (offered(made)[0] == first) == is_offered
        assert (digest in made.table().keys) == is_taken
    assert made.table().issued[challenge_digest(offered(made)[0])].expires == pytest.approx(NOW - NOW % WINDOW + 400)


def test_a_clock_that_is_set_back_gets_the_window_of_its_time(tmp_path: Path, secret: Path) -> None:
    clock = Clock()
    made = challenges(settings(tmp_path, context="rolling", context_secret=secret, window=WINDOW), clock)
    first = offered(made)
    clock.now += 5 * WINDOW
    assert offered(made) != first
    clock.now -= 5 * WINDOW
    assert offered(made) == first


def test_relays_with_one_secret_take_each_other_s_tokens(tmp_path: Path, secret: Path) -> None:
    clock = Clock()
    rolling = settings(tmp_path, context="rolling", context_secret=secret, window=WINDOW)
    one, other = challenges(rolling, clock), challenges(rolling, clock)
    assert offered(one) == offered(other)


def test_the_table_is_kept_while_nothing_changes(tmp_path: Path) -> None:
    made = challenges(settings(tmp_path), Clock())
    assert made.table() is made.table()


@pytest.mark.parametrize(("data", "wrong"), [(None, "cannot read"), (b"x" * 31, "must hold at least 32")])
def test_a_secret_that_cannot_be_used(tmp_path: Path, data: bytes | None, wrong: str) -> None:
    path = tmp_path / "secret"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(SettingsError, match=rf"^tokens\.context_secret: .*{wrong}"):
        Contexts(TokenSettings(context="rolling", context_secret=path))


def test_without_a_secret_nothing_expires() -> None:
    (context,) = Contexts(TokenSettings()).current(NOW)
    assert (context.value, context.expires) == (b"", math.inf)


@pytest.mark.anyio
async def test_a_token_is_good_for_its_window_and_the_next(tmp_path: Path, secret: Path) -> None:
    rolling = settings(tmp_path, context="rolling", context_secret=secret, window=WINDOW)
    async with open_gate(rolling) as door:
        door.clock.now = NOW - NOW % WINDOW
        tokens = [vector_issuer().token(door.challenge()) for _ in range(3)]
        assert await door.ask(tokens[0]) == 200
        door.clock.now += 1.5 * WINDOW
        assert await door.ask(tokens[1]) == 200
        assert await door.ask(tokens[0]) == 407
        assert door.metrics.value(Metric.TOKENS_REFUSED, TokenRefusal.SPENT) == 1
        door.clock.now += 0.5 * WINDOW
        assert await door.ask(tokens[2]) == 407
        assert door.metrics.value(Metric.TOKENS_REFUSED, TokenRefusal.WRONG_CHALLENGE) == 1
