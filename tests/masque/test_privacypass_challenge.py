"""The TokenChallenge structure: vectors, names, contexts, every prefix, any bytes."""

from __future__ import annotations

import hmac
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import LocalMisuse, Malformed
from masque.privacypass import (
    TokenChallenge,
    TokenType,
    challenge_digest,
    encode_token_challenge,
    parse_token_challenge,
    window_context,
)
from tests.masque.privacypass_vectors import CHALLENGE_2, load, unhex

NAMES = st.from_regex(r"[A-Za-z0-9.-]{1,20}(:[0-9]{1,5})?", fullmatch=True)
CHALLENGES = st.builds(
    TokenChallenge,
    st.integers(0, 0xFFFF),
    NAMES,
    st.just(b"") | st.binary(min_size=32, max_size=32),
    st.lists(NAMES, max_size=4).map(tuple),
)
ISSUED = [vector["token_challenge"] for vector in [*load("rfc9578_voprf"), *load("rfc9578_blind_rsa")["vectors"]]]


@pytest.mark.parametrize("vector", load("rfc9577")["structures"], ids=range(1, 6))
def test_structures_of_rfc_9577_appendix_a1(vector: dict[str, str]) -> None:
    issuer, context, origins, expected = unhex(
        vector, "issuer_name", "redemption_context", "origin_info", "token_authenticator_input"
    )
    names = tuple(origins.decode().split(",")) if origins else ()
    challenge = TokenChallenge(int(vector["token_type"], 16), issuer.decode(), context, names)
    assert challenge.digest == expected[34:66]
    assert challenge.known_type is TokenType.BLIND_RSA_2048
    assert parse_token_challenge(encode_token_challenge(challenge)) == challenge


@pytest.mark.parametrize("text", ISSUED)
def test_challenges_of_rfc_9578(text: str) -> None:
    data = bytes.fromhex(text)
    challenge = parse_token_challenge(data)
    assert challenge.issuer_name == "issuer.example"
    assert challenge.origin_info in ((), ("origin.example",), ("foo.example", "bar.example"))
    assert encode_token_challenge(challenge) == data
    assert challenge.digest == challenge_digest(data)


def test_every_prefix_and_a_byte_more_are_refused() -> None:
    data = bytes.fromhex(ISSUED[0])
    for size in range(len(data)):
        with pytest.raises(Malformed):
            parse_token_challenge(data[:size])
    with pytest.raises(Malformed):
        parse_token_challenge(data + b"\0")


@given(CHALLENGES)
def test_a_challenge_comes_back(challenge: TokenChallenge) -> None:
    assert parse_token_challenge(encode_token_challenge(challenge)) == challenge


@given(st.binary(max_size=80))
def test_any_bytes_are_a_challenge_or_refused(data: bytes) -> None:
    try:
        challenge = parse_token_challenge(data)
    except Malformed:
        return
    assert encode_token_challenge(challenge) == data


@given(st.integers(0, len(CHALLENGE_2) - 1), st.integers(0, 255))
def test_any_change_of_a_byte_is_another_challenge_or_refused(place: int, value: int) -> None:
    data = CHALLENGE_2[:place] + bytes((value,)) + CHALLENGE_2[place + 1 :]
    try:
        challenge = parse_token_challenge(data)
    except Malformed:
        return
    assert encode_token_challenge(challenge) == data


@pytest.mark.parametrize("size", [1, 31, 33, 64, 255])
def test_contexts_have_no_bytes_or_32(size: int) -> None:
    with pytest.raises(Malformed):
        parse_token_challenge(b"\0\2\0\1a" + bytes((size,)) + bytes(size) + b"\0\0")
    with pytest.raises(LocalMisuse):
        encode_token_challenge(TokenChallenge(2, "a", bytes(size)))


@pytest.mark.parametrize("name", ["", "a b", "user@host", "a,b", "é", "a/b", "a?b", "a#b", "a\0", "a\n", '"'])
def test_names_that_are_no_server_names(name: str) -> None:
    raw = name.encode("latin-1")
    with pytest.raises(Malformed):
        parse_token_challenge(b"\0\2" + len(raw).to_bytes(2, "big") + raw + b"\0\0\0")
    for challenge in (TokenChallenge(2, name), TokenChallenge(2, "a", b"", (name,))):
        with pytest.raises(LocalMisuse):
            encode_token_challenge(challenge)


@pytest.mark.parametrize("origins", [b",", b"a,", b",a", b"a,,b", b"a, b"])
def test_lists_with_holes_and_spaces_are_refused(origins: bytes) -> None:
    with pytest.raises(Malformed):
        parse_token_challenge(b"\0\2\0\1a\0" + len(origins).to_bytes(2, "big") + origins)


def test_the_longest_names() -> None:
    longest = TokenChallenge(2, "a" * 65535, bytes(32), ("b" * 65535,))
    assert parse_token_challenge(encode_token_challenge(longest)) == longest
    for challenge in (TokenChallenge(2, "a" * 65536), TokenChallenge(2, "a", b"", ("b" * 32768, "c" * 32768))):
        with pytest.raises(LocalMisuse):
            encode_token_challenge(challenge)


@pytest.mark.parametrize("token_type", [-1, 65536])
def test_types_have_16_bits(token_type: int) -> None:
    with pytest.raises(LocalMisuse):
        encode_token_challenge(TokenChallenge(token_type, "a"))


def test_an_unknown_type_is_none() -> None:
    assert TokenChallenge(0xDA42, "a").known_type is None


def test_origins_are_compared_without_case() -> None:
    challenge = TokenChallenge(2, "issuer.example", b"", ("Relay.Example", "other.example:8443"))
    assert challenge.admits("relay.example")
    assert challenge.admits("OTHER.example:8443")
    assert not challenge.admits("other.example")
    assert not challenge.admits("")
    assert TokenChallenge(2, "issuer.example").admits("relay.example")


def test_the_order_of_origins_matters_to_the_digest() -> None:
    assert TokenChallenge(2, "a", b"", ("b", "c")).digest != TokenChallenge(2, "a", b"", ("c", "b")).digest


def test_a_window_has_one_context() -> None:
    contexts = {window_context(b"secret", now, 300.0) for now in (600.0, 600.1, 899.9)}
    (context,) = contexts
    assert len(context) == 32
    assert context != window_context(b"secret", 900.0, 300.0)
    assert context != window_context(b"secret", 599.9, 300.0)
    assert context != window_context(b"other", 600.0, 300.0)
    assert window_context(b"secret", 900.0 - 300.0, 300.0) == context


def test_windows_of_another_length_have_other_contexts() -> None:
    """Whatever their numbers: each of these is a second window."""
    lengths = (0.5, 1.0, 1.001, 300.0, 3600.0)
    assert len({window_context(b"secret", 1.5 * length, length) for length in lengths}) == len(lengths)


def test_a_context_is_of_the_length_and_the_number() -> None:
    message = b"redemption context" + (300_000).to_bytes(8, "big") + (2).to_bytes(8, "big")
    assert window_context(b"secret", 600.0, 300.0) == hmac.digest(b"secret", message, "sha256")


@pytest.mark.parametrize(
    ("now", "window"),
    [
        (1.0, 0.0),
        (-1.0, 10.0),
        (-1.0, -1.0),
        (math.nan, 1.0),
        (math.inf, 1.0),
        (1e300, 1.0),
        (1.0, math.nan),
        (1.0, 1e300),
        (1.0, math.inf),
    ],
)
def test_windows_without_a_number_are_refused(now: float, window: float) -> None:
    with pytest.raises(LocalMisuse):
        window_context(b"secret", now, window)
