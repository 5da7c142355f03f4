"""Several processes over one record, and what is left when they are killed."""

from __future__ import annotations

import contextlib
import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.spent import StoreKind
from tests.relay.spent.rig import token
from tests.relay.spent.spender import COPIES, WORKERS

ROOT = Path(__file__).parents[3]
PROCESSES = 4


class Spender:
    """A running `tests.relay.spent.spender`."""

    def __init__(self, mode: str, kind: StoreKind, place: str, limit: int = 1, before: tuple[str, ...] = ()) -> None:
        command = [sys.executable, "-m", "tests.relay.spent.spender", mode, kind.value, place, str(limit)]
        self.process = subprocess.Popen(
            [*before, *command], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def begin(self, tokens: list[bytes]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{used.hex()}\n" for used in tokens))
        self.process.stdin.close()

    def lines(self) -> Iterator[str]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield line.rstrip()

    def end(self) -> int:
        """Close the pipes and wait; returns the exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(30)


Start = Callable[..., Spender]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts spenders; none outlives the test."""
    spenders: list[Spender] = []

    def begin(*args: Any, **kwargs: Any) -> Spender:
        spenders.append(Spender(*args, **kwargs))
        return spenders[-1]

    yield begin
    for spender in spenders:
        spender.process.kill()
        spender.end()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [StoreKind.SQLITE, StoreKind.REDIS])
def test_exactly_as_many_as_allowed_over_processes(
    kind: StoreKind, start: Start, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """1,000 tasks in 4 processes want the same token, for each of several tokens."""
    place = str(tmp_path / "spent.db")
    if kind is StoreKind.REDIS:
        place = request.getfixturevalue("redis_server").url
    assert PROCESSES * COPIES == 1000
    limit = 7
    tokens = [token() for _ in range(6)]
    spenders = [start("crowd", kind, place, limit) for _ in range(PROCESSES)]
    for spender in spenders:
        spender.wait_until_ready()
    for spender in spenders:
        spender.begin(tokens)
    counts = [[int(line) for line in spender.lines()] for spender in spenders]
    assert [spender.end() for spender in spenders] == [0] * PROCESSES
    assert [sum(admitted) for admitted in zip(*counts, strict=True)] == [limit] * len(tokens)


@pytest.mark.slow
def test_processes_take_turns_with_a_file(start: Start, tmp_path: Path) -> None:
    """All go through the same tokens; each token is admitted once, by one of them, and nobody is turned away."""
    tokens = [token() for _ in range(1500)]
    spenders = [start("stream", StoreKind.SQLITE, str(tmp_path / "spent.db")) for _ in range(PROCESSES)]
    for spender in spenders:
        spender.wait_until_ready()
    for spender in spenders:
        spender.begin(tokens)
    admitted = [line for spender in spenders for line in spender.lines() if line != "end"]
    assert [spender.end() for spender in spenders] == [0] * PROCESSES
    assert sorted(admitted) == sorted(used.hex() for used in tokens)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [StoreKind.SQLITE, StoreKind.REDIS])
def test_killed_processes_admit_no_token_twice(
    kind: StoreKind, start: Start, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """One after the other begins anew with all tokens, and is killed while it spends them; the last one ends."""
    place = str(tmp_path / "spent.db")
    if kind is StoreKind.REDIS:
        place = request.getfixturevalue("redis_server").url
    tokens = [token() for _ in range(3000)]
    admitted: list[str] = []
    kills = 3
    for run in range(kills + 1):
        spender = start("stream", kind, place)
        spender.wait_until_ready()
        spender.begin(tokens)
        for number, line in enumerate(spender.lines()):
            admitted.append(line)
            if number == 400 and run < kills:
                spender.process.kill()
        code = spender.end()
        assert code == (-9 if run < kills else 0)
    assert admitted.pop() == "end"
    assert len(admitted) == len(set(admitted))
    assert set(admitted) <= {used.hex() for used in tokens}
    burnt = len(tokens) - len(admitted)
    assert burnt <= kills * WORKERS, "only what was under way at a kill may be lost"


@pytest.mark.parametrize(("mode", "again"), [("die_before_commit", 1), ("die_after_commit", 0)])
def test_a_kill_around_the_commit(mode: str, again: int, start: Start, tmp_path: Path) -> None:
    """Before it, the token is as it was. After it, the token is used, and nobody was admitted by it."""
    place = tmp_path / "spent.db"
    tokens = [token()]
    killed = start(mode, StoreKind.SQLITE, str(place))
    killed.wait_until_ready()
    killed.begin(tokens)
    assert list(killed.lines()) == []
    assert killed.end() == -9
    assert Path(f"{place}-wal").exists(), "nobody has closed the file"
    last = start("stream", StoreKind.SQLITE, str(place))
    last.wait_until_ready()
    last.begin(tokens)
    assert list(last.lines()) == [used.hex() for used in tokens][:again] + ["end"]
    assert last.end() == 0
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


def _with_a_small_disk(folder: Path, flags: str = "rw") -> tuple[str, ...]:
    """The beginning of a command that sees a file system of its own in a folder; skips where that is forbidden."""
    mount = f"mount -t tmpfs -o size=400k,{flags} none {folder}"
    unshare = ("unshare", "--map-root-user", "--mount", "sh", "-c")
    if shutil.which("unshare") is None or subprocess.run([*unshare, mount], capture_output=True).returncode:
        pytest.skip("needs a mount namespace: run as root, or allow user namespaces")
    return (*unshare, f'{mount} && exec "$@"', "sh")


def _with_log(spender: Spender) -> list[str]:
    """What a spender wrote, with the events and reasons of its log."""
    found = []
    for line in spender.lines():
        event = json.loads(line) if line.startswith("{") else None
        found.append(line if event is None else f"{event['event']} {event.get('reason', '')}".rstrip())
    return found


def test_a_full_disk(start: Start, tmp_path: Path) -> None:
    spender = start("fill", StoreKind.SQLITE, str(tmp_path / "spent.db"), before=_with_a_small_disk(tmp_path))
    spender.wait_until_ready()
    spender.begin([])
    away, *rest = _with_log(spender)
    assert away == "spent_store_away disk_full"
    assert rest == ["disk_full", "spent_store_back", "back", "admitted again: 0"]
    assert spender.end() == 0


def test_a_read_only_disk(start: Start, tmp_path: Path) -> None:
    spender = start("forbid", StoreKind.SQLITE, str(tmp_path / "spent.db"), before=_with_a_small_disk(tmp_path))
    spender.wait_until_ready()
    spender.begin([])
    assert _with_log(spender) == ["spent_store_away read_only", "read_only", "spent_store_back", "back"]
    assert spender.end() == 0
