"""Shows the settings to an operator: the effective tree without secrets, and what every setting means."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from functools import reduce

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from relay.settings.schema import SettingPath, dotted, leaves, tables
from relay.settings.tree import Settings

__all__ = ["describe_settings", "dump_settings", "redacted"]

_DIGEST_SHOWN = len("sha256:") + 8


def redacted(settings: Settings) -> dict[str, object]:
    """Return the effective settings by dotted name, with what authenticates clients cut down.

    Paths are shown as paths. Of a preshared key's digest the first digits remain, so that one can tell keys
    apart; of Basic entries only their number.
    """
    return {dotted(path): _shown(path, _value(settings, path)) for path in leaves()}


def dump_settings(settings: Settings) -> str:
    """Return the effective settings as TOML, without secrets. A comment stands for what is not set."""
    lines: list[str] = []
    section: SettingPath = ()
    for path in leaves():
        if path[:-1] != section:
            section = path[:-1]
            lines += ["", f"[{dotted(section)}]"]
        value = _shown(path, _value(settings, path))
        lines.append(f"# {path[-1]} is not set" if value is None else f"{path[-1]} = {_toml(value)}")
    return "\n".join(lines).lstrip("\n") + "\n"


def describe_settings() -> str:
    """Return every setting's name, default and meaning, one paragraph each."""
    defaults = Settings()
    paragraphs = []
    for path, info in leaves().items():
        paragraphs.append(_paragraph(dotted(path), _shown(path, _value(defaults, path)), info))
        table = tables(path)
        for name, member in {} if table is None else table.model_fields.items():
            default = None if member.is_required() else _shown((*path, name), member.get_default())
            paragraphs.append(_paragraph(f"{dotted(path)}[].{name}", default, member))
    return "\n\n".join(paragraphs) + "\n"


def _paragraph(name: str, default: object, info: FieldInfo) -> str:
    text = "not set" if default is None else json.dumps(default)
    return f"{name} (default {text})\n    {' '.join((info.description or '').split())}"


def _value(settings: Settings, path: SettingPath) -> object:
    return reduce(getattr, path, settings)


def _shown(path: SettingPath, value: object) -> object:
    if path == ("auth", "preshared") and isinstance(value, tuple):
        return [f"{str(entry)[:_DIGEST_SHOWN]}..." for entry in value]
    if path == ("auth", "basic") and isinstance(value, tuple):
        return [f"<{len(value)} {'entry' if len(value) == 1 else 'entries'}>"] if value else []
    if path == ("tokens", "store", "url") and isinstance(value, str):
        return f"{value.partition('://')[0]}://..."
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, BaseModel):
        given = value.model_dump(exclude_unset=True)
        return {name: _shown((*path, name), member) for name, member in given.items()}
    if isinstance(value, tuple):
        return [item if isinstance(item, int) else _shown((), item) for item in value]
    if isinstance(value, dict):
        return {str(name): _shown((), item) for name, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _toml(value: object) -> str:
    """Write a value as TOML does; a table stays on its line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_key(name)} = {_toml(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def _toml_key(name: str) -> str:
    """Write a name of a table, quoted where it has to be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
