"""What the tests of stores share: a clock, tokens, and Redis servers of their own."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from relay.spent import SpentStore, StoreAway

__all__ = ["NOW", "Clock", "RedisProcess", "answers", "redis_process", "token", "until"]

NOW = 1_700_000_000.0
"A wall clock's time to begin at."
_PROGRAMS = ("redis-server", "valkey-server")


class Clock:
    """A wall clock that goes only when told."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def token() -> bytes:
    """Return a token's id that no other test has."""
    return secrets.token_bytes(32)


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    """Ask until the answer is yes; a test that waits in vain ends by its own deadline."""
    while not await check():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.002)


async def answers(store: SpentStore) -> bool:
    """Say whether a store records a spend of a new token."""
    try:
        return await store.spend(token(), 1, math.inf)
    except StoreAway:
        return False


class RedisProcess:
    """A server on a free port of the loopback, with a folder of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
        if program is None:
            pytest.skip(
                "needs a server: install redis-server or valkey-server (Debian: apt-get install redis-server)"
            )
        self._program = program
        self._folder = folder
        self._options = options
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server's address, for clients without a password."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server on its port and wait until it listens."""
        listen = ["--port", str(self.port)] if "--tls-port" not in self._options else ["--port", "0"]
        options = [option.replace("{port}", str(self.port)) for option in self._options]
        command = [self._program, *listen, "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", "", *options]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.01)
        self.stop()
        pytest.fail(f"{self._program} did not start: {(self._folder / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        """Kill the server; what it holds in memory is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let the server neither answer nor end for a while."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)


@contextlib.contextmanager
def redis_process(folder: Path, *options: str) -> Iterator[RedisProcess]:
    """Run a server; `{port}` in an option is its port."""
    server = RedisProcess(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
