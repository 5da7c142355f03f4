"""The interop suite as a command: a real peer, our real relay, and no process left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from interop.matrix.__main__ import main
from relay.conformance.cases import ALL_CASES

_MARK = "INTEROP_TEST_MARK"


def _start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start it; all that it starts inherits a mark."""
    environ = {**os.environ, _MARK: str(folder)}
    command = [sys.executable, "-m", "interop.matrix", "--home", str(folder / "home"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ)


def _processes(folder: Path) -> list[psutil.Process]:
    """All that still run of what was started."""
    found = []
    for process in psutil.process_iter():
        try:
            is_ours = process.environ().get(_MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        if is_ours:
            found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["qh3", "aioquic"])
def test_a_peer_and_our_client_pass_through_the_real_relay(tmp_path: Path, engine: str) -> None:
    wanted = ["--peer", "aioquic,masque-relay", "--case", "tcp-echo", "--case", "udp-echo,goaway"]
    with _start(tmp_path, *wanted, "--engine", engine, "--json", str(tmp_path / "run.json")) as process:
        output, _ = process.communicate(timeout=55)
    assert process.returncode == 0, output
    assert _processes(tmp_path) == []
    results = json.loads((tmp_path / "run.json").read_text())
    assert results["servers"] == []
    cells = {
        (column["name"], cell["case"]): (cell["result"], cell["reason"])
        for column in results["clients"]
        for cell in column["cases"]
    }
    assert cells == {
        **{(name, case): ("PASS", "") for name in ("aioquic", "masque-relay") for case in ("tcp-echo", "udp-echo")},
        ("masque-relay", "goaway"): ("PASS", ""),
        ("aioquic", "goaway"): ("n/a", "the client lacks goaway"),
    }
    assert "\ntcp-echo  PASS          PASS\n" in output
    logs = tmp_path / "home" / "results" / "aioquic" / "tcp-echo"
    assert {"driver.log", "relay.log", "transcript.jsonl"} <= {file.name for file in logs.iterdir()}
    transcript = [json.loads(line) for line in (logs / "transcript.jsonl").read_text().splitlines()]
    assert [line["line"]["verb"] for line in transcript if line["from"] == "case"][:2] == ["connect", "open"]
    assert [path.name for path in (tmp_path / "home").iterdir() if path.name.startswith("run-")] == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    with _start(tmp_path, "--peer", "aioquic", "--case", "tcp-idle,udp-idle") as process:
        deadline = time.monotonic() + 30
        while len(_processes(tmp_path)) < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        output, _ = process.communicate(timeout=25)
    assert process.returncode == 130, output
    assert output.endswith("interop: interrupted\n")
    assert "Traceback" not in output
    assert _processes(tmp_path) == []


def test_the_list_names_every_case_and_what_it_proves(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for case in ALL_CASES:
        assert f"{case.name} {' '.join(case.proves.split())} ({case.source})" in text
    for name in ("masque-relay", "aioquic", "envoy"):
        assert f" {name} " in text


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--peer", "nobody"], "no peer nobody; there are masque-relay, "),
        (["--case", "udp-echo,nothing"], "no case nothing; there are tcp-echo, "),
    ],
)
def test_a_name_that_is_not_there_is_one_line(
    arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"interop: {what}")
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--jobs", "0"], ["--engine", "other"], ["--update", "--engine", "aioquic"]])
def test_a_mistake_of_the_caller_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main([*arguments, "--peer", "masque-relay", "--case", "udp-echo"])
    assert error.value.code == 2
    assert "usage:" in capsys.readouterr().err
