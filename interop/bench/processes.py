"""Child processes of the benchmark: started on their core, always ended, by the process that started them."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

__all__ = ["CHECKOUT", "Child", "ChildError", "has_priority"]

CHECKOUT = Path(__file__).parents[2]
"The checkout, where `python -m` finds every package."

_STOP_SECONDS = 5.0
_LOG_TAIL = 2000


class ChildError(Exception):
    """A child process did not start, or ended before its work was done."""


@contextmanager
def _inherited(core: int | None) -> Iterator[None]:
    """Take the core and the priority that a new process shall begin with."""
    cores, policy, parameter = os.sched_getaffinity(0), os.sched_getscheduler(0), os.sched_getparam(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
        with suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameter)
        os.sched_setaffinity(0, cores)


def has_priority() -> bool:
    """Tell whether a process with a core of its own also has real-time priority there (sched(7)).

    Without it, whatever else runs on the machine takes the core away for milliseconds, and latency is measured on
    that. Only root may ask for it.

    Returns:
        Whether the kernel gives it to us.
    """
    with _inherited(min(os.sched_getaffinity(0))):
        return os.sched_getscheduler(0) == os.SCHED_RR


class Child:
    """One child process; unless it is silent, with a line-wise pipe in both directions.

    With a core it has that one alone and, where the kernel allows, comes before all others there. Use it as a
    context manager: leaving ends the process, first with SIGTERM, then with SIGKILL.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        core: int | None,
        folder: Path,
        is_silent: bool = False,
        home: Path = CHECKOUT,
    ) -> None:
        """Start the process.

        Args:
            name: what to call it in messages; also names its log.
            command: the program and its arguments.
            core: the only core it may use, or None for all.
            folder: where its standard error is kept.
            is_silent: nobody reads what it prints; its standard output is kept with its standard error.
            home: where it runs.

        Raises:
            ChildError: the program cannot be started.
        """
        self.name = name
        "What to call it in messages."
        self._log = folder / f"{name}.log"
        self._pending = b""
        try:
            with _inherited(core), self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.PIPE,
                    stdout=log if is_silent else subprocess.PIPE,
                    stderr=log,
                    bufsize=0,
                    cwd=home,
                )
        except OSError as error:
            raise ChildError(f"{name} cannot be started: {error}") from error

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """The process has not ended."""
        return self._process.poll() is None

    def write_line(self, line: str) -> None:
        """Send one line to the process.

        Args:
            line: text without its line end.

        Raises:
            ChildError: the process has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
        except OSError as error:
            raise ChildError(self.describe("ended")) from error

    def read_line(self, seconds: float) -> str:
        """Wait for the next line that the process prints.

        Args:
            seconds: how long to wait.

        Returns:
            The line without its end.

        Raises:
            ChildError: the process ended, or printed nothing in time.
        """
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise ChildError(self.describe("said nothing in time"))
            data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                raise ChildError(self.describe("ended"))
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode(errors="replace").strip()

    def stop(self) -> None:
        """End the process and wait for it. Does nothing when it has ended."""
        process = self._process
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Child:
        """Hand out the running process."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.stop()

    def describe(self, what: str) -> str:
        """Say what happened to the process.

        Args:
            what: what happened.

        Returns:
            Its name, what happened, and the end of its log.
        """
        tail = self._log.read_bytes()[-_LOG_TAIL:].decode(errors="replace").strip()
        return f"{self.name} {what}" + (f":\n{tail}" if tail else "")
