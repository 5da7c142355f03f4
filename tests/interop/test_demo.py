"""The demonstration: it passes when all is right, fails when something is not, and leaves no process behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from interop.demo import Row, render_rows

WHATS = ["TCP download", "TCP upload", *["UDP echo"] * 4, "UDP echo, the largest"]


def _run(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run it, and see that it ends everything that it started: its children know its folder for temporary files."""
    environ = os.environ | {"TMPDIR": str(folder)} | ({} if path is None else {"PATH": path})
    command = [sys.executable, "-m", "interop.demo", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=59, env=environ)
    assert not [process for process in psutil.process_iter() if _folder_of(process) == str(folder)]
    assert not list(folder.iterdir())
    return done


def _folder_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("TMPDIR")
    except psutil.Error:
        return None


def test_the_table_says_what_was_wrong_and_how_much() -> None:
    good = Row("qh3", "TCP download", 10, 0.5)
    bad = Row("qh3", "UDP echo", 1, 3.0, "nothing came back")
    assert render_rows([good]).splitlines()[-1] == "all 1 right"
    assert render_rows([good, bad]).splitlines()[-1] == "1 of 2 wrong"
    assert "WRONG: nothing came back" in render_rows([bad])
    assert render_rows([]).splitlines()[-1] == "0 of 0 wrong"


@pytest.mark.slow
def test_everything_is_right_with_both_engines(tmp_path: Path) -> None:
    done = _run(tmp_path, "--size", "3000000")
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout.splitlines()
    assert table[-1] == f"all {2 * len(WHATS)} right"
    for line, what in zip(table[1:-1], WHATS * 2, strict=True):
        assert what in line
        assert line.endswith("  ok")


@pytest.mark.slow
def test_without_curl_it_says_so_and_goes_on(tmp_path: Path) -> None:
    done = _run(tmp_path, "--engine", "qh3", "--size", "100000", path="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("curl is missing; Python's http.client is used instead\n")
    assert done.stdout.endswith(f"all {len(WHATS)} right\n")


@pytest.mark.slow
def test_a_wrong_key_is_noticed(tmp_path: Path) -> None:
    done = _run(tmp_path, "--engine", "qh3", "--size", "100000", "--wrong-key")
    assert done.returncode == 1
    assert done.stdout.endswith("3 of 3 wrong\n")
    assert "the relay answered 407" in done.stderr
