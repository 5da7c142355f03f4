"""What an authentication scheme is (RFC 9110 §11): a name, a challenge, and a check."""

from __future__ import annotations

from typing import Protocol

from relay.hooks import Principal

__all__ = ["Scheme"]


class Scheme(Protocol):
    """One way to prove who one is. An implementation keeps no credentials, only what they are checked by."""

    @property
    def name(self) -> str:
        """The scheme's name in lower case, as it is compared (RFC 9110 §11.1)."""
        ...

    def challenge(self, realm: str) -> bytes:
        """Return the `Proxy-Authenticate` value that asks for this scheme (RFC 9110 §11.3)."""
        ...

    async def verify(self, credentials: bytes) -> Principal | None:
        """Check what follows the scheme's name in the field.

        Args:
            credentials: from the peer, bounded in size, printable ASCII, otherwise unchecked.

        Returns:
            Who it is, or None when the credentials are not good, for whatever reason.

        Raises:
            RelayError: the check could not be made now.
        """
        ...
