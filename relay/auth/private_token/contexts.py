"""Redemption contexts: which one challenges carry now, and for which tokens are still taken (RFC 9577 §2.1.1.2)."""

from __future__ import annotations

import hmac
import math
from dataclasses import dataclass, field
from pathlib import Path

from masque.privacypass import window_context
from relay.settings import SettingsError, TokenSettings

__all__ = ["Context", "Contexts"]

_SECRET_SIZE = 32
_LONGEST_SECRET = 65_536


@dataclass(frozen=True, slots=True)
class Context:
    """One redemption context."""

    value: bytes = field(repr=False)
    "32 bytes, or none."
    expires: float
    "Until when its tokens are taken, in seconds since 1970."


class Contexts:
    """The contexts that the settings ask for."""

    def __init__(self, settings: TokenSettings) -> None:
        """Read the secret's file, if there is one.

        Raises:
            SettingsError: it cannot be read, or holds too little.
        """
        secret = _read_secret(settings.context_secret)
        self._secret = secret if settings.context == "rolling" else None
        self._window = settings.window.total_seconds()
        if settings.context_value is not None:
            self._fixed = bytes.fromhex(settings.context_value)
        else:
            self._fixed = hmac.digest(secret, b"fixed redemption context", "sha256") if secret is not None else b""

    def until(self, now: float) -> float:
        """Return when `current` will say something else."""
        return math.inf if self._secret is None else (now // self._window + 1) * self._window

    def current(self, now: float) -> tuple[Context, ...]:
        """Return the contexts of tokens that are taken now; challenges carry the first.

        Args:
            now: seconds since 1970.
        """
        if self._secret is None:
            return (Context(self._fixed, math.inf),)
        end = self.until(now) + self._window
        return (
            Context(window_context(self._secret, now, self._window), end),
            Context(window_context(self._secret, now - self._window, self._window), end - self._window),
        )


def _read_secret(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            secret = file.read(_LONGEST_SECRET)
    except OSError as error:
        raise SettingsError(f"tokens.context_secret: cannot read {path}: {error.strerror}") from None
    if len(secret) < _SECRET_SIZE:
        raise SettingsError(f"tokens.context_secret: {path} must hold at least {_SECRET_SIZE} random bytes")
    return secret
