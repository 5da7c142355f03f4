"""Type 1's function: RFC 9497's vectors, RFC 9578's, and the package against an implementation of our own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque.errors import LocalMisuse, Malformed
from masque.privacypass import (
    ELEMENT_SIZE,
    EVALUATION_SIZE,
    TokenType,
    VoprfPrivateKey,
    blind_voprf,
    encode_token,
    parse_token,
    parse_token_challenge,
    parse_token_request,
    parse_voprf_key,
)
from tests.masque import voprf_reference as reference
from tests.masque.privacypass_vectors import load, unhex, voprf_key

SUITE = load("rfc9497_p384")
SEED, INFO, PUBLIC, SECRET = unhex(SUITE, "seed", "keyInfo", "pkSm", "skSm")
TOKENS = load("rfc9578_voprf")


def _parts(vector: dict[str, str], name: str) -> list[bytes]:
    return [bytes.fromhex(part) for part in vector[name].split(",")]


def _key() -> VoprfPrivateKey:
    return VoprfPrivateKey(SEED, INFO)


@pytest.mark.parametrize("vector", SUITE["vectors"], ids=range(3))
def test_the_reference_follows_rfc_9497(vector: dict[str, str]) -> None:
    key = int.from_bytes(SECRET, "big")
    assert reference.derive_key(SEED, INFO) == key
    assert reference.serialize(reference.multiply(key, reference.G)) == PUBLIC
    inputs, blinds, blinded = (_parts(vector, name) for name in ("Input", "Blind", "BlindedElement"))
    evaluated, outputs = _parts(vector, "EvaluationElement"), _parts(vector, "Output")
    factors = [int.from_bytes(part, "big") for part in blinds]
    assert list(map(reference.blind, inputs, factors)) == blinded
    assert [
        reference.serialize(reference.multiply(key, reference.deserialize(part))) for part in blinded
    ] == evaluated
    assert list(map(reference.unblind, inputs, factors, evaluated)) == outputs
    assert [reference.evaluate(key, part) for part in inputs] == outputs
    statement = reference.Statement(PUBLIC, blinded, evaluated)
    proof: dict[str, str] = vector["Proof"]  # type: ignore[assignment]
    expected, r = unhex(proof, "proof", "r")
    assert statement.prove(key, int.from_bytes(r, "big")) == expected
    assert statement.holds(expected)
    assert not statement.holds(expected[:-1] + bytes((expected[-1] ^ 1,)))


def test_keys_are_those_of_rfc_9497() -> None:
    assert _key().public == parse_voprf_key(PUBLIC)
    assert _key().key_id == parse_voprf_key(PUBLIC).key_id
    assert _key().token_type is TokenType.VOPRF_P384


@pytest.mark.parametrize("vector", SUITE["vectors"][:2], ids=range(2))
def test_evaluation_follows_rfc_9497(vector: dict[str, str]) -> None:
    message, blinded, evaluated, output = unhex(vector, "Input", "BlindedElement", "EvaluationElement", "Output")
    assert _key().verify(message, output)
    assert not _key().verify(message + b"\0", output)
    assert not _key().verify(message, output[:-1])
    assert not _key().verify(message, output[:-1] + bytes((output[-1] ^ 1,)))
    evaluation = _key().evaluate(blinded)
    assert len(evaluation) == EVALUATION_SIZE
    assert evaluation[:ELEMENT_SIZE] == evaluated
    assert reference.Statement(PUBLIC, [blinded], [evaluated]).holds(evaluation[ELEMENT_SIZE:])


@pytest.mark.parametrize("vector", TOKENS, ids=range(1, 6))
def test_issuance_follows_rfc_9578_appendix_b1(vector: dict[str, str]) -> None:
    secret, public, challenge, nonce = unhex(vector, "skS", "pkS", "token_challenge", "nonce")
    key, factor = int.from_bytes(secret, "big"), int(vector["blind"], 16)
    request = parse_token_request(bytes.fromhex(vector["token_request"]))
    token = parse_token(bytes.fromhex(vector["token"]))
    response = bytes.fromhex(vector["token_response"])
    issuer = parse_voprf_key(public)
    assert request.token_type is token.token_type is TokenType.VOPRF_P384
    assert request.truncated_key_id == issuer.key_id[-1]
    assert (token.nonce, token.key_id) == (nonce, issuer.key_id)
    assert token.challenge_digest == parse_token_challenge(challenge).digest
    assert request.blinded_message == reference.blind(token.input, factor)
    evaluated, proof = response[:ELEMENT_SIZE], response[ELEMENT_SIZE:]
    assert reference.Statement(public, [request.blinded_message], [evaluated]).holds(proof)
    assert reference.unblind(token.input, factor, evaluated) == token.authenticator
    assert reference.evaluate(key, token.input) == token.authenticator
    assert encode_token(token) == bytes.fromhex(vector["token"])


def test_our_client_takes_what_the_reference_signs() -> None:
    key = int.from_bytes(SECRET, "big")
    pending = blind_voprf(b"an input")
    blinded = pending.blinded_element
    evaluated = reference.serialize(reference.multiply(key, reference.deserialize(blinded)))
    proof = reference.Statement(PUBLIC, [blinded], [evaluated]).prove(key, 12345)
    output = pending.finalize(evaluated + proof, parse_voprf_key(PUBLIC))
    assert output == reference.evaluate(key, b"an input")
    assert _key().verify(b"an input", output)


def test_two_requests_for_one_input_are_not_alike() -> None:
    assert blind_voprf(b"an input").blinded_element != blind_voprf(b"an input").blinded_element


def test_a_proof_of_another_key_or_request_is_refused() -> None:
    pending, other = blind_voprf(b"an input"), blind_voprf(b"an input")
    evaluation = _key().evaluate(pending.blinded_element)
    assert len(pending.finalize(evaluation, _key().public)) == 48
    with pytest.raises(Malformed):
        pending.finalize(evaluation, voprf_key().public)
    with pytest.raises(Malformed):
        other.finalize(evaluation, _key().public)
    with pytest.raises(Malformed):
        pending.finalize(voprf_key().evaluate(pending.blinded_element), _key().public)


def test_every_prefix_and_flip_of_an_evaluation_is_refused() -> None:
    pending = blind_voprf(b"an input")
    evaluation = _key().evaluate(pending.blinded_element)
    for size in range(len(evaluation)):
        with pytest.raises(Malformed):
            pending.finalize(evaluation[:size], _key().public)
    for place in range(len(evaluation)):
        changed = bytearray(evaluation)
        changed[place] ^= 1
        with pytest.raises(Malformed):
            pending.finalize(bytes(changed), _key().public)
    with pytest.raises(Malformed):
        pending.finalize(evaluation + b"\0", _key().public)


@pytest.mark.parametrize("tag", [0, 1, 4, 5, 6, 7])
def test_elements_have_one_form(tag: int) -> None:
    pending = blind_voprf(b"an input")
    with pytest.raises(Malformed):
        voprf_key().evaluate(bytes((tag,)) + pending.blinded_element[1:])
    evaluation = voprf_key().evaluate(pending.blinded_element)
    with pytest.raises(Malformed):
        pending.finalize(bytes((tag,)) + evaluation[1:], voprf_key().public)


@given(st.binary(max_size=2 * ELEMENT_SIZE) | st.binary(min_size=ELEMENT_SIZE, max_size=ELEMENT_SIZE))
@settings(max_examples=50)
def test_any_blinded_element_is_evaluated_or_refused(data: bytes) -> None:
    try:
        evaluation = voprf_key().evaluate(data)
    except Malformed:
        return
    assert len(evaluation) == EVALUATION_SIZE


@given(st.binary(min_size=48, max_size=48), st.sampled_from(b"\0\2\3\4\5"))
@settings(max_examples=50)
def test_any_x_is_evaluated_or_refused(x: bytes, sign: int) -> None:
    try:
        evaluation = voprf_key().evaluate(bytes((sign,)) + x)
    except Malformed:
        return
    assert sign in (2, 3)
    assert len(evaluation) == EVALUATION_SIZE


@given(st.binary(max_size=EVALUATION_SIZE + 1) | st.binary(min_size=EVALUATION_SIZE, max_size=EVALUATION_SIZE))
def test_any_evaluation_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        blind_voprf(b"an input").finalize(data, voprf_key().public)


@pytest.mark.parametrize("size", [0, 16, 31, 33, 47, 49])
def test_seeds_of_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(LocalMisuse):
        VoprfPrivateKey(bytes(size))


def test_seeds_and_infos_make_different_keys() -> None:
    keys = [VoprfPrivateKey(bytes(32)), VoprfPrivateKey(bytes(48)), VoprfPrivateKey(bytes(32), b"other")]
    assert len({key.key_id for key in keys}) == 3
    assert VoprfPrivateKey(bytes(32)).key_id == keys[0].key_id
    derived = reference.multiply(reference.derive_key(bytes(32), b"PrivacyPass"), reference.G)
    assert keys[0].public.encoded == reference.serialize(derived)


def test_an_info_that_is_too_long_is_refused() -> None:
    with pytest.raises(LocalMisuse):
        VoprfPrivateKey(bytes(32), bytes(70000))


def test_an_empty_input_cannot_be_blinded() -> None:
    with pytest.raises(LocalMisuse):
        blind_voprf(b"")


def test_no_secret_is_in_a_text() -> None:
    pending = blind_voprf(b"an input")
    assert pending.blinded_element.hex() not in repr(pending)
    assert "0101" not in repr(voprf_key())
