"""What `relay token show` does: the input found, described and printed."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from masque.errors import MasqueError
from relay.cli.token_facts import MAX_INPUT, Facts, describe
from relay.client import ClientError

__all__ = ["show"]


def show(options: argparse.Namespace) -> int:
    """Say what something is.

    Args:
        options: the command line.

    Returns:
        0.

    Raises:
        ClientError: it is nothing that Privacy Pass has, or cannot be read.
    """
    data = _read(options.what)
    if len(data) > MAX_INPUT:
        raise ClientError("more bytes than are looked at")
    try:
        found = describe(data)
    except MasqueError as error:
        raise ClientError(f"not understood: {error.detail}") from None
    print(json.dumps(found, indent=1) if options.json else "\n\n".join(_render(facts) for facts in found))
    return 0


def _read(what: str) -> bytes:
    """Take the input: standard input, a file, or the text itself."""
    if what == "-":
        return sys.stdin.buffer.read(MAX_INPUT + 1)
    try:
        with Path(what).open("rb") as file:
            return file.read(MAX_INPUT + 1)
    except (FileNotFoundError, ValueError):
        return what.encode("utf-8", "replace")
    except OSError as error:
        if error.strerror == "File name too long":
            return what.encode("utf-8", "replace")
        raise ClientError(f"cannot read {what}: {error.strerror}") from None


def _render(facts: Facts, indent: str = "") -> str:
    """Facts as lines, the names in a column."""
    width = max(len(name) for name in facts) + 2
    lines = []
    for name, value in facts.items():
        if isinstance(value, list):
            lines.append(f"{indent}{name}:" if value else f"{indent}{name + ':':<{width}}none")
            lines += [
                _render(item, indent + "  ") if isinstance(item, dict) else f"{indent}  {item}" for item in value
            ]
        else:
            lines.append(f"{indent}{name + ':':<{width}}{'none' if value is None else value}")
    return "\n".join(lines)
