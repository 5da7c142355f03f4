"""The settings tree seen as a list of names: which settings there are, and what kind each one is."""

from __future__ import annotations

import types
from functools import cache
from typing import Annotated, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from relay.settings.tree import Settings

__all__ = ["SettingPath", "branches", "dotted", "is_list", "is_optional", "is_table", "leaves", "tables"]

SettingPath: TypeAlias = tuple[str, ...]
'The names from the root to a setting: `("listen", "port")`.'


@cache
def leaves() -> dict[SettingPath, FieldInfo]:
    """Return every setting that holds a value, in the order of the tree."""
    return dict(_walk(Settings, ())[0])


@cache
def branches() -> frozenset[SettingPath]:
    """Return the paths that group settings."""
    return frozenset(_walk(Settings, ())[1])


def dotted(path: SettingPath) -> str:
    """Write a path as operators do: `listen.port`."""
    return ".".join(path)


def is_list(path: SettingPath) -> bool:
    """Say whether a setting holds several values."""
    return get_origin(_bare(leaves()[path].annotation)) is tuple


def tables(path: SettingPath) -> type[BaseModel] | None:
    """Return what each table of a list of tables is made of, or None when the setting is another one."""
    items = get_args(_bare(leaves()[path].annotation)) if is_list(path) else ()
    return items[0] if items and isinstance(items[0], type) and issubclass(items[0], BaseModel) else None


def is_table(path: SettingPath) -> bool:
    """Say whether a setting holds several values, each under a name that the operator chooses."""
    return get_origin(_bare(leaves()[path].annotation)) is dict


def is_optional(path: SettingPath) -> bool:
    """Say whether a setting may be left without a value."""
    annotation = _bare(leaves()[path].annotation)
    return get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation)


def _bare(annotation: object) -> object:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _walk(
    model: type[BaseModel], above: SettingPath
) -> tuple[list[tuple[SettingPath, FieldInfo]], list[SettingPath]]:
    found: list[tuple[SettingPath, FieldInfo]] = []
    groups: list[SettingPath] = []
    for name, info in model.model_fields.items():
        path = (*above, name)
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            groups.append(path)
            below, groups_below = _walk(annotation, path)
            found += below
            groups += groups_below
        else:
            found.append((path, info))
    return found, groups
