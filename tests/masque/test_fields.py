"""Field look-ups and the Capsule-Protocol field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.fields import CAPSULE_PROTOCOL_TRUE, get_field, get_fields, has_content_fields, parse_capsule_protocol

FIELDS = ((b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"c", b""))


def test_look_up() -> None:
    assert get_fields(FIELDS, b"a") == [b"1", b"3"]
    assert get_fields(FIELDS, b"missing") == []
    assert get_field(FIELDS, b"b") == b"2"
    assert get_field(FIELDS, b"c") == b""
    assert get_field(FIELDS, b"a") is None
    assert get_field(FIELDS, b"missing") is None


@pytest.mark.parametrize("name", [b"content-length", b"content-type", b"transfer-encoding"])
def test_content_fields(name: bytes) -> None:
    assert has_content_fields(((b"x", b"y"), (name, b"")))
    assert not has_content_fields(((b"x", b"y"), (b"content-language", b"en")))


@pytest.mark.parametrize("value", [b"?1", b" ?1 ", b"?1;future=2", b'?1; a="b";c'])
def test_capsule_protocol_true(value: bytes) -> None:
    assert parse_capsule_protocol(((b"x", b"?0"), (b"capsule-protocol", value)))


@pytest.mark.parametrize(
    "value",
    [
        b"?0",
        b"",
        b"1",
        b"1.0",
        b"true",
        b"?2",
        b"?",
        b"?1, ?1",
        b"?1?1",
        b'"?1"',
        b"(?1)",
        b"?1;=",
        b"\xff",
        b"@99999999999999",
    ],
)
def test_capsule_protocol_not_true(value: bytes) -> None:
    assert not parse_capsule_protocol(((b"capsule-protocol", value),))


def test_capsule_protocol_absent_or_sent_twice() -> None:
    assert not parse_capsule_protocol(())
    assert parse_capsule_protocol((CAPSULE_PROTOCOL_TRUE,))
    assert not parse_capsule_protocol((CAPSULE_PROTOCOL_TRUE, CAPSULE_PROTOCOL_TRUE))


@given(st.binary(max_size=30) | st.text(' ?01;="abc.,:@%()', max_size=12).map(str.encode))
def test_any_value_is_true_or_not(value: bytes) -> None:
    fields = ((b"capsule-protocol", value),)
    if parse_capsule_protocol(fields):
        assert value.strip(b" ").startswith(b"?1")
