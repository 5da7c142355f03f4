"""The issuer's directory: what it says, unknown members, bounds, any document."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import LimitExceeded, LocalMisuse, Malformed
from masque.privacypass import (
    MAX_DIRECTORY_KEYS,
    MAX_DIRECTORY_SIZE,
    DirectoryKey,
    IssuerDirectory,
    TokenType,
    encode_base64url,
    encode_directory,
    parse_directory,
)
from tests.masque.privacypass_vectors import rsa_key, voprf_key

OLD = DirectoryKey(TokenType.BLIND_RSA_2048, rsa_key().public.encoded)
NEW = DirectoryKey(TokenType.VOPRF_P384, voprf_key().public.encoded, 1686913811)
DIRECTORY = IssuerDirectory("https://issuer.example.net/request", (NEW, OLD))

TYPES = st.integers(0, 0xFFFF)
TIMES = st.none() | st.integers(0, 2**53)
DIRECTORIES = st.builds(
    IssuerDirectory,
    st.from_regex(r"(https://[a-z.]{1,20})?/[!-~]{0,30}", fullmatch=True),
    st.lists(st.builds(DirectoryKey, TYPES, st.binary(max_size=60), TIMES), max_size=5).map(tuple),
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["token-type", "token-key", "not-before", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


def _document(**members: Any) -> bytes:
    """DIRECTORY's document with other members; underscores become hyphens."""
    document = json.loads(encode_directory(DIRECTORY))
    for name, value in members.items():
        document[name.replace("_", "-")] = value
    return json.dumps(document).encode()


def _entry(**members: Any) -> bytes:
    """DIRECTORY's document with one key that has other members."""
    entry: dict[str, Any] = {"token-type": 2, "token-key": "AAAA"}
    entry |= {name.replace("_", "-"): value for name, value in members.items()}
    return _document(token_keys=[entry])


@given(DIRECTORIES)
def test_a_directory_comes_back(directory: IssuerDirectory) -> None:
    assert parse_directory(encode_directory(directory)) == directory


def test_keys_are_written_with_padding_and_read_without() -> None:
    text = encode_base64url(NEW.token_key).decode()
    assert text.endswith("==")
    assert text in encode_directory(DIRECTORY).decode()
    document = encode_directory(DIRECTORY).replace(b"==", b"")
    assert parse_directory(document) == DIRECTORY


def test_a_client_takes_the_first_key_whose_time_has_come() -> None:
    early, late = replace(OLD, not_before=100), replace(OLD, token_key=b"later", not_before=200)
    directory = IssuerDirectory("/request", (late, early, NEW))
    assert directory.choose_key(TokenType.BLIND_RSA_2048, 99.9) is None
    assert directory.choose_key(TokenType.BLIND_RSA_2048, 100.0) == rsa_key().public
    with pytest.raises(Malformed):
        directory.choose_key(TokenType.BLIND_RSA_2048, 200.0)
    assert directory.choose_key(TokenType.VOPRF_P384, 1686913811.0) == voprf_key().public
    assert DIRECTORY.choose_key(TokenType.BLIND_RSA_2048, 0.0) == rsa_key().public


def test_an_origin_takes_all_keys_of_a_type() -> None:
    assert DIRECTORY.load_keys(TokenType.BLIND_RSA_2048) == [rsa_key().public]
    assert DIRECTORY.load_keys(TokenType.VOPRF_P384) == [voprf_key().public]
    with pytest.raises(Malformed):
        IssuerDirectory("/", (OLD, DirectoryKey(2, b"none"))).load_keys(TokenType.BLIND_RSA_2048)


def test_unknown_types_and_members_do_no_harm() -> None:
    entry = {"token-type": 0xDA7A, "token-key": "AAAA", "metadata": {"a": [None]}}
    directory = parse_directory(_document(token_keys=[entry], issuer="me", expires=1e9))
    assert directory.keys == (DirectoryKey(0xDA7A, bytes(3)),)
    assert directory.load_keys(TokenType.VOPRF_P384) == []
    assert directory.choose_key(TokenType.VOPRF_P384, 0.0) is None


def test_a_time_that_is_null_is_none() -> None:
    assert parse_directory(_entry(not_before=None)).keys == (DirectoryKey(2, bytes(3)),)


@pytest.mark.parametrize(
    "document",
    [
        b"", b"{}", b"[]", b"null", b'"a"', b"\xff", b"\xef\xbb\xbf{}", b"{", b"[" * 60000, b'{"a":' * 10000, b"NaN",
        b'{"issuer-request-uri": "/", "token-keys": [NaN]}', b"9" * 5000, encode_directory(DIRECTORY) + b"x",
        b'{"issuer-request-uri": "/"}', b'{"token-keys": []}', b"{'a': 1}",
    ],
)  # fmt: skip
def test_documents_that_are_no_directories(document: bytes) -> None:
    with pytest.raises(Malformed):
        parse_directory(document)


@pytest.mark.parametrize("uri", [None, 1, "", " ", "a b", "a\n", "é", "\ud800", ["/"], True])
def test_urls_that_are_none(uri: Any) -> None:
    with pytest.raises(Malformed):
        parse_directory(_document(issuer_request_uri=uri))


@pytest.mark.parametrize("keys", [None, 1, {}, "AAAA", [1], [None], ["AAAA"], [[]], [{}]])
def test_lists_that_are_none(keys: Any) -> None:
    with pytest.raises(Malformed):
        parse_directory(_document(token_keys=keys))


@pytest.mark.parametrize(
    "members",
    [
        {"token_type": None}, {"token_type": "2"}, {"token_type": 2.0}, {"token_type": True}, {"token_type": -1},
        {"token_type": 65536}, {"token_type": 10**400}, {"token_key": None}, {"token_key": 1}, {"token_key": "A"},
        {"token_key": "é"}, {"token_key": "\ud800"}, {"token_key": "A A="}, {"not_before": "1"}, {"not_before": 1.5},
        {"not_before": -1}, {"not_before": True}, {"not_before": 2**53 + 1}, {"not_before": []},
    ],
)  # fmt: skip
def test_keys_that_are_none(members: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        parse_directory(_entry(**members))


def test_bounds() -> None:
    document = encode_directory(DIRECTORY)
    assert parse_directory(document + b" " * (MAX_DIRECTORY_SIZE - len(document))) == DIRECTORY
    with pytest.raises(LimitExceeded):
        parse_directory(document + b" " * (MAX_DIRECTORY_SIZE - len(document) + 1))
    with pytest.raises(LimitExceeded):
        parse_directory(_document(issuer_request_uri="/" * 2049))
    entry = {"token-type": 2, "token-key": ""}
    assert len(parse_directory(_document(token_keys=[entry] * MAX_DIRECTORY_KEYS)).keys) == MAX_DIRECTORY_KEYS
    with pytest.raises(LimitExceeded):
        parse_directory(_document(token_keys=[entry] * (MAX_DIRECTORY_KEYS + 1)))


@pytest.mark.parametrize(
    "directory",
    [
        IssuerDirectory("", ()),
        IssuerDirectory("a b", ()),
        IssuerDirectory("/" * 2049, ()),
        IssuerDirectory("/", (OLD,) * (MAX_DIRECTORY_KEYS + 1)),
        IssuerDirectory("/", (replace(OLD, token_type=65536),)),
        IssuerDirectory("/", (replace(OLD, not_before=-1),)),
        IssuerDirectory("/", (replace(OLD, token_key=bytes(MAX_DIRECTORY_SIZE)),)),
    ],
)
def test_directories_that_no_one_would_read_are_not_written(directory: IssuerDirectory) -> None:
    with pytest.raises(LocalMisuse):
        encode_directory(directory)


def test_every_prefix_is_refused() -> None:
    document = encode_directory(DIRECTORY)
    for size in range(len(document)):
        with pytest.raises(Malformed):
            parse_directory(document[:size])


@given(st.binary(max_size=60) | st.text('{}[]":,issuer-request-uritoken-keys 0', max_size=60).map(str.encode))
def test_any_bytes_are_refused(document: bytes) -> None:
    with pytest.raises(Malformed):
        parse_directory(document)


@given(VALUES, st.lists(VALUES, max_size=3))
def test_any_document_is_read_or_refused(uri: Any, keys: list[Any]) -> None:
    try:
        directory = parse_directory(_document(issuer_request_uri=uri, token_keys=keys))
    except Malformed:
        return
    assert parse_directory(encode_directory(directory)) == directory
