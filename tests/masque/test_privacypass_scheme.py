"""The scheme PrivateToken in fields: RFC 9577's vectors, other schemes beside it, what clients really send."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import LimitExceeded, LocalMisuse, Malformed
from masque.privacypass import (
    MAX_AUTH_ITEMS,
    MAX_CHALLENGE_BYTES,
    MAX_CREDENTIAL_BYTES,
    AuthItem,
    ChallengeOffer,
    encode_challenges,
    encode_credentials,
    parse_auth_items,
    parse_auth_params,
    parse_authorization,
    parse_challenges,
    parse_credentials,
    parse_token,
    parse_token_challenge,
)
from tests.masque.privacypass_vectors import load

OFFERS = st.builds(
    ChallengeOffer,
    st.binary(min_size=1, max_size=80),
    st.none() | st.binary(max_size=80),
    st.none() | st.integers(0, 2**31),
)
PIECES = st.sampled_from(
    [
        b"PrivateToken", b"privatetoken", b"Basic", b"challenge", b"token", b"token-key", b"max-age", b"realm", b"=",
        b'"', b",", b" ", b"\t", b"\\", b"AAAA", b"AA==", b"AA", b"10", b"\0", b"\xff", b'="AAAA"', b"=AA==",
    ]
)  # fmt: skip
JUNK = st.binary(max_size=60) | st.lists(PIECES, max_size=20).map(b"".join)


@pytest.mark.parametrize("vector", load("rfc9577")["headers"], ids=range(1, 3))
def test_headers_of_rfc_9577_appendix_a2(vector: dict[str, Any]) -> None:
    offers = parse_challenges([vector["www_authenticate"].encode()])
    assert len(offers) == len(vector["challenges"])
    for offer, expected in zip(offers, vector["challenges"], strict=True):
        assert offer.challenge.hex() == expected["token_challenge"]
        assert offer.token_key is not None
        assert offer.token_key.hex() == expected["token_key"]
        assert offer.max_age == expected["max_age"]
        assert parse_token_challenge(offer.challenge).token_type == expected["token_type"]


@given(st.lists(OFFERS, min_size=1, max_size=5))
def test_challenges_come_back(offers: list[ChallengeOffer]) -> None:
    assert parse_challenges([encode_challenges(offers)]) == offers
    assert parse_challenges([encode_challenges([offer]) for offer in offers]) == offers


@given(st.lists(OFFERS, min_size=1, max_size=3), st.integers(0, 3))
def test_challenges_are_found_among_others(offers: list[ChallengeOffer], place: int) -> None:
    encoded = [encode_challenges([offer]) for offer in offers]
    encoded.insert(place, b'Basic realm="PrivateToken challenge=\\"AAAA\\", x", charset="UTF-8"')
    encoded.insert(place, b"Negotiate")
    encoded.insert(place, b"NTLM TlRMTVNTUAAC==")
    assert parse_challenges([b" , ".join(encoded) + b",,"]) == offers


CHALLENGE = ChallengeOffer(b"\xfb\xff", None, None)


@pytest.mark.parametrize(
    "value",
    [
        b'PrivateToken challenge="-_8="',
        b'PrivateToken challenge="-_8"',
        b"PrivateToken challenge=-_8=",
        b"PrivateToken challenge=-_8",
        b"PRIVATETOKEN Challenge = -_8",
        b'privatetoken  challenge\t=\t"-_8="',
        b'PrivateToken challenge="\\-\\_8="',
        b', PrivateToken ,challenge="-_8=",',
        b'PrivateToken realm="a, b", challenge="-_8=", what=ever, max-age=soon',
        b'PrivateToken challenge="-_8=" , max-age="-1"',
        b'Bearer, PrivateToken challenge="-_8="',
        b'PrivateToken challenge="-_8=", Basic realm=x',
        b'PrivateToken challenge="-_8=", Digest',
        b'PrivateToken challenge="-_8=", PrivateToken challenge="!"',
        b'PrivateToken challenge="", PrivateToken challenge="-_8="',
        b'PrivateToken, PrivateToken token-key="AAAA", PrivateToken challenge="-_8="',
        b'PrivateToken AAAA==, PrivateToken challenge="-_8="',
        b'PrivateToken challenge="-_8=", challenge="-_8=", PrivateToken challenge="-_8="',
        b'PrivateToken challenge="-_8=", token-key="A", PrivateToken challenge="-_8="',
    ],
)
def test_spellings_of_one_challenge(value: bytes) -> None:
    assert parse_challenges([value]) == [CHALLENGE]


@pytest.mark.parametrize(
    "value",
    [
        b'challenge="-_8="', b'="x"', b'PrivateToken challenge="-_8', b'PrivateToken "x"',
        b'PrivateToken challenge="-_8=" max-age=1', b'PrivateToken challenge="-_8="; max-age=1', b"a b c",
        b'PrivateToken challenge="-_8=" PrivateToken challenge="-_8="', b"\xff", b"a=b", b"Basic realm=a b",
        b'PrivateToken challenge="\n"', b'PrivateToken challenge="\0"', b"(a)",
    ],
)  # fmt: skip
def test_values_that_are_no_lists_are_refused(value: bytes) -> None:
    with pytest.raises(Malformed):
        parse_challenges([value])


@pytest.mark.parametrize("value", [b"PrivateToken", b"PrivateToken AAAA", b"PrivateToken challenge=", b"", b" ,\t"])
def test_a_challenge_without_parameters_is_none_of_ours(value: bytes) -> None:
    assert parse_challenges([value]) == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"0", 0), (b"0010", 10), (b"2147483648", 2**31), (b"99999999999", 2**31), (b"9" * 5000, 2**31), (b"1.5", None)],
)
def test_seconds(text: bytes, seconds: int | None) -> None:
    (offer,) = parse_challenges([b'PrivateToken challenge="AAAA", max-age="%b"' % text])
    assert offer.max_age == seconds


def test_bounds_of_challenges() -> None:
    one = b'PrivateToken challenge="AAAA"'
    assert len(parse_challenges([one] * MAX_AUTH_ITEMS)) == MAX_AUTH_ITEMS
    for values in ([one] * (MAX_AUTH_ITEMS + 1), [b", ".join([one] * (MAX_AUTH_ITEMS + 1))]):
        with pytest.raises(LimitExceeded):
            parse_challenges(values)
    params = b", ".join(b"a%d=b" % number for number in range(MAX_AUTH_ITEMS + 1))
    with pytest.raises(LimitExceeded):
        parse_challenges([b"PrivateToken " + params])
    padding = b"," * (MAX_CHALLENGE_BYTES - len(one))
    assert len(parse_challenges([one, padding])) == 1
    with pytest.raises(LimitExceeded):
        parse_challenges([one, padding + b","])


@given(st.lists(JUNK, max_size=3))
def test_any_values_are_read_or_refused(values: list[bytes]) -> None:
    try:
        offers = parse_challenges(values)
    except (Malformed, LimitExceeded):
        return
    assert all(offer.challenge for offer in offers)


def test_every_prefix_of_a_challenge_is_read_or_refused() -> None:
    value = load("rfc9577")["headers"][1]["www_authenticate"].encode()
    for size in range(len(value)):
        try:
            offers = parse_challenges([value[:size]])
        except Malformed:
            continue
        assert len(offers) <= 2


@pytest.mark.parametrize(
    "item",
    [ChallengeOffer(b""), ChallengeOffer(b"a", None, -1)],
)
def test_offers_that_say_nothing_are_not_sent(item: ChallengeOffer) -> None:
    with pytest.raises(LocalMisuse):
        encode_challenges([item])


def test_no_offer_is_no_field() -> None:
    with pytest.raises(LocalMisuse):
        encode_challenges([])


def test_challenges_are_written_quoted_and_with_padding() -> None:
    offers = [ChallengeOffer(b"a", b"bc", 10), ChallengeOffer(b"d")]
    expected = b'PrivateToken challenge="YQ==", token-key="YmM=", max-age="10", PrivateToken challenge="ZA=="'
    assert encode_challenges(offers) == expected


TOKEN = bytes.fromhex(load("rfc9578_voprf")[0]["token"])
TEXT = base64.urlsafe_b64encode(TOKEN)
BARE = TEXT.rstrip(b"=")


@pytest.mark.parametrize(
    "params",
    [
        b'token="%b"' % TEXT,
        b'token="%b"' % BARE,
        b"token=%b" % TEXT,
        b"token=%b" % BARE,
        b"TOKEN = %b ," % TEXT,
        b',token="%b", extensions="AAAA", token2="x"' % TEXT,
        b'realm="token=1",token="%b"' % TEXT,
    ],
)
def test_spellings_of_one_token(params: bytes) -> None:
    assert parse_credentials(params) == TOKEN
    assert parse_authorization(b"PrivateToken " + params) == TOKEN
    assert parse_authorization(b"privateTOKEN  " + params) == TOKEN


@pytest.mark.parametrize(
    "params",
    [
        b"", b"token", b"token=", b'token=""', b'token="A"', b'token="AA" x', b'token="AA', b"AAAA", b"AAAA==",
        b'token="AA", token="AA"', b'token="AA", TOKEN="AA"', b'other="AA"', b'token="AA"; a=b', b"token='AA'",
        b'token="AA" token="AA"', b'token="A A"', b"\0", b'token="AA", PrivateToken token="AA"',
    ],
)  # fmt: skip
def test_credentials_without_one_token_are_refused(params: bytes) -> None:
    with pytest.raises(Malformed):
        parse_credentials(params)
    with pytest.raises(Malformed):
        parse_authorization(b"PrivateToken " + params)


@pytest.mark.parametrize("value", [b"Basic dTpw", b"Bearer x", b"Private token=AAAA", b"PrivateToken2 token=AAAA"])
def test_other_schemes_are_not_ours(value: bytes) -> None:
    assert parse_authorization(value) is None


@pytest.mark.parametrize("value", [b"", b" ", b" PrivateToken token=AAAA", b"=", b"PrivateToken", b"\xff", b"a\tb"])
def test_fields_without_credentials_are_refused(value: bytes) -> None:
    with pytest.raises(Malformed):
        parse_authorization(value)


@given(st.binary(min_size=1, max_size=400))
def test_credentials_come_back(token: bytes) -> None:
    assert parse_authorization(encode_credentials(token)) == token


def test_credentials_are_written_quoted_and_with_padding() -> None:
    assert encode_credentials(b"a") == b'PrivateToken token="YQ=="'
    with pytest.raises(LocalMisuse):
        encode_credentials(b"")


def test_bounds_of_credentials() -> None:
    room = MAX_CREDENTIAL_BYTES - len(b"token=AAAA")
    assert parse_credentials(b"token=AAAA" + b"," * room) == bytes(3)
    for parse in (parse_credentials, parse_authorization):
        with pytest.raises(LimitExceeded):
            parse(b"token=AAAA" + b"," * (room + 1))
    with pytest.raises(LimitExceeded):
        parse_credentials(b"token=AAAA" + b",a=b" * MAX_AUTH_ITEMS)


@given(JUNK)
def test_any_credentials_are_read_or_refused(value: bytes) -> None:
    for parse in (parse_credentials, parse_authorization):
        try:
            token = parse(value)
        except (Malformed, LimitExceeded):
            continue
        if token:
            assert parse_authorization(encode_credentials(token)) == token


def test_every_prefix_of_credentials_is_another_token_or_refused() -> None:
    value = encode_credentials(TOKEN)
    for size in range(len(value)):
        with pytest.raises(Malformed):
            parse_token(parse_authorization(value[:size]) or b"")


def test_items_of_any_scheme() -> None:
    value = b'Digest realm="a\\"b", nonce=c, NTLM, Negotiate ab+/=='
    assert parse_auth_items([value], limit=100) == [
        AuthItem("digest", None, (("realm", b'a"b'), ("nonce", b"c"))),
        AuthItem("ntlm"),
        AuthItem("negotiate", b"ab+/=="),
    ]
    assert parse_auth_params(b'A=b, c=""').params == (("a", b"b"), ("c", b""))
    with pytest.raises(LimitExceeded):
        parse_auth_items([value], limit=len(value) - 1)


def test_a_parameter_that_comes_twice_has_no_value() -> None:
    item = parse_auth_params(b"a=1, A=2, b=3")
    assert item.find("b") == b"3"
    assert item.find("c") is None
    with pytest.raises(Malformed):
        item.find("a")


def test_work_is_proportional_to_the_bytes() -> None:
    for value in (b'a="' + b"\\" * 4000, b"a" * 4090, b"a=" * 2000, b'a="' + b"b" * 4000, b" " * 4000 + b"a"):
        with pytest.raises((Malformed, LimitExceeded)):
            parse_credentials(value)
