"""What goes wrong between a client and its issuer."""

from __future__ import annotations

__all__ = ["IssuanceError"]


class IssuanceError(Exception):
    """No token: the issuer cannot be reached, refuses, or answers nonsense. The text is one readable line.

    It names neither a token nor a credential.
    """
