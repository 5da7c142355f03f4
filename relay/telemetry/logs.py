"""Logs: fixed words as events, allowed names as fields, and nothing that a peer chose.

A field whose name is not on the list is dropped before anything is written, so a forgotten debug line
cannot tell who talks to whom. The QUIC libraries' own loggers quote connection ids and text that peers
control; they are shut. Records of any other library are reduced to the library's name and the level.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from enum import StrEnum
from typing import Any, TextIO, cast

import structlog

__all__ = ["ALLOWED_FIELDS", "LogFormat", "LogLevel", "configure_logging", "get_logger"]


class LogFormat(StrEnum):
    """How a log line looks."""

    CONSOLE = "console"
    "For people."
    JSON = "json"
    "For machines: one object a line."


class LogLevel(StrEnum):
    """The least severe level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


ALLOWED_FIELDS = frozenset(
    {
        "engine", "kind", "outcome", "phase", "scheme", "side", "status", "reason", "limit", "exception_type",
        "place", "count", "connections", "tunnels", "workers", "duration", "seconds", "deadline", "bytes",
        "listen_host", "listen_port", "signal", "version", "identity", "setting", "source", "pid", "upstreams",
        "gso", "gro", "ipv6", "reuseport", "library", "records",
    }
)  # fmt: skip
"All field names that a log line may carry. None of them may ever hold what a client or a target chose."

_FIXED_WORDS = re.compile(r"[a-z][a-z0-9_]{0,63}")
_STRUCTURE = frozenset({"event", "level", "timestamp"})
_SILENCED = ("quic", "http3", "aioquic", "qh3", "urllib3_future", "niquests")


class _FieldGate:
    """A processor that lets only fixed words and allowed fields pass, and says how many it took away."""

    def __init__(self, *, is_open: bool) -> None:
        self._is_open = is_open

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Drop what is not allowed."""
        if self._is_open:
            return event
        kept = {name: value for name, value in event.items() if name in ALLOWED_FIELDS or name in _STRUCTURE}
        dropped = len(event) - len(kept)
        if not _FIXED_WORDS.fullmatch(str(event.get("event", ""))):
            kept["event"] = "unnamed_event"
        if dropped:
            kept["dropped_fields"] = dropped
        return kept


class _LibraryHandler(logging.Handler):
    """Turns another library's record into a line without its text, which may quote a peer."""

    def __init__(self, *, is_open: bool) -> None:
        super().__init__()
        self._is_open = is_open

    def emit(self, record: logging.LogRecord) -> None:
        """Log the library's name; its message too in the debug mode that shows addresses."""
        fields: Mapping[str, object] = {"library": record.name.partition(".")[0]}
        if self._is_open:
            fields = {**fields, "message": record.getMessage()}
        get_logger().log(record.levelno, "library_record", **fields)


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """Return the logger that every room uses; it follows the latest `configure_logging`."""
    return cast(structlog.typing.FilteringBoundLogger, structlog.get_logger())


def configure_logging(
    level: str = LogLevel.INFO,
    log_format: str = LogFormat.CONSOLE,
    stream: TextIO | None = None,
    *,
    debug_addresses: bool = False,
) -> None:
    """Set up all logging of the process. Call it once at start-up, before anything else logs.

    Args:
        level: the least severe level that is written, one of `LogLevel`.
        log_format: for people or for machines, one of `LogFormat`.
        stream: where lines go; standard error when None.
        debug_addresses: let every field pass, addresses and names too. Only for debugging one's own traffic;
            it announces itself with a warning.
    """
    out = sys.stderr if stream is None else stream
    number = logging.getLevelNamesMapping()[LogLevel(level).upper()]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if LogFormat(log_format) is LogFormat.JSON
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            _FieldGate(is_open=debug_addresses),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    _quieten_libraries(number, is_open=debug_addresses)
    if debug_addresses:
        get_logger().critical("debug_mode_shows_addresses")


def _quieten_libraries(number: int, *, is_open: bool) -> None:
    """Put our handler in front of the standard library's loggers and shut those of the QUIC libraries."""
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _LibraryHandler)]:
        root.removeHandler(handler)
    root.addHandler(_LibraryHandler(is_open=is_open))
    root.setLevel(max(number, logging.WARNING))
    for name in _SILENCED:
        logger = logging.getLogger(name)
        logger.handlers = [logging.NullHandler()]
        logger.propagate = False
        logger.setLevel(logging.CRITICAL + 1)
