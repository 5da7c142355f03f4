"""Reads a file of policy rules: TOML, tables `[[rules]]`.

A message names the rule and its member, and what is wrong; never the value, so that it may go into a log.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from relay.settings.branches import PolicyRule
from relay.settings.problems import SettingsError, member_of, read_toml, reason_of

__all__ = ["read_policy_file"]

_RULES = TypeAdapter(tuple[PolicyRule, ...])
_MAX_PROBLEMS = 5
"Problems that are listed; a file of another kind could have thousands."


def read_policy_file(path: Path) -> tuple[PolicyRule, ...]:
    """Read rules.

    Args:
        path: the file.

    Raises:
        SettingsError: it cannot be read, holds something else, or a rule is wrong. One line for each of the first
            problems.
    """
    try:
        document = read_toml(path)
    except SettingsError as error:
        raise SettingsError(f"policy.file: {error}") from None
    others = sorted(document.keys() - {"rules"})
    if others:
        raise SettingsError(f"policy.file: {path}: {others[0]!r} is not known there; rules are tables [[rules]]")
    if "rules" not in document:  # such as a file that is being written just now
        raise SettingsError(f"policy.file: {path}: holds no rules; write rules = [] if that is meant")
    try:
        return _RULES.validate_python(document["rules"])
    except ValidationError as error:
        problems = [
            f"policy.file: {path}: rules{member_of(detail['loc'])}: {reason_of(detail)}"
            for detail in error.errors(include_url=False, include_input=False)[:_MAX_PROBLEMS]
        ]
    raise SettingsError("\n".join(problems))
