"""What is wrong with settings, in words for an operator, wherever they are read."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic_core import ErrorDetails

__all__ = ["SettingsError", "member_of", "read_toml", "reason_of"]

_WORDS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "byte_size": 'must be a size, like 65536, "64KiB" or "4MiB"',
    "byte_size_unit": 'must be a size, like 65536, "64KiB" or "4MiB"',
    "extra_forbidden": "is no member",
    "finite_number": "must be a number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number",
    "int_type": "must be a whole number",
    "ip_v4_address": "must be an IPv4 address",
    "ip_v6_address": "must be an IPv6 address",
    "missing": "must be there",
    "model_type": "must be a table",
    "path_type": "must be a path",
    "string_type": "must be text",
    "dict_type": "must be a table of names and their values",
    "tuple_type": "must be a list",
}
"What the validator's kinds of error mean to an operator."


class SettingsError(Exception):
    """The settings cannot be used. The text says which ones, where they were set, and what is wrong."""


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        SettingsError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: is not valid TOML: {error}") from None
    except (ValueError, RecursionError):  # a number with thousands of digits, a thousand brackets
        raise SettingsError(f"{path}: has a value that is too long or too deep") from None


def member_of(place: Sequence[int | str]) -> str:
    """Write where inside a setting something is, as operators do: `[2].ports[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)


def reason_of(detail: ErrorDetails) -> str:
    """Say in words for an operator what a validator found wrong."""
    context = detail.get("ctx", {})
    if detail["type"] == "value_error":
        return str(context.get("error", "is not valid"))
    if detail["type"] == "literal_error":
        return f"must be {context.get('expected', 'one of the known words')}"
    return _WORDS.get(detail["type"], "is not valid")
