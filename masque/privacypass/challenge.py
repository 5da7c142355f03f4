"""What an origin asks for: the TokenChallenge structure and its digest (RFC 9577 §2.1.1).

A token answers one challenge, byte for byte: it carries the challenge's SHA-256. So the digest is always taken over
the bytes that were sent, and two lists of the same origins in another order are two challenges.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass

from masque.errors import LocalMisuse, Malformed
from masque.privacypass.tokens import TokenType
from masque.wire import Cursor

__all__ = [
    "CONTEXT_SIZE",
    "TokenChallenge",
    "challenge_digest",
    "encode_token_challenge",
    "parse_token_challenge",
    "window_context",
]

CONTEXT_SIZE = 32
"Bytes of a redemption context that is not empty (RFC 9577 §2.1.1)."

_LONGEST = 0xFFFF
_SERVER_NAME = re.compile(r"[A-Za-z0-9._~!$&'()*+;=:%\[\]-]+")
"The characters of an authority without userinfo, and without commas (RFC 9577 §2.1.1.1, RFC 3986 §3.2)."


@dataclass(frozen=True, slots=True)
class TokenChallenge:
    """The default challenge structure, which both types of RFC 9578 use (RFC 9577 §2.1.1)."""

    token_type: int
    "A number of `TokenType`, or one that we do not know: a client ignores that challenge."
    issuer_name: str
    "Who may issue the token: a host, with a port when it is not 443."
    redemption_context: bytes = b""
    "Empty, or 32 bytes that bind the token to what the origin chose."
    origin_info: tuple[str, ...] = ()
    "The origins that the token is for; empty means any."

    @property
    def known_type(self) -> TokenType | None:
        """The token type, or None when we do not know it."""
        return next((known for known in TokenType if known == self.token_type), None)

    @property
    def digest(self) -> bytes:
        """What a token for this challenge carries.

        Raises:
            LocalMisuse: as `encode_token_challenge`.
        """
        return challenge_digest(encode_token_challenge(self))

    def admits(self, origin: str) -> bool:
        """Tell whether an origin may send this challenge (RFC 9577 §2.1.3). A client must check that.

        Args:
            origin: the name of who sent it: a host, with a port when it is not 443.

        Returns:
            True when no origins are listed, or when this one is, in whatever case.
        """
        return not self.origin_info or origin.lower() in (name.lower() for name in self.origin_info)


def parse_token_challenge(data: bytes) -> TokenChallenge:
    """Decode a challenge (RFC 9577 §2.1.1).

    Args:
        data: the whole structure. One with a type that we do not know may have another structure: `Malformed`
            then means no more than that.

    Returns:
        Its fields. Encoded again they are the same bytes.

    Raises:
        Malformed: cut off or too long, a name that is no server name, or a redemption context that has neither
            0 nor 32 bytes (reach STREAM, code H3_MESSAGE_ERROR).
    """
    cursor = Cursor(data)
    token_type = int.from_bytes(cursor.pull_bytes(2), "big")
    issuer_name = _parse_name(cursor.pull_bytes(int.from_bytes(cursor.pull_bytes(2), "big")))
    context = cursor.pull_bytes(cursor.pull_uint8())
    if len(context) not in (0, CONTEXT_SIZE):
        raise Malformed("a redemption context of an impossible size")
    origins = cursor.pull_bytes(int.from_bytes(cursor.pull_bytes(2), "big"))
    cursor.expect_end()
    names = tuple(_parse_name(name) for name in origins.split(b",")) if origins else ()
    return TokenChallenge(token_type, issuer_name, context, names)


def encode_token_challenge(challenge: TokenChallenge) -> bytes:
    """Encode a challenge (RFC 9577 §2.1.1).

    Args:
        challenge: what to ask for.

    Returns:
        The structure.

    Raises:
        LocalMisuse: a type that is no 16-bit number, a name that is no server name, more than 65535 bytes of them,
            or a redemption context that has neither 0 nor 32 bytes.
    """
    if not 0 <= challenge.token_type <= _LONGEST:
        raise LocalMisuse("a token type that is no 16-bit number")
    if len(challenge.redemption_context) not in (0, CONTEXT_SIZE):
        raise LocalMisuse("a redemption context of an impossible size")
    if not all(_SERVER_NAME.fullmatch(name) for name in (challenge.issuer_name, *challenge.origin_info)):
        raise LocalMisuse("a name that is no server name")
    issuer, origins = challenge.issuer_name.encode("ascii"), ",".join(challenge.origin_info).encode("ascii")
    if len(issuer) > _LONGEST or len(origins) > _LONGEST:
        raise LocalMisuse("names that are too long for a challenge")
    return b"".join(
        (
            challenge.token_type.to_bytes(2, "big"),
            len(issuer).to_bytes(2, "big"),
            issuer,
            len(challenge.redemption_context).to_bytes(1, "big"),
            challenge.redemption_context,
            len(origins).to_bytes(2, "big"),
            origins,
        )
    )


def challenge_digest(data: bytes) -> bytes:
    """Return the digest of an encoded challenge, SHA-256 (RFC 9577 §2.2.1).

    Args:
        data: the bytes that were sent, whatever their structure.
    """
    return hashlib.sha256(data).digest()


def window_context(secret: bytes, now: float, window: float) -> bytes:
    """Return the redemption context of a time window (RFC 9577 §2.1.1.2).

    All who share the secret, the clock and the window's length get the same context, and the next one says nothing
    of this one. Who still accepts tokens of the window before asks again with `now - window`. Windows of another
    length have other contexts, whatever their numbers: when it changes, no token that was forgotten is taken again.

    Args:
        secret: of 32 random bytes, say; the key of the pseudorandom function.
        now: seconds of a clock that the sharers have in common, not before its beginning.
        window: how long a window is, in seconds; the millisecond counts.

    Returns:
        32 bytes: HMAC-SHA-256 of the window's length in milliseconds and its number, each in 8 bytes.

    Raises:
        LocalMisuse: a window of no length, a time before the clock's beginning, or either without a number.
    """
    try:
        number = round(window * 1000).to_bytes(8, "big") + int(now // window).to_bytes(8, "big")
    except (ArithmeticError, ValueError):
        raise LocalMisuse("a time window that has no number") from None
    return hmac.digest(secret, b"redemption context" + number, "sha256")


def _parse_name(data: bytes) -> str:
    """Read a server name (RFC 9577 §2.1.1.1)."""
    name = data.decode("latin-1")
    if not _SERVER_NAME.fullmatch(name):
        raise Malformed("a name in a challenge that is no server name")
    return name
