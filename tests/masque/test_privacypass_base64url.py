"""base64url: one spelling a value, with its padding or with none."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import Malformed
from masque.privacypass import encode_base64url, parse_base64url


@given(st.binary(max_size=100))
def test_a_value_comes_back_with_and_without_padding(data: bytes) -> None:
    text = encode_base64url(data)
    assert text == base64.urlsafe_b64encode(data)
    assert len(text) % 4 == 0
    assert parse_base64url(text) == data
    assert parse_base64url(text.rstrip(b"=")) == data


@pytest.mark.parametrize(
    "text",
    [
        b"A", b"AAAAA", b"AA=", b"AA===", b"AAA==", b"AAAA=", b"AAAA==", b"=", b"==", b"AA=A", b"A A=", b"AA==\n",
        b"\nAA", b"AB", b"AB==", b"AAB", b"AAB=", b"_-8/", b"+AAA", b"AA\xff=", b'AA"', b"AA\0A", b"A=A=",
    ],
)  # fmt: skip
def test_other_spellings_are_refused(text: bytes) -> None:
    with pytest.raises(Malformed):
        parse_base64url(text)


@given(st.binary(max_size=40) | st.text("AQgw_-=+/ ", max_size=12).map(str.encode))
def test_any_text_is_decoded_to_its_only_value_or_refused(text: bytes) -> None:
    try:
        data = parse_base64url(text)
    except Malformed:
        return
    assert encode_base64url(data).rstrip(b"=") == text.rstrip(b"=")
