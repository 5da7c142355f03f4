"""masque-relay: a privacy relay's second hop, and the framework to program one."""

from __future__ import annotations

__version__ = "0.1.0"
