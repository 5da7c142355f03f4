"""Who may use the relay."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from relay.settings.branches.bounds import Branch, readable_by
from relay.settings.values import parse_basic_entry, parse_preshared_entry

__all__ = ["AuthSettings"]


def _realm(value: str) -> str:
    if not re.fullmatch(r"[\x20\x21\x23-\x5b\x5d-\x7e]{1,128}", value):
        raise ValueError("must be 1..128 printable ASCII characters without quotation mark and backslash")
    return value


class AuthSettings(Branch):
    """Who may use the relay. With no entry and `open` false, nobody."""

    preshared: tuple[Annotated[str, readable_by(parse_preshared_entry)], ...] = Field(default=(), repr=False)
    """Keys, each as `sha256:` and the SHA-256 of the key in hex. Good for the Preshared and the Bearer scheme."""
    basic: tuple[Annotated[str, readable_by(parse_basic_entry)], ...] = Field(default=(), repr=False)
    """Users of the Basic scheme, each as `user:scrypt:n,r,p:salt:hash`."""
    open: bool = False
    """Admit everybody. An open relay is used by strangers within hours."""
    realm: Annotated[str, AfterValidator(_realm)] = "masque-relay"
    """The realm of challenges (RFC 9110 §11.5)."""

    @model_validator(mode="after")
    def _one_entry_per_user(self) -> AuthSettings:
        users = [entry.partition(":")[0] for entry in self.basic]
        if len(set(users)) != len(users):
            raise ValueError("basic: must have one entry per user")
        return self
