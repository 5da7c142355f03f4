"""Processes of a run: each leads a group of its own, has one log, and always ends with all that it started."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from interop.matrix.transcript import read_tail

__all__ = ["Daemon", "DaemonError", "Program", "run_to_end", "signal_group", "wait_exit"]

_POLL_SECONDS = 0.02
_STOP_SECONDS = 3.0


class DaemonError(Exception):
    """A process could not be started, or did not do what it should. The text has the end of its log."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that can be started."""

    command: Sequence[str]
    "The program and its arguments."
    folder: Path
    "Where it runs."
    environ: Mapping[str, str] | None = None
    "Its whole environment, or None for ours."


class Daemon:
    """A process that runs until it is stopped. All that it prints is in its log."""

    def __init__(self, name: str, program: Program, log: Path) -> None:
        """Prepare; starts nothing.

        Args:
            name: what to call it in messages.
            program: what to run.
            log: the file for what it prints, which is replaced.
        """
        self.name = name
        "What to call it in messages."
        self.log = log
        "The file with what it printed."
        self._program = program
        self._process: asyncio.subprocess.Process | None = None

    @property
    def has_ended(self) -> bool:
        """It does not run: it ended, or was never started."""
        return self._process is None or self._process.returncode is not None

    async def start(self) -> None:
        """Start the process. Follow with `stop`.

        Raises:
            DaemonError: the program cannot be started.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._process = await _spawn(self._program, self.log)

    async def find(self, pattern: str, seconds: float) -> re.Match[str]:
        """Wait until the log has a text.

        Args:
            pattern: a regular expression.
            seconds: how long to wait.

        Returns:
            The first match.

        Raises:
            DaemonError: the process ended, or did not print it in time.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            ended = self.has_ended  # asked first: what it printed before its end is in the log then
            found = re.search(pattern, self.log.read_text(errors="replace"))
            if found is not None:
                return found
            if ended:
                raise DaemonError(self.describe("ended"))
            if loop.time() > deadline:
                raise DaemonError(self.describe(f"was not ready within {seconds:g} s"))
            await asyncio.sleep(_POLL_SECONDS)

    def log_size(self) -> int:
        """How many bytes it has printed so far."""
        try:
            return self.log.stat().st_size
        except OSError:
            return 0

    def read_log(self, start: int) -> bytes:
        """What it printed after the first `start` bytes."""
        try:
            with self.log.open("rb") as file:
                file.seek(start)
                return file.read()
        except OSError:
            return b""

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal; one that has ended gets none."""
        if self._process is not None:
            try:
                self._process.send_signal(number)
            except ProcessLookupError:
                pass

    async def stop(self) -> None:
        """End the process: SIGTERM, again for one that still drains, then SIGKILL, for all that it started."""
        process = self._process
        if process is None:
            return
        try:
            for _ in range(2):
                self.signal(signal.SIGTERM)
                if await wait_exit(process, _STOP_SECONDS):
                    break
        finally:
            signal_group(process, signal.SIGKILL)
            await wait_exit(process, _STOP_SECONDS)

    def describe(self, what: str) -> str:
        """Say what happened to the process, with the end of its log."""
        tail = read_tail(self.log)
        code = None if self._process is None else self._process.returncode
        text = f"{self.name} {what}" + ("" if code is None else f" (exit code {code})")
        return f"{text}:\n{tail}" if tail else text


async def run_to_end(program: Program, log: Path, seconds: float) -> int | None:
    """Run a program and wait for its end. Whatever it started ends with it, also when this is cancelled.

    Args:
        program: what to run.
        log: the file to which its output is appended.
        seconds: how long it may take.

    Returns:
        Its exit code, or None when it was not done in time.

    Raises:
        DaemonError: it cannot be started.
    """
    process = await _spawn(program, log, "ab")
    try:
        return process.returncode if await wait_exit(process, seconds) else None
    finally:
        signal_group(process, signal.SIGKILL)
        await wait_exit(process, _STOP_SECONDS)


async def _spawn(program: Program, log: Path, mode: str = "wb") -> asyncio.subprocess.Process:
    with log.open(mode) as file:
        try:
            return await asyncio.create_subprocess_exec(
                *program.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=asyncio.subprocess.STDOUT,
                cwd=program.folder,
                env=None if program.environ is None else dict(program.environ),
                start_new_session=True,
            )
        except OSError as error:
            raise DaemonError(f"{program.command[0]} cannot be started: {error.strerror}") from error


async def wait_exit(process: asyncio.subprocess.Process, seconds: float) -> bool:
    """Wait until a process has ended; `Process.wait` would wait for its children too, where they hold its pipes.

    Args:
        process: which.
        seconds: how long to wait.

    Returns:
        False when it still runs.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while process.returncode is None and loop.time() < deadline:  # noqa: ASYNC110  a process's end is no event here
        await asyncio.sleep(_POLL_SECONDS)
    return process.returncode is not None


def signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Signal a process and its descendants: it leads a group of its own."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass
