"""A driver's process, and JSON lines to and from it: requests that overlap, each with an answer or a reason.

Nothing here trusts the other side. A driver that dies, hangs, or writes what is no answer fails the verbs that wait,
with a text that says which of these it was and what it last wrote to its standard error. Every verb ends: it has the
protocol's timeout, and a margin on top after which the driver itself is to blame.
"""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

from interop.matrix.process import Program, signal_group, wait_exit
from interop.matrix.transcript import Transcript, read_tail, shorten
from relay.conformance.driver import DriverError, DriverTimeout

__all__ = ["Channel"]

_MAX_LINE = 64 << 20
_LEAVE_SECONDS = 5.0


class Channel:
    """One driver process. `start` it, `ask` it, `stop` it."""

    def __init__(self, program: Program, folder: Path, margin_seconds: float) -> None:
        """Prepare; starts nothing.

        Args:
            program: what to run.
            folder: where driver.log, its standard error, and transcript.jsonl are kept.
            margin_seconds: how much longer than a verb's own timeout an answer may take.
        """
        self._program = program
        self._folder = folder
        self._log = folder / "driver.log"
        self._margin = margin_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._transcript: Transcript | None = None
        self._reader: asyncio.Task[None] | None = None
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._abandoned: set[int] = set()
        self._last_id = 0
        self._broken: str | None = None
        self._writing = asyncio.Lock()

    async def start(self, seconds: float) -> Any:
        """Start the process and wait for its first line. Follow with `stop`, also when this raises.

        Args:
            seconds: how long the first line may take.

        Returns:
            The first line's value.

        Raises:
            DriverError: it cannot be started, ended, said what is no JSON, or nothing.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._transcript = Transcript(self._folder / "transcript.jsonl")
        with self._log.open("wb") as log:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._program.command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    limit=_MAX_LINE,
                    cwd=self._program.folder,
                    env=None if self._program.environ is None else dict(self._program.environ),
                    start_new_session=True,
                )
            except OSError as error:
                name = self._program.command[0]
                raise DriverError(f"the driver cannot be started: {name}: {error.strerror}") from error
        try:
            async with asyncio.timeout(seconds):
                greeting = await self._read_line()
        except TimeoutError:
            raise DriverError(self._describe(f"did not greet within {seconds:g} s")) from None
        self._reader = asyncio.create_task(self._read_answers())
        return greeting

    async def stop(self) -> None:
        """End the process: by the end of its input, else by signals, and with it all that it started."""
        process = self._process
        try:
            if process is not None:
                await self._end(process)
        finally:
            if process is not None:
                signal_group(process, signal.SIGKILL)
                await wait_exit(process, _LEAVE_SECONDS)
            if self._reader is not None:
                self._reader.cancel()
            self._break("the driver was stopped")
            if self._transcript is not None:
                self._transcript.close()

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is not None:
            process.stdin.close()
        if not await wait_exit(process, _LEAVE_SECONDS):
            signal_group(process, signal.SIGTERM)
            await wait_exit(process, _LEAVE_SECONDS)

    async def ask(self, verb: str, seconds: float, **arguments: Any) -> dict[str, Any]:
        """Ask for a verb and wait for its answer.

        Args:
            verb: the verb.
            seconds: how long the verb itself may take.
            arguments: what it needs.

        Returns:
            `ok` of the answer.

        Raises:
            DriverTimeout: the driver says that what it waited for did not come.
            DriverError: the driver says that it cannot, or died, or did not answer.
        """
        if self._broken is not None or self._reader is None:
            raise DriverError(self._broken or "the driver was not started")
        self._last_id += 1
        number = self._last_id
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        limit = seconds + self._margin
        try:
            async with asyncio.timeout(limit):
                await self._write({"id": number, "verb": verb, **arguments})
                answer = await future
        except TimeoutError:
            fault = "hangs" if self._process is None or self._process.returncode is None else "ended"
            raise DriverError(self._describe(f"{fault}: no answer to `{verb}` within {limit:g} s")) from None
        finally:
            if self._pending.pop(number, None) is not None:
                self._abandoned.add(number)
        return _judge(verb, answer)

    async def _write(self, request: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._transcript is not None
        self._transcript.add("case", request)
        line = json.dumps(request, separators=(",", ":")).encode() + b"\n"
        try:
            async with self._writing:
                self._process.stdin.write(line)
                await self._process.stdin.drain()
        except OSError:
            pass  # the driver is gone; the reader learns how, and tells all who wait

    async def _read_answers(self) -> None:
        """Give each answer to the verb that waits for it, until the driver ends or writes nonsense."""
        try:
            while True:
                value = await self._read_line()
                number = value.get("id") if isinstance(value, dict) else None
                future = self._pending.pop(number, None) if isinstance(number, int) else None
                if future is not None:
                    if not future.done():
                        future.set_result(value)
                elif number in self._abandoned:
                    self._abandoned.discard(number)
                else:
                    raise DriverError(self._describe(f"answered what was not asked: {shorten(value)}"))
        except DriverError as error:
            self._break(str(error))
        except OSError as error:
            self._break(self._describe(f"cannot be read from: {error.strerror}"))

    def _break(self, reason: str) -> None:
        """Nothing more can be asked; whoever waits learns why."""
        if self._broken is None:
            self._broken = reason
        for future in self._pending.values():
            if not future.done():
                future.set_exception(DriverError(self._broken))
        self._pending.clear()

    async def _read_line(self) -> Any:
        """Read one line and parse it.

        Raises:
            DriverError: the driver ended, or the line is too long or no JSON.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._transcript is not None
        try:
            line = await self._process.stdout.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            raise DriverError(self._describe(f"wrote a line of more than {_MAX_LINE} bytes")) from None
        except asyncio.IncompleteReadError as error:
            inside = f" inside of a line ({shorten(error.partial)})" if error.partial else ""
            raise DriverError(self._describe(f"ended{inside}{await self._exit_code()}")) from None
        try:
            value = json.loads(line)
        except ValueError:
            self._transcript.add("driver", line.decode(errors="replace"))
            raise DriverError(self._describe(f"wrote what is no JSON: {shorten(line)}")) from None
        self._transcript.add("driver", value)
        return value

    async def _exit_code(self) -> str:
        """Say how the process ended; it may have closed its output only."""
        assert self._process is not None
        if not await wait_exit(self._process, _LEAVE_SECONDS):
            return " its output, but still runs"
        code = self._process.returncode or 0
        return f" with exit code {code}" if code >= 0 else f" by signal {-code}"

    def _describe(self, what: str) -> str:
        """Say what happened, with the end of the driver's standard error."""
        tail = read_tail(self._log)
        return f"the driver {what}" + (f"; its last words:\n{tail}" if tail else "")


def _judge(verb: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Take `ok` out of an answer, or raise what its `error` says."""
    error = answer.get("error")
    if isinstance(error, str):
        raise (DriverTimeout if error.startswith("timeout") else DriverError)(f"{verb}: {error}")
    ok = answer.get("ok")
    if not isinstance(ok, dict):
        raise DriverError(f"{verb}: an answer with neither `ok` nor `error`: {shorten(answer)}")
    return ok
