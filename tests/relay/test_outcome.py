"""relay.outcome: every kind has exactly one status, wire code, error type and label."""

from __future__ import annotations

import pytest

from masque.errors import ErrorCode
from masque.proxy_status import ProxyErrorType, parse_proxy_status
from relay.errors import Failure, FailureKind, Remark, Side
from relay.outcome import (
    Outcome,
    accepted_fields,
    h3_code,
    http_status,
    metric_label,
    proxy_error,
    proxy_status,
    response_fields,
)

OURS = {
    FailureKind.AUTHENTICATION_REQUIRED: (407, ErrorCode.H3_REQUEST_CANCELLED, ProxyErrorType.HTTP_REQUEST_DENIED),
    FailureKind.AUTHENTICATION_UNAVAILABLE: (503, ErrorCode.H3_EXCESSIVE_LOAD, ProxyErrorType.PROXY_INTERNAL_ERROR),
    FailureKind.RATE_LIMITED: (429, ErrorCode.H3_EXCESSIVE_LOAD, ProxyErrorType.HTTP_REQUEST_ERROR),
    FailureKind.CLIENT_ABORTED: (500, ErrorCode.H3_REQUEST_CANCELLED, None),
    FailureKind.RELAY_DRAINING: (503, ErrorCode.H3_NO_ERROR, None),
    FailureKind.TUNNEL_IDLE: (504, ErrorCode.H3_NO_ERROR, None),
    FailureKind.LOCATION_UNAVAILABLE: (
        503,
        ErrorCode.H3_CONNECT_ERROR,
        ProxyErrorType.PROXY_CONFIGURATION_ERROR,
    ),
}
NOT_CONNECT_ERROR = {
    FailureKind.HTTP_REQUEST_ERROR: ErrorCode.H3_MESSAGE_ERROR,
    FailureKind.HTTP_REQUEST_DENIED: ErrorCode.H3_REQUEST_CANCELLED,
    FailureKind.PROXY_INTERNAL_ERROR: ErrorCode.H3_INTERNAL_ERROR,
    FailureKind.PROXY_CONFIGURATION_ERROR: ErrorCode.H3_INTERNAL_ERROR,
}


def failure(kind: FailureKind) -> Failure:
    return Failure(kind, Side.TARGET)


@pytest.mark.parametrize("kind", [kind for kind in FailureKind if kind not in OURS])
def test_rfc_9209_kinds_take_the_recommended_status_and_their_own_name(kind: FailureKind) -> None:
    error = proxy_error(kind)
    assert error is not None
    assert error.value == kind.value
    assert http_status(failure(kind)) == error.recommended_status
    assert h3_code(failure(kind)) is NOT_CONNECT_ERROR.get(kind, ErrorCode.H3_CONNECT_ERROR)


@pytest.mark.parametrize("kind", OURS)
def test_own_kinds(kind: FailureKind) -> None:
    assert (http_status(failure(kind)), h3_code(failure(kind)), proxy_error(kind)) == OURS[kind]


@pytest.mark.parametrize("kind", FailureKind)
def test_every_kind_refuses_and_has_a_label(kind: FailureKind) -> None:
    assert 400 <= http_status(failure(kind)) <= 599
    assert metric_label(Outcome(failure(kind))) == kind.value


def test_an_exact_status_goes_before_the_kind() -> None:
    rejected = Failure(FailureKind.HTTP_REQUEST_ERROR, Side.CLIENT, status=405)
    assert http_status(rejected) == 405


@pytest.mark.parametrize("remark", Remark)
def test_a_remark_is_told_in_details_of_a_refusal_and_of_a_200(remark: Remark) -> None:
    refused = Failure(FailureKind.LOCATION_UNAVAILABLE, Side.RELAY, remark=remark)
    for fields in (response_fields(refused, "relay"), accepted_fields("relay", ("cdn.example",), remark)):
        (value,) = (value for name, value in fields if name == b"proxy-status")
        assert [status.details for status in parse_proxy_status(value)] == [remark.value]
    assert accepted_fields("relay", ()) == ()


def test_ordinary_end() -> None:
    assert metric_label(Outcome.closed()) == "closed"
    assert Outcome.failed(FailureKind.DNS_TIMEOUT, Side.TARGET) == Outcome(failure(FailureKind.DNS_TIMEOUT))


def test_proxy_status_is_one_member_with_error_and_dns_codes_only() -> None:
    found = Failure(FailureKind.DNS_ERROR, Side.TARGET, rcode="NXDOMAIN", info_code=7, context="no words")
    value = proxy_status(found, "relay-1")
    assert value == b'relay-1;error=dns_error;rcode="NXDOMAIN";info-code=7'
    [member] = parse_proxy_status(value)
    assert member.identity == "relay-1"
    assert member.details is None
    assert member.next_hop is None


def test_dns_codes_stay_with_dns_errors() -> None:
    value = proxy_status(Failure(FailureKind.DNS_TIMEOUT, Side.TARGET, rcode="SERVFAIL", info_code=7), "r")
    assert value == b"r;error=dns_timeout"


@pytest.mark.parametrize("kind", [FailureKind.CLIENT_ABORTED, FailureKind.RELAY_DRAINING, FailureKind.TUNNEL_IDLE])
def test_no_proxy_status_without_an_error_type(kind: FailureKind) -> None:
    assert proxy_status(failure(kind), "r") is None
    assert b"proxy-status" not in dict(response_fields(failure(kind), "r"))


def test_407_carries_each_challenge() -> None:
    found = Failure(
        FailureKind.AUTHENTICATION_REQUIRED, Side.CLIENT, challenges=(b'Preshared realm="r"', b'Basic realm="r"')
    )
    assert response_fields(found, "r") == (
        (b"proxy-status", b"r;error=http_request_denied"),
        (b"proxy-authenticate", b'Preshared realm="r"'),
        (b"proxy-authenticate", b'Basic realm="r"'),
    )


def test_challenges_are_for_407_only() -> None:
    found = Failure(FailureKind.HTTP_REQUEST_DENIED, Side.RELAY, challenges=(b"Basic",))
    assert dict(response_fields(found, "r")).keys() == {b"proxy-status"}


def test_retry_after_says_when_if_that_is_known() -> None:
    found = Failure(FailureKind.RATE_LIMITED, Side.CLIENT, retry_after=300)
    assert dict(response_fields(found, "r"))[b"retry-after"] == b"300"
    assert dict(response_fields(failure(FailureKind.RATE_LIMITED), "r"))[b"retry-after"] == b"5"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (FailureKind.RATE_LIMITED, True),
        (FailureKind.RELAY_DRAINING, True),
        (FailureKind.AUTHENTICATION_UNAVAILABLE, True),
        (FailureKind.DESTINATION_UNAVAILABLE, False),
    ],
)
def test_retry_after(kind: FailureKind, expected: bool) -> None:
    assert (b"retry-after" in dict(response_fields(failure(kind), "r"))) is expected


def test_aliases_are_told_on_both_answers() -> None:
    aliases = ("cdn.example", "edge.cdn.example")
    ((name, value),) = accepted_fields("relay", aliases)
    assert (name, value) == (b"proxy-status", b'relay;next-hop-aliases="cdn.example,edge.cdn.example"')
    refused = dict(response_fields(failure(FailureKind.CONNECTION_REFUSED), "relay", aliases))
    assert parse_proxy_status(refused[b"proxy-status"])[0].next_hop_aliases == aliases
    assert accepted_fields("relay", ()) == ()
    assert b"next-hop-aliases" not in dict(response_fields(failure(FailureKind.DNS_ERROR), "relay"))[b"proxy-status"]


@pytest.mark.parametrize(
    ("aliases", "told"),
    [
        (("a", "\u0161", "b"), ("a",)),
        (("a", "", "b"), ("a",)),
        (("x" * 2000, "y" * 40, "z" * 9), ("x" * 2000, "y" * 40)),
    ],
)
def test_aliases_that_no_field_should_carry_are_left_out(aliases: tuple[str, ...], told: tuple[str, ...]) -> None:
    ((_, value),) = accepted_fields("relay", aliases)
    assert parse_proxy_status(value)[0].next_hop_aliases == told
    assert accepted_fields("relay", ("\u0161",)) == ()
