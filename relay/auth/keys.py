"""Makes keys for clients and the entries that the settings hold in their place."""

from __future__ import annotations

import hashlib
import re
import secrets

from relay.auth.basic import scrypt_digest
from relay.settings import BasicEntry, ScryptCost, encode_basic_entry, encode_preshared_entry

__all__ = ["basic_entry", "check_user", "generate_key", "preshared_entry"]

_KEY_BYTES = 32
_SALT_BYTES = 16


def generate_key() -> str:
    """Return a new key: 256 random bits in base64url, fit for the Preshared and Bearer schemes.

    None begins with a hyphen, which a command line would take for an option.
    """
    while (key := secrets.token_urlsafe(_KEY_BYTES)).startswith("-"):
        pass
    return key


def preshared_entry(key: str) -> str:
    """Return the entry of `auth.preshared` for a key."""
    return encode_preshared_entry(hashlib.sha256(key.encode()).digest())


def check_user(user: str) -> None:
    """Refuse a user name that the Basic scheme cannot carry (RFC 7617 §2).

    Raises:
        ValueError: it is empty, too long, or has a colon or control characters.
    """
    if not re.fullmatch(r"[^:\x00-\x1f\x7f\ud800-\udfff]{1,128}", user):
        raise ValueError("a user name has 1 to 128 characters, no colon and no control characters")


def basic_entry(user: str, password: str, cost: ScryptCost | None = None) -> str:
    """Return the entry of `auth.basic` for a user. Takes as long as one password check.

    Args:
        user: 1 to 128 characters, no colon and no control characters (RFC 7617 §2).
        password: any text without control characters, and not empty.
        cost: what each check shall cost; by default 16 MiB and some 40 ms.

    Raises:
        ValueError: the user name or the password is empty or has a character that the scheme cannot carry.
    """
    check_user(user)
    if not re.fullmatch(r"[^\x00-\x1f\x7f\ud800-\udfff]+", password):
        raise ValueError("a password is not empty and has no control characters")
    chosen = ScryptCost() if cost is None else cost
    salt = secrets.token_bytes(_SALT_BYTES)
    return encode_basic_entry(BasicEntry(user, chosen, salt, scrypt_digest(password.encode(), salt, chosen)))
