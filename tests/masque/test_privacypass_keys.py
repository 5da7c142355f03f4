"""Issuers' public keys: one encoding and one id a key; every prefix and change of an encoding."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import LocalMisuse, Malformed
from masque.privacypass import (
    MAX_KEY_SIZE,
    BlindRsaPublicKey,
    TokenType,
    VoprfPublicKey,
    encode_spki,
    parse_blind_rsa_key,
    parse_token,
    parse_token_key,
    parse_voprf_key,
)
from tests.masque.privacypass_vectors import load, rsa_key

SPKI = bytes.fromhex(load("rfc9578_blind_rsa")["pkS"])
ELEMENT = bytes.fromhex(load("rfc9578_voprf")[0]["pkS"])
BITS = SPKI[-270:]
"The RSAPublicKey in SPKI."
KEY_ID = bytes.fromhex("ca572f8982a9ca248a3056186322d93ca147266121ddeb5632c07f1f71cd2708")


RSASSA_PSS, MGF1 = bytes.fromhex("06092a864886f70d01010a"), bytes.fromhex("06092a864886f70d010108")
SHA384, SHA256 = bytes.fromhex("0609608648016503040202"), bytes.fromhex("0609608648016503040201")
NULL = b"\x05\0"


def _der(tag: int, *content: bytes) -> bytes:
    """An element of DER, up to 65535 bytes."""
    joined = b"".join(content)
    size = len(joined)
    length = (
        bytes((size,))
        if size < 128
        else b"\x81" + bytes((size,))
        if size < 256
        else b"\x82" + size.to_bytes(2, "big")
    )
    return bytes((tag,)) + length + joined


def _algorithm(hashed: bytes = SHA384, masked: bytes = SHA384, salt: bytes = b"\x30", rest: bytes = b"") -> bytes:
    """An AlgorithmIdentifier of RSASSA-PSS with these parameters."""
    mgf1 = _der(0x30, MGF1, _der(0x30, masked))
    parameters = (_der(0xA0, _der(0x30, hashed)), _der(0xA1, mgf1), _der(0xA2, _der(2, salt)), rest)
    return _der(0x30, RSASSA_PSS, _der(0x30, *parameters))


def _spki(algorithm: bytes, bits: bytes = BITS) -> bytes:
    """A SubjectPublicKeyInfo of this algorithm."""
    return _der(0x30, algorithm, _der(3, b"\0", bits))


NULLS = _spki(_algorithm(SHA384 + NULL, SHA384 + NULL))
"The same key with NULL where a hash function has no parameters."


def _rsa_spki(bits: int, exponent: int = 65537) -> bytes:
    numbers = rsa.generate_private_key(exponent, bits).public_key().public_numbers()
    return encode_spki(numbers.n, numbers.e)


def test_the_key_of_rfc_9578_appendix_b2() -> None:
    key = parse_blind_rsa_key(SPKI)
    assert key.key_id == KEY_ID == hashlib.sha256(SPKI).digest()
    assert key.encoded == SPKI == encode_spki(key.modulus, key.exponent)
    assert key.exponent == 65537
    assert key.token_type is TokenType.BLIND_RSA_2048
    assert key == rsa_key().public == parse_token_key(TokenType.BLIND_RSA_2048, SPKI)
    assert _spki(_algorithm()) == SPKI


def test_null_parameters_are_another_encoding_and_another_id() -> None:
    key = parse_blind_rsa_key(NULLS)
    assert key.modulus == parse_blind_rsa_key(SPKI).modulus
    assert key.encoded == NULLS
    assert key.key_id == hashlib.sha256(NULLS).digest() != KEY_ID


@pytest.mark.parametrize("vector", load("rfc9578_blind_rsa")["vectors"], ids=range(1, 6))
def test_tokens_of_rfc_9578_appendix_b2_verify(vector: dict[str, str]) -> None:
    token = parse_token(bytes.fromhex(vector["token"]))
    key = parse_blind_rsa_key(SPKI)
    assert token.key_id == key.key_id
    assert key.verify(token.input, token.authenticator)
    assert not key.verify(token.input[:-1] + b"\0", token.authenticator)
    assert not key.verify(token.input, token.authenticator[:-1])
    assert not key.verify(token.input, b"")
    assert not key.verify(token.input, bytes(256))
    assert not key.verify(token.input, b"\xff" * 256)


def test_every_change_of_an_authenticator_is_refused() -> None:
    token = parse_token(bytes.fromhex(load("rfc9578_blind_rsa")["vectors"][0]["token"]))
    key = parse_blind_rsa_key(SPKI)
    for place in range(len(token.authenticator)):
        changed = bytearray(token.authenticator)
        changed[place] ^= 0x40
        assert not key.verify(token.input, bytes(changed))


@pytest.mark.parametrize("vector", load("rfc9578_voprf"), ids=range(1, 6))
def test_keys_of_rfc_9578_appendix_b1(vector: dict[str, str]) -> None:
    data = bytes.fromhex(vector["pkS"])
    key = parse_voprf_key(data)
    assert key.key_id == hashlib.sha256(data).digest() == parse_token(bytes.fromhex(vector["token"])).key_id
    assert key == parse_token_key(TokenType.VOPRF_P384, data)
    assert (key.encoded, key.token_type) == (data, TokenType.VOPRF_P384)


def test_a_key_of_one_type_is_none_of_the_other() -> None:
    with pytest.raises(Malformed):
        parse_token_key(TokenType.VOPRF_P384, SPKI)
    with pytest.raises(Malformed):
        parse_token_key(TokenType.BLIND_RSA_2048, ELEMENT)


def test_the_key_of_rfc_9577_appendix_a2_for_type_1_is_none() -> None:
    """It has 48 bytes: that vector is about the field, not about the key."""
    data = bytes.fromhex(load("rfc9577")["headers"][1]["challenges"][1]["token_key"])
    assert len(data) == 48
    with pytest.raises(Malformed):
        parse_voprf_key(data)


@pytest.mark.parametrize(
    "algorithm",
    [
        _der(0x30, bytes.fromhex("06092a864886f70d010101"), NULL),  # rsaEncryption
        _der(0x30, RSASSA_PSS),  # no parameters
        _der(0x30, RSASSA_PSS, NULL),
        _der(0x30, RSASSA_PSS, _der(0x30)),  # all by default: SHA-1
        _der(0x30, RSASSA_PSS, _der(0x30, _der(0xA0, _der(0x30, SHA384)))),  # MGF1 and the salt by default
        _algorithm(SHA256, SHA256),
        _algorithm(SHA256),
        _algorithm(masked=SHA256),
        _algorithm(salt=b"\x20"),
        _algorithm(salt=b"\0"),
        _algorithm(salt=b"\0\x30"),
        _algorithm(SHA384 + NULL),  # NULL for one and not for the other
        _algorithm(masked=SHA384 + NULL),
        _algorithm(rest=_der(0xA3, _der(2, b"\1"))),  # a trailer, the default
    ],
)
def test_other_algorithms_and_parameters_are_refused(algorithm: bytes) -> None:
    with pytest.raises(Malformed):
        parse_blind_rsa_key(_spki(algorithm))


@pytest.mark.parametrize("bits", [1024, 2047, 3072, 4096])
def test_other_sizes_are_refused(bits: int) -> None:
    modulus = (1 << bits) - 1
    with pytest.raises(Malformed):
        parse_blind_rsa_key(encode_spki(modulus, 65537))


@pytest.mark.parametrize("exponent", [1, 2, 4, 65536])
def test_exponents_that_are_none_are_refused(exponent: int) -> None:
    with pytest.raises(Malformed):
        parse_blind_rsa_key(encode_spki(parse_blind_rsa_key(SPKI).modulus, exponent))


def test_an_even_modulus_is_refused() -> None:
    with pytest.raises(Malformed):
        parse_blind_rsa_key(encode_spki(1 << 2047, 65537))


def test_a_small_exponent_is_taken() -> None:
    assert parse_blind_rsa_key(_rsa_spki(2048, 3)).exponent == 3


def test_other_keys_are_refused() -> None:
    for key in (ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()):
        data = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(Malformed):
            parse_blind_rsa_key(data)


@pytest.mark.parametrize("data", [b"", b"0", SPKI * 4, bytes(MAX_KEY_SIZE), bytes(MAX_KEY_SIZE + 1)])
def test_nothing_and_too_much_is_refused(data: bytes) -> None:
    for token_type in TokenType:
        with pytest.raises(Malformed):
            parse_token_key(token_type, data)


@pytest.mark.parametrize(("token_type", "data"), [(TokenType.BLIND_RSA_2048, SPKI), (TokenType.VOPRF_P384, ELEMENT)])
def test_every_prefix_and_a_byte_more_are_refused(token_type: TokenType, data: bytes) -> None:
    for size in range(len(data)):
        with pytest.raises(Malformed):
            parse_token_key(token_type, data[:size])
    with pytest.raises(Malformed):
        parse_token_key(token_type, data + b"\0")


@pytest.mark.parametrize(("token_type", "data"), [(TokenType.BLIND_RSA_2048, SPKI), (TokenType.VOPRF_P384, ELEMENT)])
def test_every_change_of_a_bit_is_another_key_or_refused(token_type: TokenType, data: bytes) -> None:
    ids = {hashlib.sha256(data).digest()}
    for place in range(len(data)):
        for bit in (1, 0x80):
            changed = bytearray(data)
            changed[place] ^= bit
            try:
                key = parse_token_key(token_type, bytes(changed))
            except Malformed:
                continue
            assert key.encoded == bytes(changed)
            assert key.key_id not in ids
            ids.add(key.key_id)
            if isinstance(key, BlindRsaPublicKey):
                assert place >= len(data) - len(BITS)
    assert len(ids) > 1


def test_a_longer_spelling_of_the_same_numbers_is_refused() -> None:
    modulus = BITS[8:265]
    longer = b"\x02\x82\x01\x02\0" + modulus + BITS[265:]
    with pytest.raises(Malformed):
        parse_blind_rsa_key(_spki(_algorithm(), b"\x30\x82" + len(longer).to_bytes(2, "big") + longer))


@given(st.binary(max_size=360) | st.binary(min_size=49, max_size=49), st.sampled_from(TokenType))
def test_any_bytes_are_a_key_or_refused(data: bytes, token_type: TokenType) -> None:
    try:
        key = parse_token_key(token_type, data)
    except Malformed:
        return
    assert key.encoded == data


@given(st.binary(min_size=48, max_size=48), st.integers(0, 255))
def test_any_point_is_a_key_or_refused(x: bytes, tag: int) -> None:
    try:
        key = parse_voprf_key(bytes((tag,)) + x)
    except Malformed:
        return
    assert isinstance(key, VoprfPublicKey)
    assert tag in (2, 3)


@given(st.binary(max_size=300), st.integers(0, len(SPKI)))
def test_any_ending_is_a_key_or_refused(data: bytes, size: int) -> None:
    try:
        key = parse_blind_rsa_key(SPKI[:size] + data)
    except Malformed:
        return
    assert key.encoded == SPKI[:size] + data


@pytest.mark.parametrize(("modulus", "exponent"), [(0, 3), (3, 0), (-1, 3), (3, -1)])
def test_numbers_that_are_not_positive_are_not_written(modulus: int, exponent: int) -> None:
    with pytest.raises(LocalMisuse):
        encode_spki(modulus, exponent)
