"""Outages: who may try, and what the log says."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from relay.spent import Availability, AwayReason, KnownTokens, StoreAway, StoreFull


def test_an_outage_is_one_line_and_its_end_is_one_line() -> None:
    state = Availability("sqlite", 1.0)
    with capture_logs() as logs:
        state.enter(0.0)
        state.succeeded(0.0)
        assert str(state.failed(AwayReason.DISK_FULL, 10.0, "OperationalError")) == "disk_full"
        state.failed(AwayReason.MISSING, 11.0)
        with pytest.raises(StoreAway, match="missing"):
            state.peek(11.9)
        state.enter(12.5)
        state.succeeded(12.5)
        state.enter(12.5)
        state.succeeded(20.0)
    assert logs == [
        {
            "event": "spent_store_away",
            "log_level": "error",
            "kind": "sqlite",
            "reason": "disk_full",
            "exception_type": "OperationalError",
        },
        {"event": "spent_store_back", "log_level": "info", "kind": "sqlite", "seconds": 2.5, "count": 3},
    ]


def test_one_may_try_each_time() -> None:
    state = Availability("redis", 1.0)
    state.failed(AwayReason.UNREACHABLE, 0.0)
    for moment in (0.0, 0.5, 0.999):
        with pytest.raises(StoreAway, match="unreachable"):
            state.enter(moment)
    state.peek(1.0)
    state.peek(1.0)
    state.enter(1.0)
    for ask in (state.enter, state.peek):
        with pytest.raises(StoreAway, match="unreachable"):
            ask(1.5)
    state.enter(2.0)
    state.succeeded(2.1)
    state.enter(2.1)
    state.enter(2.1)


def test_a_store_on_the_edge_does_not_fill_the_log() -> None:
    state = Availability("sqlite", 1.0)
    with capture_logs() as logs:
        for step in range(100):
            state.failed(AwayReason.TIMEOUT, step / 10)
            state.succeeded(step / 10 + 0.05)
            state.enter(step / 10 + 0.06)
        assert [line["event"] for line in logs] == ["spent_store_away"]
        state.succeeded(11.0)
    assert [line["event"] for line in logs] == ["spent_store_away", "spent_store_back"]


def test_overload_refuses_one_and_stops_nobody() -> None:
    state = Availability("memory", 1.0)
    with capture_logs() as logs:
        assert isinstance(state.overloaded(AwayReason.FULL, 0.0), StoreFull)
        state.enter(0.0)
        assert str(state.overloaded(AwayReason.BUSY, 0.5)) == "busy"
        state.succeeded(1.0)
        state.succeeded(1.5)
    assert [line["event"] for line in logs] == ["spent_store_away", "spent_store_back"]


def test_known_tokens_are_bounded_and_only_grow() -> None:
    known = KnownTokens(3)
    for name in (b"a", b"b", b"c"):
        known.note(name, 2)
    known.note(b"a", 1)
    assert known.uses(b"b") == 2
    known.note(b"d", 1)
    assert len(known) == 3
    assert [known.uses(name) for name in (b"a", b"b", b"c", b"d")] == [2, 2, 0, 1]
