"""From a challenge to a token and back: RFC 9578's vectors, both types, every error of an issuer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque.errors import LocalMisuse, Malformed, RequestRejected
from masque.privacypass import (
    ENTROPY_SIZE,
    SALT_SIZE,
    IssuerKey,
    PendingToken,
    RsaBlinds,
    TokenRequest,
    TokenType,
    VoprfPrivateKey,
    begin,
    challenge_digest,
    draw_blinds,
    encode_token,
    encode_token_request,
    issue,
    parse_token_request,
    request_size,
    response_size,
)
from tests.masque.outcomes import attempt
from tests.masque.privacypass_vectors import CHALLENGE_1, CHALLENGE_2, ENTROPY, load, rsa_key, unhex, voprf_key

NONCE = bytes(range(32))


def _begin(token_type: TokenType) -> tuple[PendingToken, IssuerKey]:
    """A request of each type, and who answers it."""
    if token_type is TokenType.VOPRF_P384:
        return begin(CHALLENGE_1, voprf_key().public, NONCE), voprf_key()
    key = rsa_key()
    return begin(CHALLENGE_2, key.public, NONCE, draw_blinds(key.public, ENTROPY)), key


@pytest.mark.parametrize("vector", load("rfc9578_blind_rsa")["vectors"], ids=range(1, 6))
def test_issuance_follows_rfc_9578_appendix_b2(vector: dict[str, str]) -> None:
    challenge, nonce, salt = unhex(vector, "token_challenge", "nonce", "salt")
    pending = begin(challenge, rsa_key().public, nonce, RsaBlinds(int(vector["blind"], 16), salt))
    assert pending.request == bytes.fromhex(vector["token_request"])
    response = issue(pending.request, [voprf_key(), rsa_key()], ENTROPY)
    assert response == bytes.fromhex(vector["token_response"])
    assert encode_token(pending.finish(response)) == bytes.fromhex(vector["token"])


@pytest.mark.parametrize("vector", [*load("rfc9578_voprf"), *load("rfc9578_blind_rsa")["vectors"]])
def test_messages_of_rfc_9578(vector: dict[str, str]) -> None:
    request, response, token = unhex(vector, "token_request", "token_response", "token")
    parsed = parse_token_request(request)
    assert encode_token_request(parsed) == request
    assert parsed.truncated_key_id == token[97]
    assert (len(request), len(response)) == (request_size(parsed.token_type), response_size(parsed.token_type))


def test_sizes() -> None:
    assert [(request_size(kind), response_size(kind)) for kind in TokenType] == [(52, 145), (259, 256)]


@pytest.mark.parametrize("token_type", TokenType)
def test_a_token_of_each_type(token_type: TokenType) -> None:
    pending, key = _begin(token_type)
    token = pending.finish(issue(pending.request, [rsa_key(), voprf_key()], ENTROPY))
    assert (token.token_type, token.nonce, token.key_id) == (token_type, NONCE, key.public.key_id)
    assert token.challenge_digest == challenge_digest(CHALLENGE_1 if token_type == 1 else CHALLENGE_2)
    verifier = key if isinstance(key, VoprfPrivateKey) else key.public
    assert verifier.verify(token.input, token.authenticator)
    assert NONCE not in pending.request


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=ENTROPY_SIZE + SALT_SIZE, max_size=400), st.binary())
@settings(max_examples=15)
def test_any_nonce_and_challenge(nonce: bytes, entropy: bytes, rest: bytes) -> None:
    key = rsa_key()
    pending = begin(b"\0\2" + rest, key.public, nonce, draw_blinds(key.public, entropy))
    token = pending.finish(issue(pending.request, [key], ENTROPY))
    assert key.public.verify(token.input, token.authenticator)


@pytest.mark.parametrize("token_type", TokenType)
def test_every_prefix_and_a_byte_more_of_a_request_is_422(token_type: TokenType) -> None:
    pending, key = _begin(token_type)
    for data in [pending.request[:size] for size in range(len(pending.request))] + [pending.request + b"\0"]:
        with pytest.raises(Malformed):
            parse_token_request(data)
        with pytest.raises(RequestRejected) as caught:
            issue(data, [key], ENTROPY)
        assert caught.value.status == 422


@pytest.mark.parametrize("token_type", TokenType)
def test_an_unknown_key_or_type_is_422(token_type: TokenType) -> None:
    pending, key = _begin(token_type)
    request = bytearray(pending.request)
    for data, keys in [
        (bytes(request), []),
        (bytes(request), [rsa_key() if token_type == 1 else voprf_key()]),
        (bytes((*request[:2], request[2] ^ 1, *request[3:])), [key]),
        (b"\xda\x42" + bytes(request[2:]), [key]),
        (b"\0\0" + bytes(request[2:]), [key]),
        (bytes((0, 3 - token_type, *request[2:])), [key]),
    ]:
        with pytest.raises(RequestRejected) as caught:
            issue(data, keys, ENTROPY)
        assert caught.value.status == 422


def test_a_blinded_message_that_is_no_element_is_422() -> None:
    for data in (bytes(49), b"\4" + bytes(48), b"\2" + b"\xff" * 48):
        request = encode_token_request(TokenRequest(TokenType.VOPRF_P384, voprf_key().key_id[-1], data))
        with pytest.raises(RequestRejected) as caught:
            issue(request, [voprf_key()], ENTROPY)
        assert caught.value.status == 422


def test_a_blinded_message_that_is_too_large_is_422() -> None:
    key_id = rsa_key().public.key_id[-1]
    request = encode_token_request(TokenRequest(TokenType.BLIND_RSA_2048, key_id, b"\xff" * 256))
    with pytest.raises(RequestRejected) as caught:
        issue(request, [rsa_key()], ENTROPY)
    assert caught.value.status == 422


@given(st.binary(max_size=270) | st.binary(min_size=49, max_size=49), st.sampled_from([None, *TokenType]))
@settings(max_examples=50)
def test_any_request_is_answered_or_rejected(data: bytes, token_type: TokenType | None) -> None:
    keys: dict[TokenType, IssuerKey] = {TokenType.VOPRF_P384: voprf_key(), TokenType.BLIND_RSA_2048: rsa_key()}
    if token_type is not None:
        data = token_type.to_bytes(2, "big") + keys[token_type].public.key_id[-1:] + data
    answer = attempt(lambda: issue(data, keys.values(), ENTROPY))
    if isinstance(answer, RequestRejected):
        assert answer.status == 422
    else:
        assert token_type is not None
        assert len(answer) == response_size(token_type)


def test_of_two_keys_with_one_truncated_id_the_first_is_used() -> None:
    seeds = (number.to_bytes(32, "big") for number in range(100_000))
    first = VoprfPrivateKey(bytes(31) + b"\xff")
    second = next(key for key in map(VoprfPrivateKey, seeds) if _alike(key, first))
    pending = begin(CHALLENGE_1, first.public, NONCE)
    assert pending.finish(issue(pending.request, [first, second], b"")).key_id == first.key_id
    with pytest.raises(Malformed):
        pending.finish(issue(pending.request, [second, first], b""))


def _alike(left: VoprfPrivateKey, right: VoprfPrivateKey) -> bool:
    return left.key_id[-1] == right.key_id[-1] and left.key_id != right.key_id


@pytest.mark.parametrize("token_type", TokenType)
def test_every_prefix_and_flip_of_a_response_is_refused(token_type: TokenType) -> None:
    pending, key = _begin(token_type)
    response = issue(pending.request, [key], ENTROPY)
    for size in range(len(response)):
        with pytest.raises(Malformed):
            pending.finish(response[:size])
    for place in range(0, len(response), 7):
        changed = bytearray(response)
        changed[place] ^= 1
        with pytest.raises(Malformed):
            pending.finish(bytes(changed))
    with pytest.raises(Malformed):
        pending.finish(response + b"\0")


@given(st.sampled_from(TokenType), st.data())
@settings(max_examples=50)
def test_any_response_is_refused(token_type: TokenType, data: st.DataObject) -> None:
    pending, _ = _begin(token_type)
    size = response_size(token_type)
    with pytest.raises(Malformed):
        pending.finish(data.draw(st.binary(min_size=size - 1, max_size=size + 1)))


def test_an_answer_to_another_request_is_refused() -> None:
    key = rsa_key()
    first, _ = _begin(TokenType.BLIND_RSA_2048)
    other = begin(CHALLENGE_2, key.public, bytes(32), draw_blinds(key.public, ENTROPY))
    with pytest.raises(Malformed):
        other.finish(issue(first.request, [key], ENTROPY))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_nonces_have_32_bytes(size: int) -> None:
    with pytest.raises(LocalMisuse):
        begin(CHALLENGE_1, voprf_key().public, bytes(size))


def test_blinds_fit_their_key() -> None:
    key = rsa_key().public
    blinds = draw_blinds(key, ENTROPY)
    with pytest.raises(LocalMisuse):
        begin(CHALLENGE_2, key, NONCE)
    with pytest.raises(LocalMisuse):
        begin(CHALLENGE_1, voprf_key().public, NONCE, blinds)
    for wrong in (replace(blinds, salt=bytes(47)), replace(blinds, salt=b""), replace(blinds, factor=0)):
        with pytest.raises(LocalMisuse):
            begin(CHALLENGE_2, key, NONCE, wrong)
    with pytest.raises(LocalMisuse):
        draw_blinds(key, bytes(ENTROPY_SIZE + SALT_SIZE - 1))
    assert draw_blinds(key, bytes(ENTROPY_SIZE + SALT_SIZE)) == RsaBlinds(1, bytes(48))


@pytest.mark.parametrize("challenge", [b"", b"\0", b"\0\3abc", CHALLENGE_1])
def test_a_challenge_has_the_type_of_its_key(challenge: bytes) -> None:
    key = rsa_key().public
    with pytest.raises(LocalMisuse):
        begin(challenge, key, NONCE, draw_blinds(key, ENTROPY))


def test_too_few_random_bytes_are_refused() -> None:
    pending, key = _begin(TokenType.BLIND_RSA_2048)
    with pytest.raises(LocalMisuse):
        issue(pending.request, [key], bytes(ENTROPY_SIZE - 1))


@pytest.mark.parametrize("key_id", [-1, 256])
def test_requests_with_fields_of_a_wrong_size_are_not_sent(key_id: int) -> None:
    with pytest.raises(LocalMisuse):
        encode_token_request(TokenRequest(TokenType.VOPRF_P384, key_id, bytes(49)))
    with pytest.raises(LocalMisuse):
        encode_token_request(TokenRequest(TokenType.VOPRF_P384, 0, bytes(48)))


def test_no_secret_is_in_a_text() -> None:
    pending, _ = _begin(TokenType.BLIND_RSA_2048)
    assert str(NONCE) not in repr(pending)
    assert "blinds" not in repr(pending)
    assert repr(RsaBlinds(1, b"")) == "RsaBlinds()"
