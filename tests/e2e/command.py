"""`python -m relay` as a process that ends by itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.e2e.rig import command_environment

__all__ = ["FOLDER", "URL", "complaint", "run"]

FOLDER = Path(__file__).parents[2]
"The checkout."
URL = "https://127.0.0.1:1"
"Where no relay is."


def run(
    *arguments: str, environ: Mapping[str, str] | None = None, given: str = "", module: str = "relay"
) -> subprocess.CompletedProcess[str]:
    """Run `python -m relay` to its end, with `given` on its standard input."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=FOLDER,
        env=command_environment(environ),
        input=given,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def complaint(*arguments: str, environ: Mapping[str, str] | None = None, given: str = "") -> str:
    """Run a command that must fail with exit code 2 and one line; returns the line without its prefix."""
    done = run(*arguments, environ=environ, given=given)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("relay: ")
    return lines[0].removeprefix("relay: ")
