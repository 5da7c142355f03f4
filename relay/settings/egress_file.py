"""Reads the file of `egress.file`: pools and quarantine, in TOML or JSON.

A message names the place in the file and what is wrong there; never the value, so that it may go into a log.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from pydantic import ValidationError

from relay.settings.branches import EgressFile
from relay.settings.problems import SettingsError, member_of, reason_of

__all__ = ["read_egress_file"]

_MAX_SIZE = 4 * 1024 * 1024
_MAX_PROBLEMS = 5
"Problems that are listed; a file of another kind could have thousands."


def read_egress_file(path: Path) -> EgressFile:
    """Read the file; a name that ends in `.json` is JSON, every other TOML.

    Raises:
        SettingsError: it cannot be read, or something in it is wrong. One line for each problem.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_SIZE + 1)
    except OSError as error:
        raise SettingsError(f"egress.file: cannot read {path}: {error.strerror}") from None
    if len(data) > _MAX_SIZE:
        raise SettingsError(f"egress.file: {path} is larger than {_MAX_SIZE >> 20} MiB")
    try:
        text = data.decode("utf-8")
        document = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except UnicodeDecodeError:
        raise SettingsError(f"egress.file: {path} is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise SettingsError(f"egress.file: {path} is not valid {kind}: {error}") from None
    if not isinstance(document, dict):
        raise SettingsError(f"egress.file: {path} must hold pools and quarantine")
    if not document:  # such as one that is being written just now
        raise SettingsError(f"egress.file: {path} is empty")
    try:
        return EgressFile.model_validate(document)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        places = [
            (member_of(detail["loc"]).removeprefix("."), reason_of(detail)) for detail in details[:_MAX_PROBLEMS]
        ]
        problems = [f"egress.file: {path}: {place}: {reason}" for place, reason in places]
    raise SettingsError("\n".join(dict.fromkeys(problems)))
