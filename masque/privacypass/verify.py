"""An origin's check of a token, in the order of its cost (RFC 9577 §2.2.3, RFC 9578 §5.4, §6.4).

First what the token says: its form, the challenge that it answers, the key that it names. That costs little, and
after it an origin looks whether the nonce was spent. Then the authenticator, which takes 20 microseconds or a
millisecond. What is accepted is a table: challenges by digest, and for each the keys of its issuer by id, so that no
issuer's key makes tokens for the challenge of another. Spending the nonce is the caller's: the check has no memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Protocol

from masque.errors import Malformed
from masque.privacypass.tokens import Token, TokenType, find_token_type, parse_token

__all__ = ["AcceptedChallenges", "Refusal", "VerifyingKey", "read_token", "select_key", "verify_token"]


class Refusal(Enum):
    """Why a token is not good."""

    MALFORMED = "malformed"
    "It has not the structure of its type."
    UNKNOWN_TYPE = "unknown-type"
    "We do not know its type; it may be a greased one."
    WRONG_CHALLENGE = "wrong-challenge"
    "It answers no challenge that is accepted now: another origin's, or one whose time is over."
    UNKNOWN_KEY = "unknown-key"
    "It names a key that the challenge's issuer does not have, or has no more."
    WRONG_TYPE = "wrong-type"
    "It is of another type than the key that it names."
    BAD_AUTHENTICATOR = "bad-authenticator"
    "The key did not make it."


class VerifyingKey(Protocol):
    """What verifies tokens: `BlindRsaPublicKey`, or `VoprfPrivateKey`."""

    @property
    def token_type(self) -> TokenType:
        """The type of the tokens that the key is for."""
        ...

    @property
    def key_id(self) -> bytes:
        """The id by which tokens name the key."""
        ...

    def verify(self, token_input: bytes, authenticator: bytes) -> bool:
        """Check an authenticator.

        Args:
            token_input: `Token.input`.
            authenticator: `Token.authenticator`.

        Returns:
            True when the key's owner made it.
        """
        ...


AcceptedChallenges = Mapping[bytes, Mapping[bytes, VerifyingKey]]
"For each challenge's digest, its issuer's keys by id."


def read_token(data: bytes) -> Token | Refusal:
    """Decode a token that a client offers.

    Args:
        data: from `parse_credentials`.

    Returns:
        The token, or MALFORMED or UNKNOWN_TYPE.
    """
    try:
        return Refusal.UNKNOWN_TYPE if find_token_type(data) is None else parse_token(data)
    except Malformed:
        return Refusal.MALFORMED


def select_key(token: Token, accepted: AcceptedChallenges) -> VerifyingKey | Refusal:
    """Find the key that must have made a token; after it, look whether the nonce was spent.

    Args:
        token: what the client offers.
        accepted: challenges and keys.

    Returns:
        The key, or WRONG_CHALLENGE, UNKNOWN_KEY or WRONG_TYPE.
    """
    keys = accepted.get(token.challenge_digest)
    if keys is None:
        return Refusal.WRONG_CHALLENGE
    key = keys.get(token.key_id)
    if key is None:
        return Refusal.UNKNOWN_KEY
    return key if key.token_type is token.token_type else Refusal.WRONG_TYPE


def verify_token(token: Token, accepted: AcceptedChallenges) -> Refusal | None:
    """Check a token; what it costs, its key's `verify` costs.

    Args:
        token: what the client offers.
        accepted: challenges and keys.

    Returns:
        None when it is good, if it was not spent before; else what is wrong with it.
    """
    key = select_key(token, accepted)
    if isinstance(key, Refusal):
        return key
    return None if key.verify(token.input, token.authenticator) else Refusal.BAD_AUTHENTICATOR
