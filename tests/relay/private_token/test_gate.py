"""The gate: which tokens admit, what else is answered, and that nothing is told of a token."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import structlog.testing
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from masque.privacypass import Token, TokenType, VoprfPrivateKey, encode_base64url, encode_token
from relay.auth import auth_hooks
from relay.auth.private_token import key_ring
from relay.auth.private_token.checks import CheckQueue
from relay.auth.private_token.key_file import OriginKey, read_key_file
from relay.hooks import AuthScheme, ConnectionContext, HookChain, Principal
from relay.settings import AuthSettings, SettingsError
from relay.spent import StoreAway
from relay.telemetry import Metric, TokenRefusal
from tests.relay.private_token.rig import (
    Door,
    credentials,
    exchange,
    new_issuer,
    open_gate,
    pem,
    settings,
    vector_issuer,
    voprf_token,
)

pytestmark = pytest.mark.anyio

RSA, VOPRF = 0, 1
"Places of the two challenges."


def good(door: Door, which: int = RSA) -> Token:
    challenge = door.challenge(which)
    return vector_issuer().token(challenge) if which == RSA else voprf_token(challenge)


@pytest.mark.parametrize("which", [RSA, VOPRF])
@pytest.mark.parametrize("name", [b"authorization", b"proxy-authorization"])
async def test_a_good_token_admits_once(tmp_path: Path, which: int, name: bytes) -> None:
    async with open_gate(settings(tmp_path)) as door:
        token = good(door, which)
        assert await door.ask(token, name=name) == 200
        assert await door.ask(token, name=name) == 407
        assert door.metrics.value(Metric.TOKENS_SPENT) == 1
        assert door.metrics.value(Metric.TOKENS_REFUSED, TokenRefusal.SPENT) == 1


async def test_a_token_is_the_same_in_every_spelling_and_with_every_signature(tmp_path: Path) -> None:
    async with open_gate(settings(tmp_path)) as door:
        token = good(door)
        text = encode_base64url(encode_token(token))
        assert await door.ask(token) == 200
        for value in (
            b"PrivateToken token=" + text,
            b"privatetoken   token=" + text.rstrip(b"="),
            b'PRIVATETOKEN x=y, Token="' + text + b'"',
            credentials(vector_issuer().token(door.challenge(), token.nonce)),
        ):
            assert await door.ask(value) == 407
        assert door.metrics.value(Metric.TOKENS_REFUSED, TokenRefusal.SPENT) == 4


async def test_a_token_that_is_known_to_be_spent_costs_no_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_gate(settings(tmp_path)) as door:
        token = good(door)
        assert await door.ask(token) == 200
        monkeypatch.setattr(CheckQueue, "verify", None)
        assert await door.ask(token) == 407


async def test_the_principal_tells_nothing_but_the_issuer(tmp_path: Path) -> None:
    async with open_gate(settings(tmp_path)) as door:
        found = await door.chain.authenticate(exchange(credentials(good(door))))
        assert found == Principal("token-1", AuthScheme.PRIVATE_TOKEN)


async def test_each_refusal_has_its_reason_and_costs_nothing(tmp_path: Path) -> None:
    async with open_gate(settings(tmp_path)) as door:
        token = good(door)
        encoded = encode_token(token)
        other = new_issuer(1).token(door.challenge())
        flipped = token.authenticator[:-1] + bytes((token.authenticator[-1] ^ 1,))
        cases = [
            (b"", TokenRefusal.MALFORMED),
            (encoded[:-1], TokenRefusal.MALFORMED),
            (encoded + b"\0", TokenRefusal.MALFORMED),
            (b"\x00", TokenRefusal.MALFORMED),
            (b"\xda\x7a" + encoded[2:], TokenRefusal.UNKNOWN_TYPE),
            (encode_token(replace(token, challenge_digest=bytes(32))), TokenRefusal.WRONG_CHALLENGE),
            (encode_token(other), TokenRefusal.UNKNOWN_KEY),
            (encode_token(replace(token, authenticator=flipped)), TokenRefusal.BAD_AUTHENTICATOR),
            (encode_token(replace(token, nonce=bytes(32))), TokenRefusal.BAD_AUTHENTICATOR),
        ]
        for data, reason in cases:
            before = door.metrics.value(Metric.TOKENS_REFUSED, reason)
            value = credentials(data) if data else b"PrivateToken x"
            assert await door.ask(value) == 407, reason
            assert door.metrics.value(Metric.TOKENS_REFUSED, reason) == before + 1, reason
        assert await door.ask(token) == 200


async def test_types_are_not_mixed(tmp_path: Path) -> None:
    """A token of one type for the challenge of the other, by a key of either."""
    async with open_gate(settings(tmp_path)) as door:
        first, second = good(door, VOPRF), good(door, RSA)
        crossed = replace(first, challenge_digest=second.challenge_digest)
        assert await door.ask(crossed) == 407
        assert door.metrics.value(Metric.TOKENS_REFUSED, TokenRefusal.UNKNOWN_KEY) == 1
        assert await door.ask(vector_issuer().token(door.challenge(VOPRF))) == 407
        assert door.metrics.value(Metric.TOKENS_REFUSED, TokenRefusal.UNKNOWN_KEY) == 2
        renamed = replace(crossed, key_id=second.key_id)
        assert await door.ask(renamed) == 407
        assert door.metrics.value(Metric.TOKENS_REFUSED, TokenRefusal.WRONG_TYPE) == 1


async def test_an_issuer_s_key_makes_no_tokens_for_another_s_challenge(tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_bytes(pem(new_issuer(1).spki))
    (tmp_path / "first.pem").write_bytes(pem(vector_issuer().spki))
    issuers = [
        {"name": "first.example", "keys": [tmp_path / "first.pem"]},
        {"name": "other.example", "keys": [tmp_path / "other.pem"]},
    ]
    async with open_gate(settings(tmp_path, issuers=issuers)) as door:
        assert await door.ask(new_issuer(1).token(door.challenge(0))) == 407
        found = await door.chain.authenticate(exchange(credentials(new_issuer(1).token(door.challenge(1)))))
        assert found == Principal("token-2", AuthScheme.PRIVATE_TOKEN)


@pytest.mark.parametrize("value", [None, b"Basic abc", b"PrivateToken", b"PrivateTokens token=abc", b"nonsense"])
async def test_other_credentials_are_not_ours(tmp_path: Path, value: bytes | None) -> None:
    async with open_gate(settings(tmp_path)) as door:
        assert await door.ask(value) == 407
        assert door.metrics.value(Metric.TOKENS_REFUSED) == 0


async def test_a_principal_that_was_found_stays_and_no_token_is_spent(tmp_path: Path) -> None:
    async with open_gate(settings(tmp_path)) as door:
        chain = HookChain([auth_hooks(AuthSettings(open=True)), door.gate.hooks])
        token = good(door)
        found = await chain.authenticate(exchange(credentials(token)))
        assert isinstance(found, Principal)
        assert found.scheme is AuthScheme.OPEN
        assert await door.ask(token) == 200


@pytest.mark.parametrize("limit", [1, 3])
async def test_so_many_tunnels_and_no_more_at_once(tmp_path: Path, limit: int) -> None:
    async with open_gate(settings(tmp_path, admits=limit)) as door:
        token = good(door)
        answers = await asyncio.gather(*[door.ask(token, ConnectionContext(0.0)) for _ in range(40)])
        assert sorted(answers) == [200] * limit + [407] * (40 - limit)


class TestConnection:
    """What one token admits when it admits a connection."""

    async def test_later_exchanges_need_no_token(self, tmp_path: Path) -> None:
        async with open_gate(settings(tmp_path, admits="connection")) as door:
            mine, other = ConnectionContext(0.0), ConnectionContext(0.0)
            token, second = good(door), good(door)
            assert await door.ask(None, mine) == 407
            assert await door.ask(token, mine) == 200
            for value in (None, token, second, b"PrivateToken token=x"):
                assert await door.ask(value, mine) == 200
            assert await door.ask(token, other) == 407
            assert await door.ask(None, other) == 407
            assert await door.ask(second, other) == 200, "an admitted connection spends no other token"
            assert door.metrics.value(Metric.TOKENS_SPENT) == 2

    async def test_exchanges_at_once_spend_one_token(self, tmp_path: Path) -> None:
        async with open_gate(settings(tmp_path, admits="connection")) as door:
            mine = ConnectionContext(0.0)
            token = good(door)
            tokens = [token, token, good(door), token, good(door)]
            assert await asyncio.gather(*[door.ask(each, mine) for each in tokens]) == [200] * 5
            assert door.metrics.value(Metric.TOKENS_SPENT) == 1

    async def test_a_bad_token_admits_nothing(self, tmp_path: Path) -> None:
        async with open_gate(settings(tmp_path, admits="connection")) as door:
            mine = ConnectionContext(0.0)
            bad = replace(good(door), nonce=bytes(32))
            answers = await asyncio.gather(*[door.ask(token, mine) for token in (bad, good(door))])
            assert answers == [407, 200]

    async def test_an_exchange_that_is_aborted_while_its_token_is_spent_has_admitted_its_connection(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with open_gate(settings(tmp_path, admits="connection")) as door:
            mine, token = ConnectionContext(0.0), good(door)
            spend, is_spent, may_answer = door.parts.store.spend, asyncio.Event(), asyncio.Event()

            async def slow(token_id: bytes, limit: int, expires: float) -> bool:
                found = await spend(token_id, limit, expires)
                is_spent.set()
                await may_answer.wait()
                return found

            monkeypatch.setattr(door.parts.store, "spend", slow)
            async with asyncio.TaskGroup() as tasks:
                first = tasks.create_task(door.ask(token, mine))
                await is_spent.wait()
                first.cancel()
                second = tasks.create_task(door.ask(token, mine))
                await asyncio.sleep(0)
                may_answer.set()
            assert first.cancelled()
            assert second.result() == 200
            assert door.metrics.value(Metric.TOKENS_SPENT) == 1

    async def test_only_so_many_wait(self, tmp_path: Path) -> None:
        async with open_gate(settings(tmp_path, admits="connection")) as door:
            mine = ConnectionContext(0.0)
            bad = replace(good(door), nonce=bytes(32))
            answers = await asyncio.gather(*[door.ask(bad, mine) for _ in range(140)])
            assert (answers.count(407), answers.count(503)) == (128, 12)
            assert door.metrics.value(Metric.TOKENS_REFUSED, TokenRefusal.BUSY) == 12
            assert await door.ask(good(door), mine) == 200


class TestUnavailable:
    """When nobody can say, the answer is 503 and nobody is admitted."""

    async def test_store_away(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async with open_gate(settings(tmp_path, store={"kind": "memory", "entries": 1})) as door:
            assert await door.ask(good(door)) == 200
            with structlog.testing.capture_logs() as lines:
                token = good(door)
                for _ in range(5):
                    assert await door.ask(token) == 503
            assert [line["event"] for line in lines] == ["spent_store_away"]
            assert door.metrics.value(Metric.TOKENS_REFUSED, TokenRefusal.STORE_AWAY) == 5

    async def test_a_store_that_never_was_there(self, tmp_path: Path) -> None:
        store = {"kind": "redis", "url": "redis://127.0.0.1:1/0"}
        with structlog.testing.capture_logs() as lines:
            async with open_gate(settings(tmp_path, store=store)) as door:
                for _ in range(3):
                    assert await door.ask(good(door)) == 503
                assert await door.ask(None) == 407
        assert [(line["event"], line["reason"]) for line in lines] == [("spent_store_away", "unreachable")]

    async def test_store_closed(self, tmp_path: Path) -> None:
        async with open_gate(settings(tmp_path)) as door:
            await door.parts.store.close()
            with pytest.raises(StoreAway):
                await door.parts.store.probe()
            assert await door.ask(good(door)) == 503

    async def test_too_many_checks_wait(self, tmp_path: Path) -> None:
        async with open_gate(settings(tmp_path, waiting=4)) as door:
            tokens = [good(door) for _ in range(10)]
            answers = await asyncio.gather(*[door.ask(token) for token in tokens])
            assert answers == [200] * 4 + [503] * 6
            assert door.metrics.value(Metric.TOKENS_REFUSED, TokenRefusal.BUSY) == 6
            assert await door.ask(tokens[-1]) == 200, "a token that could not be checked is still good"

    async def test_a_connection_that_sends_many_tokens_leaves_room_for_others(self, tmp_path: Path) -> None:
        """Whatever its tokens are, and how many of its requests it has reset."""
        async with open_gate(settings(tmp_path, waiting=20)) as door:
            greedy, modest = ConnectionContext(0.0), ConnectionContext(0.0)
            bad = replace(good(door), nonce=bytes(32))
            async with asyncio.TaskGroup() as tasks:
                asked = [tasks.create_task(door.ask(bad, greedy)) for _ in range(200)]
                others = [tasks.create_task(door.ask(token, modest)) for token in (good(door), good(door, VOPRF))]
                await asyncio.sleep(0)
                for task in asked[::3]:
                    task.cancel()
            assert [task.result() for task in others] == [200, 200]
            answers = [task.result() for task in asked if not task.cancelled()]
            assert set(answers) == {407, 503}
            assert answers.count(503) == door.metrics.value(Metric.TOKENS_REFUSED, TokenRefusal.BUSY)
            assert await door.ask(good(door), greedy) == 200, "it has its places back"

    async def test_a_client_that_opens_many_tunnels_at_once_gets_them(self, tmp_path: Path) -> None:
        async with open_gate(settings(tmp_path)) as door:
            mine, tokens = ConnectionContext(0.0), [good(door, number % 2) for number in range(100)]
            assert await asyncio.gather(*[door.ask(token, mine) for token in tokens]) == [200] * 100

    async def test_a_check_that_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> bool:
            raise RuntimeError("secret")

        async with open_gate(settings(tmp_path)) as door:
            key = next(iter(door.parts.rings[0].live(TokenType.BLIND_RSA_2048).values()))
            monkeypatch.setattr(type(key), "verify", fail)
            assert await door.ask(good(door)) == 503
            assert door.metrics.value(Metric.TOKENS_REFUSED, TokenRefusal.CHECK_FAILED) == 1
            monkeypatch.undo()
            assert await door.ask(good(door)) == 200

    async def test_keys_that_are_not_known_yet(self, tmp_path: Path, certificates: Path) -> None:
        issuer = {"name": "a.example", "directory": "https://127.0.0.1:1", "ca_file": certificates / "ca.pem"}
        async with open_gate(settings(tmp_path, issuers=[issuer])) as door:
            (offer,) = door.offers()
            assert offer.token_key is None
            assert await door.ask(vector_issuer().token(offer.challenge)) == 503
            assert door.metrics.value(Metric.TOKENS_REFUSED, TokenRefusal.NO_KEYS) == 1
            assert await door.ask(None) == 407


class TestReload:
    async def test_keys_of_files_change_at_once(self, tmp_path: Path) -> None:
        async with open_gate(settings(tmp_path)) as door:
            old = good(door)
            new = new_issuer(1)
            (tmp_path / "key.pem").write_bytes(pem(new.spki) + pem(vector_issuer().spki))
            await door.gate.reload()
            assert door.offers()[RSA].token_key == new.spki
            assert await door.ask(old) == 200
            assert await door.ask(new.token(door.challenge())) == 200
            (tmp_path / "key.pem").write_bytes(pem(new.spki))
            await door.gate.reload()
            assert await door.ask(good(door)) == 407
            assert door.metrics.value(Metric.TOKENS_REFUSED, TokenRefusal.UNKNOWN_KEY) == 1

    async def test_files_are_read_off_the_loop(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async with open_gate(settings(tmp_path)) as door:
            may_read, threads = threading.Event(), set()

            def slow(path: Path) -> list[OriginKey]:
                threads.add(threading.get_ident())
                assert may_read.wait(10)
                return read_key_file(path)

            monkeypatch.setattr(key_ring, "read_key_file", slow)
            async with asyncio.TaskGroup() as tasks:
                reloading = tasks.create_task(door.gate.reload())
                assert await door.ask(good(door)) == 200, "the keys so far are in use meanwhile"
                assert not reloading.done()
                may_read.set()
            assert threading.get_ident() not in threads
            assert await door.ask(good(door)) == 200

    async def test_a_bad_file_changes_nothing(self, tmp_path: Path) -> None:
        async with open_gate(settings(tmp_path)) as door:
            (tmp_path / "seed").write_bytes(b"\x08" * 48)
            (tmp_path / "key.pem").write_bytes(b"nonsense!")
            with pytest.raises(SettingsError, match=r"^tokens\.issuers\[0\]\.keys\[0\]: .*key\.pem holds "):
                await door.gate.reload()
            assert await door.ask(good(door, RSA)) == 200
            assert await door.ask(good(door, VOPRF)) == 200


def test_no_text_holds_a_token(tmp_path: Path) -> None:
    token = vector_issuer().token(b"\x00\x02challenge")
    for text in (repr(token), repr(VoprfPrivateKey(bytes(32))), repr(settings(tmp_path))):
        assert token.nonce.hex() not in text
        assert repr(token.nonce) not in text


TOKEN = vector_issuer().token(b"\x00\x02challenge")
VALUES = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=400).map(lambda data: credentials(data or b"x")),
    st.binary(max_size=80).map(lambda data: b"PrivateToken " + data),
    st.tuples(st.integers(0, 354), st.binary(max_size=3)).map(
        lambda cut: credentials(encode_token(TOKEN)[: cut[0]] + cut[1] + encode_token(TOKEN)[cut[0] + len(cut[1]) :])
    ),
)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(values=st.lists(VALUES, min_size=1, max_size=5))
async def test_any_credentials_are_answered_and_nothing_is_logged(tmp_path: Path, values: list[bytes]) -> None:
    with structlog.testing.capture_logs() as lines:
        async with open_gate(settings(tmp_path)) as door:
            for value in values:
                assert await door.ask(value) in (407, 503)
            changed = replace(TOKEN, nonce=os.urandom(32))
            assert await door.ask(changed) == 407
            assert await door.ask(good(door)) == 200
    assert lines == []
