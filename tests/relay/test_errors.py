"""relay.errors: errno to failure, and text forms that tell nothing."""

from __future__ import annotations

import errno
import socket

import pytest

from relay.errors import Failure, FailureKind, RelayError, Side, failure_from_os_error

CASES = [
    (errno.ECONNREFUSED, FailureKind.CONNECTION_REFUSED, Side.TARGET),
    (errno.ETIMEDOUT, FailureKind.CONNECTION_TIMEOUT, Side.TARGET),
    (errno.ENETUNREACH, FailureKind.DESTINATION_IP_UNROUTABLE, Side.TARGET),
    (errno.EHOSTUNREACH, FailureKind.DESTINATION_IP_UNROUTABLE, Side.TARGET),
    (errno.EAFNOSUPPORT, FailureKind.DESTINATION_IP_UNROUTABLE, Side.TARGET),
    (errno.ECONNRESET, FailureKind.CONNECTION_TERMINATED, Side.TARGET),
    (errno.EPIPE, FailureKind.CONNECTION_TERMINATED, Side.TARGET),
    (errno.EADDRNOTAVAIL, FailureKind.CONNECTION_LIMIT_REACHED, Side.RELAY),
    (errno.EADDRINUSE, FailureKind.CONNECTION_LIMIT_REACHED, Side.RELAY),
    (errno.EMFILE, FailureKind.CONNECTION_LIMIT_REACHED, Side.RELAY),
    (errno.ENFILE, FailureKind.CONNECTION_LIMIT_REACHED, Side.RELAY),
    (errno.EACCES, FailureKind.DESTINATION_IP_PROHIBITED, Side.RELAY),
    (errno.EBADF, FailureKind.PROXY_INTERNAL_ERROR, Side.RELAY),
]


@pytest.mark.parametrize(("number", "kind", "side"), CASES)
def test_errno_names_the_failure(number: int, kind: FailureKind, side: Side) -> None:
    error = OSError(number, "text")
    failure = failure_from_os_error(error)
    assert (failure.kind, failure.side) == (kind, side)
    assert failure.cause is error


def test_timeout_without_errno_is_a_connection_timeout() -> None:
    assert failure_from_os_error(TimeoutError()).kind is FailureKind.CONNECTION_TIMEOUT


def test_a_real_refused_connection() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = closed.getsockname()
    with socket.socket() as client, pytest.raises(OSError) as caught:  # noqa: PT011  the errno is what is tested
        client.connect(address)
    assert failure_from_os_error(caught.value).kind is FailureKind.CONNECTION_REFUSED


def test_text_forms_hold_no_cause_and_no_context() -> None:
    failure = Failure(
        FailureKind.DNS_ERROR, Side.TARGET, rcode="NXDOMAIN", cause=OSError("secret.example"), context="198.51.100.7"
    )
    error = RelayError(failure)
    for text in (repr(failure), str(failure), repr(error), str(error)):
        assert "secret.example" not in text
        assert "198.51.100.7" not in text
    assert str(error) == "dns_error"
    assert error.failure is failure


def test_failures_compare_by_what_the_wire_can_show() -> None:
    first = Failure(FailureKind.DNS_TIMEOUT, Side.TARGET, cause=OSError(), context="a")
    assert first == Failure(FailureKind.DNS_TIMEOUT, Side.TARGET)
    assert first != Failure(FailureKind.DNS_TIMEOUT, Side.RELAY)
