"""What a peer needs before its first case: its tools, and its program built."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from interop.matrix.claim import alone
from interop.matrix.peers import Spec, fill
from interop.matrix.process import DaemonError, Program, run_to_end
from interop.matrix.transcript import read_tail

__all__ = ["Shortfall", "Workshop", "clean_environ"]

_BUILD_SECONDS = 900.0
_INSTALL_SECONDS = 600.0
_UNWANTED = ("RELAY_", "PYTHONPATH")


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Why a peer cannot play."""

    is_missing: bool
    "A tool is missing: nobody's fault. Else its build failed."
    reason: str
    "In one line."
    detail: str = ""
    "What the build printed last."


class Workshop:
    """Builds peers, each into a folder of its own that is kept between runs."""

    def __init__(
        self,
        folder: Path,
        *,
        may_install: bool = False,
        say: Callable[[str], None] = print,
        seconds: float = _BUILD_SECONDS,
    ) -> None:
        """Prepare; builds nothing.

        Args:
            folder: where the outputs go.
            may_install: missing Debian packages may be installed, by root.
            say: told what takes long.
            seconds: how long one command may take.
        """
        self._folder = folder
        self._may_install = may_install
        self._say = say
        self._seconds = seconds

    def values(self, spec: Spec) -> dict[str, str]:
        """What stands for `{build}` and `{python}` in a peer's commands."""
        return {"build": str(self._folder / spec.key), "python": sys.executable}

    async def prepare(self, spec: Spec) -> Shortfall | None:
        """Find the tools and run the build commands.

        Args:
            spec: which peer.

        Returns:
            None when it can play.
        """
        missing = _missing(spec)
        if missing and spec.packages and self._may_install and os.geteuid() == 0:
            await self._install(spec)
            missing = _missing(spec)
        if missing:
            also = f" (Debian: {' '.join(spec.packages)}; --install does it, as root)" if spec.packages else ""
            return Shortfall(True, f"{', '.join(missing)} is missing: {spec.hint}{also}")
        return await self._build(spec)

    async def _build(self, spec: Spec) -> Shortfall | None:
        values = self.values(spec)
        (self._folder / spec.key).mkdir(parents=True, exist_ok=True)
        async with alone(self._folder / f"{spec.key}.lock"):
            return await self._run_commands(spec, values)

    async def _run_commands(self, spec: Spec, values: Mapping[str, str]) -> Shortfall | None:
        log = self._folder / f"{spec.key}.log"
        log.unlink(missing_ok=True)
        for command in spec.build:
            shown = shlex.join(command)
            self._say(f"{spec.key}: {shown}")
            try:
                code = await run_to_end(Program(fill(command, values), spec.folder), log, self._seconds)
            except DaemonError as error:
                return Shortfall(False, f"the build cannot start: {error}")
            if code != 0:
                how = f"was not done in {self._seconds:g} s" if code is None else f"ended with exit code {code}"
                return Shortfall(False, f"the build failed: `{shown}` {how}", read_tail(log))
        return None

    async def _install(self, spec: Spec) -> None:
        """Install a peer's packages; when this fails the tools are still missing, and that is said."""
        log = self._folder / f"{spec.key}.install.log"
        self._folder.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "--yes", "--no-install-recommends", *spec.packages]
        for command in (install, ["apt-get", "update"], install):
            self._say(f"{spec.key}: {shlex.join(command)}")
            try:
                code = await run_to_end(Program(command, Path("/"), environ), log, _INSTALL_SECONDS)
            except DaemonError as error:
                self._say(f"{spec.key}: {error}")
                return
            if code == 0 and command is install:
                return


def clean_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Make the environment of programs under test: without proxies and settings of whoever runs the suite.

    Args:
        environ: our own.
    """
    return {
        name: value
        for name, value in environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(_UNWANTED)
    }


def _missing(spec: Spec) -> list[str]:
    return [tool for tool in spec.tools if shutil.which(tool) is None]
