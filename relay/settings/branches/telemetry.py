"""What the relay says of itself."""

from __future__ import annotations

from typing import Literal

from relay.settings.branches.bounds import Branch

__all__ = ["TelemetrySettings"]


class TelemetrySettings(Branch):
    """What the relay says of itself."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe level of log lines."""
    format: Literal["console", "json"] = "console"
    """Log lines for people or for machines."""
    debug_addresses: bool = False
    """Let addresses and names into the log. Breaks the privacy of all clients; cannot be set by the environment."""
