"""The Token structure: sizes, every prefix, any bytes; RFC 9577's and RFC 9578's vectors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import LocalMisuse, Malformed, Reach
from masque.privacypass import (
    GREASED_TYPES,
    MAX_TOKEN_SIZE,
    Token,
    TokenType,
    encode_token,
    find_token_type,
    parse_token,
    token_input,
    truncated_key_id,
)
from tests.masque.privacypass_vectors import load, unhex

TOKENS = [vector["token"] for vector in [*load("rfc9578_voprf"), *load("rfc9578_blind_rsa")["vectors"]]]
FIELDS = st.binary(min_size=32, max_size=32)


@st.composite
def tokens(draw: st.DrawFn) -> Token:
    """Any token of any type."""
    token_type = draw(st.sampled_from(TokenType))
    size = token_type.authenticator_size
    authenticator = draw(st.binary(min_size=size, max_size=size))
    return Token(token_type, draw(FIELDS), draw(FIELDS), draw(FIELDS), authenticator)


def test_sizes() -> None:
    assert [(kind.value, kind.authenticator_size, kind.token_size) for kind in TokenType] == [
        (1, 48, 146),
        (2, 256, 354),
    ]
    assert MAX_TOKEN_SIZE == 354


def test_greased_types_mean_nothing() -> None:
    assert len(GREASED_TYPES) == 17
    for greased in GREASED_TYPES:
        data = greased.to_bytes(2, "big") + bytes(352)
        assert find_token_type(data) is None
        with pytest.raises(Malformed):
            parse_token(data)


@pytest.mark.parametrize("text", TOKENS)
def test_tokens_of_rfc_9578(text: str) -> None:
    data = bytes.fromhex(text)
    token = parse_token(data)
    assert encode_token(token) == data
    assert len(data) == token.token_type.token_size
    assert data.startswith(token.input)
    assert len(token.input) == 98


@pytest.mark.parametrize("vector", load("rfc9577")["structures"])
def test_inputs_of_rfc_9577(vector: dict[str, str]) -> None:
    nonce, key_id, expected = unhex(vector, "nonce", "token_key_id", "token_authenticator_input")
    assert token_input(TokenType.BLIND_RSA_2048, nonce, expected[34:66], key_id) == expected
    assert truncated_key_id(key_id) == 0x08


@pytest.mark.parametrize("text", TOKENS[::5])
def test_every_prefix_and_a_byte_more_are_refused(text: str) -> None:
    data = bytes.fromhex(text)
    for size in range(len(data)):
        with pytest.raises(Malformed) as caught:
            parse_token(data[:size])
        assert caught.value.reach is Reach.STREAM
    with pytest.raises(Malformed):
        parse_token(data + b"\0")


@given(tokens())
def test_a_token_comes_back(token: Token) -> None:
    assert parse_token(encode_token(token)) == token


@given(
    st.binary(max_size=400) | st.tuples(st.sampled_from([b"\0\1", b"\0\2"]), st.binary(max_size=400)).map(b"".join)
)
def test_any_bytes_are_a_token_or_refused(data: bytes) -> None:
    try:
        token = parse_token(data)
    except Malformed:
        return
    assert encode_token(token) == data


@given(st.binary(max_size=4))
def test_types_are_known_or_not(data: bytes) -> None:
    if len(data) < 2:
        with pytest.raises(Malformed):
            find_token_type(data)
    else:
        expected = {1: TokenType.VOPRF_P384, 2: TokenType.BLIND_RSA_2048}
        assert find_token_type(data) is expected.get(int.from_bytes(data[:2], "big"))


@pytest.mark.parametrize("name", ["nonce", "challenge_digest", "key_id", "authenticator"])
@pytest.mark.parametrize("size", [0, 31, 33, 47, 255, 257])
def test_fields_of_a_wrong_size_are_not_sent(name: str, size: int) -> None:
    token = parse_token(bytes.fromhex(TOKENS[5]))
    changed: dict[str, Any] = {name: bytes(size)}
    with pytest.raises(LocalMisuse):
        encode_token(replace(token, **changed))


def test_a_key_id_has_32_bytes() -> None:
    with pytest.raises(LocalMisuse):
        truncated_key_id(bytes(31))


def test_nothing_of_a_token_is_in_its_text() -> None:
    token = parse_token(bytes.fromhex(TOKENS[0]))
    assert repr(token) == "Token(token_type=<TokenType.VOPRF_P384: 1>)"
