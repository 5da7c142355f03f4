"""Issuers' keys as files hold them: every form, and whatever else a file may hold."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import LimitExceeded, LocalMisuse, Malformed
from masque.privacypass import (
    MAX_KEY_FILE_SIZE,
    BlindRsaPrivateKey,
    VoprfPrivateKey,
    encode_base64url,
    encode_public_key_file,
    encode_seed_file,
    parse_key_file,
    parse_private_key_file,
    parse_public_key_file,
)
from tests.masque.privacypass_vectors import rsa_key, voprf_key

KEYS = [rsa_key(), voprf_key()]
PEM = rsa_key().numbers.private_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("key", KEYS, ids=["type 2", "type 1"])
def test_a_public_key_comes_back_byte_for_byte(key: BlindRsaPrivateKey | VoprfPrivateKey) -> None:
    text = encode_public_key_file(key.public)
    assert text.isascii()
    assert parse_public_key_file(text) == key.public
    assert parse_key_file(text) == key.public


@pytest.mark.parametrize("key", KEYS, ids=["type 2", "type 1"])
def test_encodings_and_base64url_are_read_too(key: BlindRsaPrivateKey | VoprfPrivateKey) -> None:
    assert parse_public_key_file(key.public.encoded) == key.public
    assert parse_public_key_file(b"# a comment\n\n" + encode_base64url(key.public.encoded) + b"\r\n") == key.public


@pytest.mark.parametrize("size", [32, 48])
def test_a_seed_comes_back(size: int) -> None:
    text = encode_seed_file(bytes(range(size)))
    key = parse_private_key_file(text)
    assert isinstance(key, VoprfPrivateKey)
    assert key.key_id == VoprfPrivateKey(bytes(range(size))).key_id
    assert parse_public_key_file(text) == key.public


def test_a_private_key_of_other_tools_is_read() -> None:
    own = parse_private_key_file(PEM)
    assert own.public == rsa_key().public
    assert parse_public_key_file(PEM) == rsa_key().public
    pkcs1 = (
        rsa_key().numbers.private_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    assert parse_private_key_file(pkcs1).public == rsa_key().public


def test_a_public_key_is_no_private_one() -> None:
    with pytest.raises(Malformed, match="public key where a private one"):
        parse_private_key_file(encode_public_key_file(rsa_key().public))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"# only a comment\n",
        b"AAAA\nAAAA\n",
        b"not base64url!",
        PEM[:-40],
        PEM.replace(b"PRIVATE KEY", b"CERTIFICATE"),
        b"-----BEGIN PUBLIC KEY-----\n====\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        rsa_key()
        .numbers.private_key()
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")),
    ],
)
def test_other_files_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_key_file(data)


def test_a_long_file_is_not_looked_at() -> None:
    with pytest.raises(LimitExceeded):
        parse_key_file(PEM + b"\n" * MAX_KEY_FILE_SIZE)


def test_a_seed_of_another_size_is_not_written() -> None:
    with pytest.raises(LocalMisuse):
        encode_seed_file(bytes(33))


@given(st.one_of(st.binary(max_size=400), st.integers(0, len(PEM)).map(lambda size: PEM[:size])))
def test_any_file_is_a_key_or_malformed(data: bytes) -> None:
    try:
        parse_key_file(data)
    except Malformed:
        pass


@given(st.integers(0, len(PEM) - 1), st.integers(0, 255))
def test_a_changed_file_is_a_key_or_malformed(place: int, value: int) -> None:
    try:
        parse_key_file(PEM[:place] + bytes((value,)) + PEM[place + 1 :])
    except Malformed:
        pass
