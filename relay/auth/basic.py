"""User name and password (RFC 7617), checked with scrypt (RFC 7914).

scrypt is slow on purpose, so it runs in a thread, few at a time, and only so many may wait. What was good last is
remembered under a keyed hash, or every tunnel would pay again. An unknown user costs as much time as a wrong
password.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Iterable

import anyio
import anyio.to_thread

from relay.errors import Failure, FailureKind, RelayError, Side
from relay.hooks import AuthScheme, Principal
from relay.settings import BasicEntry, ScryptCost, parse_basic_entry

__all__ = ["BasicScheme", "scrypt_digest"]

_DIGEST_SIZE = 32
_REMEMBERED = 1024
_AT_ONCE = 2
_WAITING = 64


def scrypt_digest(password: bytes, salt: bytes, cost: ScryptCost) -> bytes:
    """Return scrypt of a password (RFC 7914 §2), 32 bytes. Slow: never call it on the loop's thread.

    Raises:
        ValueError: the cost is not a possible one.
    """
    return hashlib.scrypt(
        password, salt=salt, n=cost.n, r=cost.r, p=cost.p, maxmem=cost.memory + 2**20, dklen=_DIGEST_SIZE
    )


class BasicScheme:
    """Checks user names and passwords against the entries of the settings."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Read the entries.

        Args:
            entries: `user:scrypt:n,r,p:salt:hash` each.

        Raises:
            ValueError: an entry has another form.
        """
        parsed = [parse_basic_entry(entry) for entry in entries]
        self._entries = {entry.user.encode(): (number, entry) for number, entry in enumerate(parsed, start=1)}
        cost = parsed[0].cost if parsed else ScryptCost()
        self._nobody = BasicEntry("", cost, secrets.token_bytes(16), secrets.token_bytes(_DIGEST_SIZE))
        self._key = secrets.token_bytes(32)
        self._good: OrderedDict[bytes, Principal] = OrderedDict()
        self._limiter = anyio.CapacityLimiter(_AT_ONCE)
        self._pending = 0

    @property
    def name(self) -> str:
        """The scheme's name in lower case."""
        return AuthScheme.BASIC.value

    def challenge(self, realm: str) -> bytes:
        """Return the challenge; it asks for UTF-8 (RFC 7617 §2.1)."""
        return f'Basic realm="{realm}", charset="UTF-8"'.encode("ascii")

    async def verify(self, credentials: bytes) -> Principal | None:
        """Check base64 of `user:password`. The principal's name is the entry's number, not the user's name.

        Raises:
            RelayError: RATE_LIMITED when too many checks wait already.
        """
        try:
            user, colon, password = base64.b64decode(credentials, validate=True).partition(b":")
        except binascii.Error:
            return None
        if not colon:
            return None
        mark = hmac.digest(self._key, credentials, "sha256")
        known = self._good.get(mark)
        if known is not None:
            self._good.move_to_end(mark)
            return known
        number, entry = self._entries.get(user, (0, self._nobody))
        digest = await self._digest(password, entry)
        if not hmac.compare_digest(digest, entry.digest) or not number:
            return None
        return self._remember(mark, Principal(f"basic-{number}", AuthScheme.BASIC))

    async def _digest(self, password: bytes, entry: BasicEntry) -> bytes:
        if self._pending >= _AT_ONCE + _WAITING:
            raise RelayError(Failure(FailureKind.RATE_LIMITED, Side.RELAY, context="password checks"))
        self._pending += 1
        try:
            return await anyio.to_thread.run_sync(
                scrypt_digest, password, entry.salt, entry.cost, limiter=self._limiter
            )
        finally:
            self._pending -= 1

    def _remember(self, mark: bytes, principal: Principal) -> Principal:
        self._good[mark] = principal
        if len(self._good) > _REMEMBERED:
            self._good.popitem(last=False)
        return principal
