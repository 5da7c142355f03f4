"""Peers and servers that are not ours, as their folders describe them: peer.toml and server.toml.

A file that is wrong is an error with the file's and the key's name, before anything runs.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from relay.conformance.driver import Kind

__all__ = [
    "Credentials",
    "PeerSpec",
    "ServerSpec",
    "Spec",
    "SpecError",
    "check_faults",
    "fill",
    "load_peers",
    "load_servers",
]

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_OF_BUILD = frozenset({"build", "python"})
_OF_SERVER = _OF_BUILD | {"host", "port", "cert", "key", "template"}

Commands = tuple[tuple[str, ...], ...]


class SpecError(Exception):
    """A peer.toml or server.toml is wrong. The text names file and key."""


class Credentials(StrEnum):
    """Which credentials a peer's package can carry."""

    PRESHARED = "preshared"
    BASIC = "basic"


@dataclass(frozen=True, slots=True)
class Spec:
    """What peers and servers have in common."""

    name: str
    "The folder's name."
    folder: Path
    "Where commands run."
    about: str
    "What is tested."
    language: str = ""
    "What it is written in."
    tools: tuple[str, ...] = ()
    "Programs that must be on PATH."
    hint: str = ""
    "What to install when one is not."
    packages: tuple[str, ...] = ()
    "Debian packages that bring the tools."
    build: Commands = ()
    "Commands that make the program."
    run: tuple[str, ...] = ()
    "The command that runs it."
    faults: Mapping[str, str] = field(default_factory=dict)
    "Cases that fail for a fault of the peer's own, and what the fault is."

    @property
    def key(self) -> str:
        """What folders and lines call it: a server may have the name of a peer."""
        return self.name


@dataclass(frozen=True, slots=True)
class PeerSpec(Spec):
    """A client that is not ours, under remote control."""

    credentials: Credentials = Credentials.PRESHARED
    "Which credentials its package can carry."
    has_tunnels: bool = True
    "It opens tunnels; else it has tokens only, and our client opens the tunnels."
    planned: str = ""
    "What its driver waits for; empty where there is one."


@dataclass(frozen=True, slots=True)
class ServerSpec(Spec):
    """A server that is not ours."""

    kinds: frozenset[Kind] = frozenset(Kind)
    "The tunnels that it has."

    @property
    def key(self) -> str:
        """What folders and lines call it."""
        return f"server-{self.name}"


def load_peers(folder: Path) -> list[PeerSpec]:
    """Read every peer.toml.

    Args:
        folder: the folder of peers; a folder in it without a peer.toml is no peer.

    Returns:
        The peers by name.

    Raises:
        SpecError: a file is wrong.
    """
    return [_load_peer(file) for file in sorted(folder.glob("*/peer.toml"))]


def load_servers(folder: Path) -> list[ServerSpec]:
    """Read every server.toml.

    Args:
        folder: the folder of servers; a folder in it without a server.toml is no server.

    Returns:
        The servers by name.

    Raises:
        SpecError: a file is wrong.
    """
    return [_load_server(file) for file in sorted(folder.glob("*/server.toml"))]


def fill(command: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Put values in the place of `{name}`.

    Args:
        command: the command.
        values: a value for every name in it.
    """
    return [_PLACEHOLDER.sub(lambda match: values[match[1]], word) for word in command]


def check_faults(specs: Sequence[Spec], cases: Sequence[str]) -> None:
    """See that the faults of peers are of cases that exist.

    Args:
        specs: peers and servers.
        cases: the names of all cases.

    Raises:
        SpecError: one is not.
    """
    for spec in specs:
        unknown = sorted(set(spec.faults) - set(cases))
        if unknown:
            raise SpecError(f"{spec.name}: faults: no case {', '.join(unknown)}")


def _load_peer(file: Path) -> PeerSpec:
    table = _Table(file)
    planned = table.text("planned", "")
    credentials = table.text("credentials", Credentials.PRESHARED)
    if credentials not in set(Credentials):
        raise table.error("credentials", f"must be one of {', '.join(Credentials)}")
    has_tunnels = table.flag("tunnels", default=True)
    common = table.common(_OF_BUILD, has_program=not planned)
    spec = PeerSpec(**common, credentials=Credentials(credentials), has_tunnels=has_tunnels, planned=planned)
    table.finish()
    return spec


def _load_server(file: Path) -> ServerSpec:
    table = _Table(file)
    kinds = table.texts("kinds", tuple(Kind))
    if not kinds or not set(kinds) <= set(Kind):
        raise table.error("kinds", f"must be some of {', '.join(Kind)}")
    spec = ServerSpec(**table.common(_OF_SERVER, has_program=True), kinds=frozenset(Kind(kind) for kind in kinds))
    table.finish()
    return spec


class _Table:
    """One file, read key by key."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._values: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SpecError(f"{self._name}: {error}") from None

    @property
    def _name(self) -> str:
        return "/".join(self._file.parts[-3:])

    def error(self, key: str, what: str) -> SpecError:
        """Say what is wrong with a key."""
        return SpecError(f"{self._name}: {key}: {what}")

    def text(self, key: str, default: str | None = None) -> str:
        """Take a text; without a default it must be there and not empty."""
        value = self._values.pop(key, default)
        if value is None:
            raise self.error(key, "is missing")
        if not isinstance(value, str) or (default is None and not value):
            raise self.error(key, "must be a text")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """Take true or false."""
        value = self._values.pop(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "must be true or false")
        return value

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """Take a list of texts."""
        value = self._values.pop(key, default)
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
            raise self.error(key, "must be a list of texts")
        return tuple(value)

    def common(self, placeholders: frozenset[str], *, has_program: bool) -> dict[str, Any]:
        """Take what every file has."""
        name = self.text("name")
        if name != self._file.parent.name or not _NAME.fullmatch(name):
            raise self.error("name", f"must be the folder's, in lowercase: {self._file.parent.name}")
        about, language, hint = self.text("about"), self.text("language"), self.text("hint", "")
        tools = self.texts("tools", ())
        if tools and not hint:
            raise self.error("hint", "must say what to install where the tools are missing")
        packages = self.texts("packages", ())
        if not all(_PACKAGE.fullmatch(package) for package in packages):
            raise self.error("packages", "must be names of Debian packages")
        run = self._command("run", self._values.pop("run", []), placeholders)
        if has_program and not run:
            raise self.error("run", "is missing")
        return {
            "name": name,
            "folder": self._file.parent,
            "about": about,
            "language": language,
            "tools": tools,
            "hint": hint,
            "packages": packages,
            "build": self._commands("build", _OF_BUILD),
            "run": run,
            "faults": self._faults(),
        }

    def finish(self) -> None:
        """Refuse what nobody asked for: a slip of the pen must not be a default."""
        for key in self._values:
            raise self.error(key, "is no key that is known")

    def _commands(self, key: str, placeholders: frozenset[str]) -> Commands:
        value = self._values.pop(key, [])
        if not isinstance(value, list):
            raise self.error(key, "must be a list of commands")
        commands = tuple(self._command(key, item, placeholders) for item in value)
        if not all(commands):
            raise self.error(key, "has an empty command")
        return commands

    def _command(self, key: str, value: object, placeholders: frozenset[str]) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise self.error(key, "must be a command: a list of texts")
        for match in _PLACEHOLDER.finditer(" ".join(value)):
            if match[1] not in placeholders:
                known = ", ".join(f"{{{name}}}" for name in sorted(placeholders))
                raise self.error(key, f"knows no {match[0]}, only {known}")
        return tuple(value)

    def _faults(self) -> dict[str, str]:
        value = self._values.pop("faults", {})
        if not isinstance(value, dict) or not all(isinstance(text, str) and text for text in value.values()):
            raise self.error("faults", "must be a table of texts by case")
        return value
