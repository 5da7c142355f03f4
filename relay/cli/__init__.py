"""The command `relay`. The door of the package."""

from __future__ import annotations

from relay.cli.command import main, make_parser

__all__ = ["main", "make_parser"]
