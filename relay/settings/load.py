"""Brings the settings together: a TOML file, then the environment, then the command line; the last one wins.

The only place where the environment and the settings file are read. A name that no setting has is refused in
every source, so that a typo cannot pass for a default. Messages name the setting and where it was set, and
show the value unless it belongs to `auth` or is inside a table of a list.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from relay.settings.problems import SettingsError, member_of, read_toml, reason_of
from relay.settings.schema import SettingPath, branches, dotted, is_list, is_optional, is_table, leaves
from relay.settings.tree import Settings

__all__ = ["SettingsError", "load_settings", "require_certificate"]

ENV_PREFIX = "RELAY_"
"What the names of all our environment variables begin with."

_NOT_FROM_ENVIRONMENT = frozenset({("telemetry", "debug_addresses")})
"Settings that a variable left behind could switch on without anybody noticing."

_SECRET = frozenset({("tokens", "store", "url")})
"Settings whose values no message shows, beside those of `auth`."


@dataclass(slots=True)
class _Collected:
    """Values of all sources so far, and what was wrong with them."""

    values: dict[SettingPath, object] = field(default_factory=dict)
    sources: dict[SettingPath, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def put(self, path: SettingPath, value: object, source: str) -> None:
        """Keep a value; it takes the place of a weaker source's."""
        self.values[path] = value
        self.sources[path] = f"from {source}"

    def refuse(self, name: str, source: str, wrong: str) -> None:
        """Remember a problem."""
        self.problems.append(f"{name} (from {source}): {wrong}")

    def tree(self) -> dict[str, Any]:
        """Return the values nested as the settings are."""
        nested: dict[str, Any] = {}
        for path, value in self.values.items():
            branch = nested
            for name in path[:-1]:
                branch = branch.setdefault(name, {})
            branch[path[-1]] = value
        return nested


def load_settings(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Settings:
    """Read all sources and return the settings.

    Args:
        path: a TOML file, or None for none.
        environ: the environment; only names that begin with `RELAY_` are looked at, `__` parts the levels,
            and lists are JSON.
        overrides: dotted names and values of the command line's `--set`; lists are JSON.

    Raises:
        SettingsError: a file cannot be read, a name is unknown, or a value is wrong. One line for each
            problem; no line shows a value of `auth`.
    """
    collected = _Collected()
    if path is not None:
        _read_file(path, collected)
    _read_environment(environ or {}, collected)
    _read_overrides(overrides or {}, collected)
    if collected.problems:
        raise SettingsError("\n".join(collected.problems))
    try:
        return Settings(**collected.tree())
    except ValidationError as error:
        problems = [_describe(detail, collected.sources) for detail in error.errors(include_url=False)]
    raise SettingsError("\n".join(dict.fromkeys(problems)))


def require_certificate(settings: Settings) -> tuple[Path, Path]:
    """Return the certificate's and the private key's file; a relay that serves needs both.

    Raises:
        SettingsError: one of them is not set.
    """
    certificate, private_key = settings.tls.certificate, settings.tls.private_key
    if certificate is None or private_key is None:
        missing = [n for n, v in (("certificate", certificate), ("private_key", private_key)) if v is None]
        raise SettingsError("\n".join(f"tls.{name} (not set): must name a PEM file to serve" for name in missing))
    return certificate, private_key


def _read_file(path: Path, collected: _Collected) -> None:
    document = read_toml(path)
    known, groups = leaves(), branches()
    for name, value in _flatten(document, (), known):
        if name in known:
            collected.put(name, value, str(path))
        elif name in groups:
            if not isinstance(value, dict):
                collected.refuse(dotted(name), str(path), "is a group of settings; set its members")
        else:
            collected.refuse(dotted(name), str(path), _unknown(dotted(name), map(dotted, known)))


def _flatten(
    table: Mapping[str, object], above: SettingPath, known: Mapping[SettingPath, object]
) -> Iterator[tuple[SettingPath, object]]:
    for name, value in table.items():
        path = (*above, name)
        if isinstance(value, dict) and value and path not in known:
            yield from _flatten(value, path, known)
        else:
            yield path, value


def _read_environment(environ: Mapping[str, str], collected: _Collected) -> None:
    names = {ENV_PREFIX + "__".join(path).upper(): path for path in leaves()}
    for variable, text in environ.items():
        if not variable.upper().startswith(ENV_PREFIX):
            continue
        path = names.get(variable)
        if path is None:
            collected.refuse(variable, "the environment", _unknown(variable, names))
        elif path in _NOT_FROM_ENVIRONMENT:
            wrong = "cannot be set by an environment variable; set it in the file or on the command line"
            collected.refuse(dotted(path), variable, wrong)
        else:
            _put_text(path, text, variable, collected)


def _read_overrides(overrides: Mapping[str, str], collected: _Collected) -> None:
    names = {dotted(path): path for path in leaves()}
    groups = {dotted(path) for path in branches()}
    for name, text in overrides.items():
        if name in names:
            _put_text(names[name], text, "the command line", collected)
        elif name in groups:
            collected.refuse(name, "the command line", "is a group of settings; set its members")
        else:
            collected.refuse(name, "the command line", _unknown(name, names))


def _put_text(path: SettingPath, text: str, source: str, collected: _Collected) -> None:
    """Turn text into what the setting's kind wants: JSON for a list or a table, None for an optional left empty."""
    value: object = text
    if is_table(path):
        value = _parse_json(text)
        if not isinstance(value, dict):
            collected.refuse(dotted(path), source, 'must be a JSON object, like {"a": ["b"]}')
            return
    elif is_list(path):
        value = _parse_json(text)
        if not isinstance(value, list):
            collected.refuse(dotted(path), source, f"must be a JSON list, like {_EXAMPLES[_item_kind(path)]}")
            return
    elif text == "" and is_optional(path):
        value = None
    collected.put(path, value, source)


def _parse_json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


_EXAMPLES = {int: "[25, 587]", str: '["a", "b"]', BaseModel: '[{"a": 1}, {"a": 2}]'}
"What a list looks like, by the kind of its items."


def _item_kind(path: SettingPath) -> type:
    item = get_args(leaves()[path].annotation)[0]
    kind = get_args(item)[0] if get_origin(item) is Annotated else item
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return BaseModel
    return int if kind is int else str


def _unknown(name: str, candidates: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.75)
    return f"is no setting; did you mean {close[0]}?" if close else "is no setting"


def _describe(detail: ErrorDetails, sources: Mapping[SettingPath, str]) -> str:
    """Say in one line which setting is wrong, where it was set, and why."""
    place = detail["loc"]
    size = next((end for end in range(len(place), 0, -1) if place[:end] in leaves() or place[:end] in branches()), 0)
    path: SettingPath = tuple(str(part) for part in place[:size])
    inside = member_of(place[size:])
    wrong = reason_of(detail)
    members = re.match(r"([a-z_][a-z_.0-9]*(?:, [a-z_][a-z_.0-9]*)*): ", wrong)
    if (not path or path in branches()) and members is not None:
        blamed = [(*path, *name.split(".")) for name in members[1].split(", ")]
        names = ", ".join(f"{dotted(one)} ({sources.get(one, 'default')})" for one in blamed)
        return f"{names}: {wrong[members.end() :]}"
    given = detail["input"]
    is_shown = path in leaves() and path[0] != "auth" and path not in _SECRET and len(place) - size < 2
    shows_value = is_shown and isinstance(given, str | int | float)
    value = f", not {str(given)[:80]}" if shows_value else ""
    return f"{dotted(path)}{inside} ({sources.get(path, 'default')}): {wrong}{value if value.isprintable() else ''}"
