"""The relay's side of the process that checks tokens of type 1. Used by one thread alone.

The process is started by the first batch. One that ended, or that does not answer in time, is ended and its batch has
failed; the next batch starts another, but not oftener than once a second.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import relay
from relay.auth.private_token import evaluator
from relay.auth.private_token.checks import Check
from relay.auth.private_token.evaluator import encode_order
from relay.auth.private_token.key_file import SeedKey
from relay.telemetry import get_logger

__all__ = ["Evaluation"]

_ROOT = Path(relay.__file__).parents[1]
_PATIENCE = 5.0
"Seconds without an answer after which the process counts as stuck; the first one includes its start."
_PAUSE = 1.0


class Evaluation:
    """The process, while there is one."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._process: subprocess.Popen[bytes] | None = None
        self._started = -_PAUSE

    def verify(self, checks: Sequence[Check]) -> list[bool]:
        """Have the process check a batch, some KiB of orders at most: they must fit into a pipe.

        Raises:
            OSError: the process cannot be started, ended, or is stuck.
        """
        try:
            return self._ask(checks)
        except OSError as error:
            self.close()
            get_logger().error("token_evaluator_failed", exception_type=type(error).__name__)
            raise

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.kill()
        process.wait()
        process.stdout.close()
        try:
            process.stdin.close()
        except OSError:
            pass  # what it was not given any more

    @property
    def pid(self) -> int | None:
        """The process's id, while there is one."""
        return None if self._process is None else self._process.pid

    def _ask(self, checks: Sequence[Check]) -> list[bool]:
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        for check in checks:
            assert isinstance(check.key, SeedKey)
            process.stdin.write(encode_order(check.key.seed, check.token_input, check.authenticator))
        process.stdin.flush()
        answers = b""
        poll = select.poll()
        poll.register(process.stdout.fileno(), select.POLLIN)
        while len(answers) < len(checks):
            if not poll.poll(_PATIENCE * 1000):
                raise TimeoutError
            data = os.read(process.stdout.fileno(), len(checks))
            if not data:
                raise ConnectionResetError
            answers += data
        return [answer == 1 for answer in answers]

    def _start(self) -> subprocess.Popen[bytes]:
        now = time.monotonic()
        if now < self._started + _PAUSE:
            raise BlockingIOError
        self._started = now
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-P", evaluator.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
        return self._process
