"""Keys known to both sides: `Preshared <key>`, and the same keys as `Bearer <key>` (RFC 6750 §2.1).

The relay holds SHA-256 digests only. The keys are long and random, so a fast hash is enough; all digests are
compared, each in constant time, so that the time taken says nothing of which one was near.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from relay.hooks import AuthScheme, Principal
from relay.settings import parse_preshared_entry

__all__ = ["PresharedScheme"]

_TITLES = {AuthScheme.PRESHARED: "Preshared", AuthScheme.BEARER: "Bearer"}


class PresharedScheme:
    """Checks a key against the digests of the settings, under one of the two names."""

    def __init__(self, entries: Iterable[str], scheme: AuthScheme = AuthScheme.PRESHARED) -> None:
        """Read the entries.

        Args:
            entries: `sha256:<64 hex digits>` each.
            scheme: PRESHARED or BEARER.

        Raises:
            ValueError: an entry has another form.
            KeyError: the scheme is another one.
        """
        self._digests = tuple(parse_preshared_entry(entry) for entry in entries)
        self._scheme = scheme
        self._title = _TITLES[scheme]

    @property
    def name(self) -> str:
        """The scheme's name in lower case."""
        return self._scheme.value

    def challenge(self, realm: str) -> bytes:
        """Return the challenge (RFC 9110 §11.3)."""
        return f'{self._title} realm="{realm}"'.encode("ascii")

    async def verify(self, credentials: bytes) -> Principal | None:
        """Find the key's entry; its number is the principal's name, the same under both schemes."""
        digest = hashlib.sha256(credentials).digest()
        number = 0
        for index, known in enumerate(self._digests, start=1):
            if hmac.compare_digest(digest, known):
                number = index
        return Principal(f"preshared-{number}", self._scheme) if number else None
