"""The process of Firefox, and the temporary folder that holds everything it writes: profile, home, qlogs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from .preferences import write_preferences

__all__ = ["FirefoxError", "Process"]

_COMMAND = ("firefox-esr", "--headless", "--no-remote", "--marionette", "--remote-allow-system-access", "--profile")
_DIE_SECONDS = 2.0


class FirefoxError(Exception):
    """Firefox did not start, or did not do what it was told."""


class Process:
    """One process. Making it starts it; `stop` ends it, in any state and from any thread."""

    def __init__(self, preferences: dict[str, str | bool]) -> None:
        """Make the folder and start Firefox in it.

        Args:
            preferences: more preferences for the profile.

        Raises:
            FirefoxError: it cannot be started.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="masque-firefox-"))
        "Removed at the end."
        self.profile = self.folder / "profile"
        "Firefox's profile."
        self._scratch = self.folder / "tmp"
        self._family: set[psutil.Process] = set()
        try:
            self.profile.mkdir()
            self._scratch.mkdir()
            write_preferences(self.profile, preferences)
            self._child = subprocess.Popen(
                [*_COMMAND, str(self.profile)],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                stderr=sys.stderr,
                env=self._environ(),
            )
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise FirefoxError(f"firefox-esr cannot be started: {error}") from error

    def _environ(self) -> dict[str, str]:
        """The process's environment: nothing of the user's; a connection to elsewhere ends Firefox at once."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "TMPDIR": str(self._scratch),
            "DBUS_SESSION_BUS_ADDRESS": "disabled:",
            "MOZ_CRASHREPORTER_DISABLE": "1",
            "MOZ_DISABLE_NONLOCAL_CONNECTIONS": "1",
        }

    def check(self) -> None:
        """Find out whether it runs.

        Raises:
            FirefoxError: it has ended.
        """
        if self._child.poll() is not None:
            raise FirefoxError(f"Firefox ended with {self._child.returncode}")

    def wait(self, seconds: float) -> None:
        """Wait until it has ended by itself, but not for long.

        Args:
            seconds: how long.
        """
        self._remember_family()
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            pass

    def stop(self, qlogs: str) -> None:
        """End the process and all that it started, and remove the folder.

        Args:
            qlogs: where its qlogs go, or nothing for nowhere.
        """
        self._remember_family()
        for process in self._family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
        self._child.wait()
        psutil.wait_procs(self._family, timeout=_DIE_SECONDS)
        try:
            if qlogs:
                for file in self._scratch.glob("qlog_*/*"):
                    shutil.move(file, qlogs)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _remember_family(self) -> None:
        """Note the process and its descendants while they can still be told from others."""
        if self._child.poll() is None:
            try:
                parent = psutil.Process(self._child.pid)
                self._family |= {parent, *parent.children(recursive=True)}
            except psutil.NoSuchProcess:
                pass
