"""What the relay tells its operator: logs with fixed words, and aggregate counters."""

from __future__ import annotations

from relay.telemetry.logs import ALLOWED_FIELDS, LogFormat, LogLevel, configure_logging, get_logger
from relay.telemetry.metrics import (
    CounterMetrics,
    DropReason,
    LimitName,
    Metric,
    MetricKind,
    Metrics,
    NoMetrics,
    QuotaName,
    TokenRefusal,
)

__all__ = [
    "ALLOWED_FIELDS",
    "CounterMetrics",
    "DropReason",
    "LimitName",
    "LogFormat",
    "LogLevel",
    "Metric",
    "MetricKind",
    "Metrics",
    "NoMetrics",
    "QuotaName",
    "TokenRefusal",
    "configure_logging",
    "get_logger",
]
