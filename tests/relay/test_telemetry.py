"""relay.telemetry: only fixed words and allowed fields are written; counts are aggregates."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from relay.telemetry import (
    CounterMetrics,
    DropReason,
    LimitName,
    LogFormat,
    LogLevel,
    Metric,
    Metrics,
    NoMetrics,
    configure_logging,
    get_logger,
)


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    for handler in list(root.handlers):
        if handler not in handlers:
            root.removeHandler(handler)
    root.setLevel(level)


def written(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_unknown_fields_never_reach_the_stream() -> None:
    stream = io.StringIO()
    configure_logging(LogLevel.INFO, LogFormat.JSON, stream)
    get_logger().info("tunnel_closed", kind="udp", target="secret.example", client="192.0.2.9")
    [line] = written(stream)
    assert line["event"] == "tunnel_closed"
    assert line["kind"] == "udp"
    assert line["dropped_fields"] == 2
    assert "secret.example" not in stream.getvalue()
    assert "192.0.2.9" not in stream.getvalue()


def test_an_event_that_is_no_fixed_word_loses_its_text() -> None:
    stream = io.StringIO()
    configure_logging(LogLevel.INFO, LogFormat.JSON, stream)
    get_logger().info("connected to secret.example")
    assert written(stream)[0]["event"] == "unnamed_event"
    assert "secret" not in stream.getvalue()


def test_exception_text_is_not_written() -> None:
    stream = io.StringIO()
    configure_logging(LogLevel.INFO, LogFormat.CONSOLE, stream)
    try:
        raise OSError("connect to secret.example failed")
    except OSError:
        get_logger().exception("hook_failed", exception_type="OSError")
    assert "hook_failed" in stream.getvalue()
    assert "secret" not in stream.getvalue()


def test_level_filters() -> None:
    stream = io.StringIO()
    configure_logging(LogLevel.WARNING, LogFormat.JSON, stream)
    get_logger().info("quiet")
    get_logger().warning("loud")
    assert [line["event"] for line in written(stream)] == ["loud"]


@pytest.mark.parametrize("name", ["quic", "quic.child", "http3", "aioquic", "qh3"])
def test_quic_libraries_are_silent(name: str) -> None:
    stream = io.StringIO()
    configure_logging(LogLevel.DEBUG, LogFormat.JSON, stream)
    logging.getLogger(name).error("peer said secret")
    assert stream.getvalue() == ""


def test_other_libraries_lose_their_text() -> None:
    stream = io.StringIO()
    configure_logging(LogLevel.INFO, LogFormat.JSON, stream)
    configure_logging(LogLevel.INFO, LogFormat.JSON, stream)
    logging.getLogger("asyncio.child").warning("no route to %s", "secret.example")
    [line] = written(stream)
    assert (line["event"], line["library"], line["level"]) == ("library_record", "asyncio", "warning")
    assert "secret" not in stream.getvalue()


def test_debug_mode_shows_more_and_says_so() -> None:
    stream = io.StringIO()
    configure_logging(LogLevel.ERROR, LogFormat.JSON, stream, debug_addresses=True)
    get_logger().error("tunnel_closed", target="shown.example")
    first, second = written(stream)
    assert first["event"] == "debug_mode_shows_addresses"
    assert second["target"] == "shown.example"


def test_counts_add_up_by_label() -> None:
    metrics = CounterMetrics()
    metrics.count(Metric.DATAGRAMS_DROPPED, 3, DropReason.TOO_BIG)
    metrics.count(Metric.DATAGRAMS_DROPPED, 2, DropReason.QUEUE_FULL)
    metrics.count(Metric.DATAGRAMS_DROPPED, 1, DropReason.TOO_BIG)
    assert metrics.value(Metric.DATAGRAMS_DROPPED, DropReason.TOO_BIG) == 4
    assert metrics.value(Metric.DATAGRAMS_DROPPED) == 6
    assert metrics.value(Metric.RETRIES_SENT) == 0
    assert metrics.snapshot() == {("datagrams_dropped", ("too_big",)): 4, ("datagrams_dropped", ("queue_full",)): 2}


def test_a_gauge_goes_down_again() -> None:
    metrics = CounterMetrics()
    metrics.count(Metric.CONNECTIONS_ACTIVE)
    metrics.count(Metric.CONNECTIONS_ACTIVE, -1)
    assert metrics.value(Metric.CONNECTIONS_ACTIVE) == 0


def test_metrics_are_described_once_each() -> None:
    names = [metric.metric_name for metric in Metric]
    assert len(set(names)) == len(names)
    assert all(metric.help_text.endswith(".") for metric in Metric)
    assert all(metric.metric_name == metric.name.lower() for metric in Metric)


def test_limit_names_are_the_settings_names() -> None:
    from relay.settings import LimitSettings

    assert {limit.value for limit in LimitName} == set(LimitSettings.model_fields)


def test_no_metrics_counts_nothing() -> None:
    metrics: Metrics = NoMetrics()
    metrics.count(Metric.LIMITS_HIT, 1, LimitName.STREAMS)
