"""An origin's check: each refusal for its own reason, and only good tokens pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque.privacypass import (
    GREASED_TYPES,
    Refusal,
    Token,
    TokenType,
    VerifyingKey,
    VoprfPrivateKey,
    begin,
    challenge_digest,
    draw_blinds,
    encode_token,
    issue,
    parse_token,
    read_token,
    select_key,
    verify_token,
)
from tests.masque.privacypass_vectors import CHALLENGE_1, CHALLENGE_2, ENTROPY, load, rsa_key, voprf_key

RSA, VOPRF = rsa_key().public, voprf_key()
OTHER = VoprfPrivateKey(b"\x02" * 32)
ACCEPTED: Mapping[bytes, Mapping[bytes, VerifyingKey]] = {
    challenge_digest(CHALLENGE_2): {RSA.key_id: RSA},
    challenge_digest(CHALLENGE_1): {VOPRF.key_id: VOPRF},
    challenge_digest(b"of another issuer"): {OTHER.key_id: OTHER},
}


def _tokens() -> list[Token]:
    pending = [
        begin(CHALLENGE_2, RSA, bytes(32), draw_blinds(RSA, ENTROPY)),
        begin(CHALLENGE_1, VOPRF.public, bytes(32)),
    ]
    return [one.finish(issue(one.request, [rsa_key(), VOPRF], ENTROPY)) for one in pending]


TOKENS = _tokens()
BOTH = pytest.mark.parametrize("token", TOKENS, ids=["type-2", "type-1"])


@BOTH
def test_a_good_token_passes(token: Token) -> None:
    assert read_token(encode_token(token)) == token
    key = select_key(token, ACCEPTED)
    assert not isinstance(key, Refusal)
    assert key.key_id == token.key_id
    assert verify_token(token, ACCEPTED) is None


@BOTH
def test_each_field_has_its_refusal(token: Token) -> None:
    flipped = bytes((token.authenticator[0] ^ 1,)) + token.authenticator[1:]
    for changed, refusal in [
        (replace(token, nonce=bytes(31) + b"\1"), Refusal.BAD_AUTHENTICATOR),
        (replace(token, authenticator=flipped), Refusal.BAD_AUTHENTICATOR),
        (replace(token, challenge_digest=bytes(32)), Refusal.WRONG_CHALLENGE),
        (replace(token, key_id=bytes(32)), Refusal.UNKNOWN_KEY),
    ]:
        assert verify_token(changed, ACCEPTED) is refusal


@BOTH
def test_a_type_that_is_not_its_key_s_is_refused(token: Token) -> None:
    other = TokenType(3 - token.token_type)
    changed = replace(token, token_type=other, authenticator=bytes(other.authenticator_size))
    assert verify_token(changed, ACCEPTED) is Refusal.WRONG_TYPE


def test_a_key_of_another_issuer_makes_no_tokens_for_this_challenge() -> None:
    pending = begin(CHALLENGE_1, OTHER.public, bytes(32))
    token = pending.finish(issue(pending.request, [OTHER], b""))
    assert OTHER.verify(token.input, token.authenticator)
    assert verify_token(token, ACCEPTED) is Refusal.UNKNOWN_KEY


@BOTH
def test_a_challenge_whose_time_is_over_is_refused(token: Token) -> None:
    assert verify_token(token, {}) is Refusal.WRONG_CHALLENGE
    assert verify_token(token, {token.challenge_digest: {}}) is Refusal.UNKNOWN_KEY


@BOTH
def test_the_cheap_step_does_not_look_at_the_authenticator(token: Token) -> None:
    changed = replace(token, authenticator=bytes(len(token.authenticator)))
    assert select_key(changed, ACCEPTED) is select_key(token, ACCEPTED)


@BOTH
def test_every_prefix_is_refused(token: Token) -> None:
    data = encode_token(token)
    for size in range(len(data)):
        assert read_token(data[:size]) is Refusal.MALFORMED
    assert read_token(data + b"\0") is Refusal.MALFORMED


@pytest.mark.parametrize("token_type", sorted(GREASED_TYPES))
def test_types_that_we_do_not_know(token_type: int) -> None:
    assert read_token(token_type.to_bytes(2, "big")) is Refusal.UNKNOWN_TYPE
    assert read_token(token_type.to_bytes(2, "big") + bytes(352)) is Refusal.UNKNOWN_TYPE


@given(st.binary(max_size=400))
def test_any_bytes_are_a_token_or_refused(data: bytes) -> None:
    token = read_token(data)
    if isinstance(token, Refusal):
        assert token in (Refusal.MALFORMED, Refusal.UNKNOWN_TYPE)
    else:
        assert verify_token(token, ACCEPTED) is Refusal.WRONG_CHALLENGE


@given(st.sampled_from(TOKENS), st.data())
@settings(max_examples=60)
def test_any_change_of_a_byte_is_refused(token: Token, data: st.DataObject) -> None:
    changed = bytearray(encode_token(token))
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    read = read_token(bytes(changed))
    assert isinstance(read if isinstance(read, Refusal) else verify_token(read, ACCEPTED), Refusal)


@pytest.mark.parametrize("vector", load("rfc9578_blind_rsa")["vectors"], ids=range(1, 6))
def test_tokens_of_rfc_9578_appendix_b2(vector: dict[str, str]) -> None:
    digest = challenge_digest(bytes.fromhex(vector["token_challenge"]))
    token = parse_token(bytes.fromhex(vector["token"]))
    assert verify_token(token, {digest: {RSA.key_id: RSA}}) is None
    assert verify_token(token, {digest: {VOPRF.key_id: VOPRF}}) is Refusal.UNKNOWN_KEY


def test_refusals_are_words() -> None:
    assert [refusal.value for refusal in Refusal] == [
        "malformed", "unknown-type", "wrong-challenge", "unknown-key", "wrong-type", "bad-authenticator",
    ]  # fmt: skip
