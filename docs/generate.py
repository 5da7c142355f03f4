"""Writes docs/settings.md from what `relay check --explain` says: `python -m docs.generate`."""

from __future__ import annotations

import re
from pathlib import Path

from relay.settings import describe_settings

__all__ = ["main", "render_settings"]

_PAGE = Path(__file__).parent / "settings.md"
_PARAGRAPH = re.compile(r"(?P<name>[a-z_.0-9\[\]]+) \(default (?P<default>.*)\)\n {4}(?P<meaning>.*)")
_HEAD = """\
# Settings

Written by `python -m docs.generate` from what `relay check --explain` says. Do not edit it by hand.

Sources, the later one wins: the defaults, a TOML file (`--config`), the environment, the command line (`--set`).
In the file a setting stands in its table: `limits.idle` is `idle` below `[limits]`. In the environment it is
`RELAY_`, then the name in capitals with two underscores for the dot: `RELAY_LIMITS__IDLE`. On the command line it is
`--set limits.idle=90s`. Outside the file, lists are JSON.

Durations are seconds, or a number with `ms`, `s`, `m`, `h` or `d`. Sizes are bytes, or a number with `KiB`, `MiB` and
the like. `relay check` prints what is in force, without secrets.
"""


def render_settings() -> str:
    """Return the page."""
    lines = [_HEAD]
    section = None
    for paragraph in describe_settings().strip().split("\n\n"):
        found = _PARAGRAPH.fullmatch(paragraph)
        if found is None:
            raise ValueError("describe_settings has another form now: change _PARAGRAPH")
        branch = found["name"].partition("[")[0].rpartition(".")[0] or "top level"
        if branch != section:
            lines += ([""] if section else []) + [
                f"## {branch}",
                "",
                "| setting | default | meaning |",
                "| --- | --- | --- |",
            ]
            section = branch
        default = "not set" if found["default"] == "not set" else f"`{found['default']}`"
        lines.append(f"| `{found['name']}` | {default} | {found['meaning'].replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page."""
    _PAGE.write_text(render_settings(), encoding="utf-8")


if __name__ == "__main__":
    main()
