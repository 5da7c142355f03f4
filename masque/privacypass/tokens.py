"""Token types and the Token structure (RFC 9577 §2.2.1, §6.2, RFC 9578 §8.2).

Both types that RFC 9578 registers use the default structure: type, nonce, digest of the challenge, id of the key,
authenticator. All but the last are what the authenticator is computed over, the token's input. The nonce is the
client's: a token is spent when its nonce is, so whoever admits tokens keeps nonces.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from masque.errors import LocalMisuse, Malformed
from masque.wire import Cursor

__all__ = [
    "DIGEST_SIZE",
    "GREASED_TYPES",
    "KEY_ID_SIZE",
    "MAX_TOKEN_SIZE",
    "NONCE_SIZE",
    "Token",
    "TokenType",
    "encode_token",
    "find_token_type",
    "parse_token",
    "token_input",
    "truncated_key_id",
]

NONCE_SIZE = 32
"Bytes of a token's nonce."
DIGEST_SIZE = 32
"Bytes of a challenge's digest, SHA-256."
KEY_ID_SIZE = 32
"Bytes of a key's id, Nid: 32 for both types (RFC 9578 §8.2)."

GREASED_TYPES = frozenset(
    {
        0x0000, 0x02AA, 0x1132, 0x2E96, 0x3CD3, 0x4473, 0x5A63, 0x6D32, 0x7F3F,
        0x8D07, 0x916B, 0xA6A4, 0xBEAB, 0xC3F3, 0xDA42, 0xE944, 0xF057,
    }
)  # fmt: skip
"Types that mean nothing, for challenges and tokens that keep others tolerant (RFC 9577 §6.2.1)."


class TokenType(IntEnum):
    """The registered token types (RFC 9578 §8.2)."""

    VOPRF_P384 = 0x0001
    "VOPRF (P-384, SHA-384): only who holds the issuer's private key can verify."
    BLIND_RSA_2048 = 0x0002
    "Blind RSA (2048-bit): whoever has the issuer's public key can verify."

    @property
    def authenticator_size(self) -> int:
        """Bytes of an authenticator, Nk (RFC 9578 §8.2)."""
        return 48 if self is TokenType.VOPRF_P384 else 256

    @property
    def token_size(self) -> int:
        """Bytes of a whole token."""
        return 2 + NONCE_SIZE + DIGEST_SIZE + KEY_ID_SIZE + self.authenticator_size


_TYPES = {token_type.value: token_type for token_type in TokenType}
MAX_TOKEN_SIZE = max(token_type.token_size for token_type in TokenType)
"Bytes of the longest token."


@dataclass(frozen=True, slots=True)
class Token:
    """A token, either read or about to be sent (RFC 9577 §2.2.1). Nothing says that it is a good one."""

    token_type: TokenType
    "What the other fields mean."
    nonce: bytes = field(repr=False)
    "32 random bytes of the client; two tokens with the same nonce are the same token."
    challenge_digest: bytes = field(repr=False)
    "SHA-256 of the challenge that the token answers."
    key_id: bytes = field(repr=False)
    "The id of the issuer's key."
    authenticator: bytes = field(repr=False)
    "The signature or the pseudorandom output, 256 or 48 bytes."

    @property
    def input(self) -> bytes:
        """What the authenticator is computed over (RFC 9577 §2.2.3)."""
        return token_input(self.token_type, self.nonce, self.challenge_digest, self.key_id)


def find_token_type(data: bytes) -> TokenType | None:
    """Read the type that a token, a challenge or a request begins with.

    Args:
        data: the structure, or what came of it.

    Returns:
        The type, or None when we do not know it: what follows then has a structure that we do not know either.

    Raises:
        Malformed: there are no two bytes (reach STREAM, code H3_MESSAGE_ERROR).
    """
    if len(data) < 2:
        raise Malformed("a structure that ends inside its token type")
    return _TYPES.get(int.from_bytes(data[:2], "big"))


def parse_token(data: bytes) -> Token:
    """Decode a token (RFC 9577 §2.2.1).

    Args:
        data: the whole token.

    Returns:
        Its fields, none of them checked.

    Raises:
        Malformed: a type that we do not know, or another size than the type's tokens have (reach STREAM, code
            H3_MESSAGE_ERROR). `find_token_type` tells the first apart.
    """
    token_type = find_token_type(data)
    if token_type is None:
        raise Malformed("a token of an unknown type")
    cursor = Cursor(data[2:])
    token = Token(
        token_type,
        nonce=cursor.pull_bytes(NONCE_SIZE),
        challenge_digest=cursor.pull_bytes(DIGEST_SIZE),
        key_id=cursor.pull_bytes(KEY_ID_SIZE),
        authenticator=cursor.pull_bytes(token_type.authenticator_size),
    )
    cursor.expect_end()
    return token


def encode_token(token: Token) -> bytes:
    """Encode a token (RFC 9577 §2.2.1).

    Args:
        token: with fields of the right sizes.

    Returns:
        354 or 146 bytes, by type.

    Raises:
        LocalMisuse: a field has another size.
    """
    if len(token.authenticator) != token.token_type.authenticator_size:
        raise LocalMisuse("an authenticator of a wrong size")
    return token.input + token.authenticator


def token_input(token_type: TokenType, nonce: bytes, challenge_digest: bytes, key_id: bytes) -> bytes:
    """Build what an authenticator is computed over, AuthenticatorInput (RFC 9577 §2.2.3).

    Args:
        token_type: of the token.
        nonce: 32 bytes.
        challenge_digest: 32 bytes.
        key_id: 32 bytes.

    Returns:
        98 bytes, which are also the beginning of the token.

    Raises:
        LocalMisuse: a field has another size.
    """
    if (len(nonce), len(challenge_digest), len(key_id)) != (NONCE_SIZE, DIGEST_SIZE, KEY_ID_SIZE):
        raise LocalMisuse("a token's field of a wrong size")
    return token_type.to_bytes(2, "big") + nonce + challenge_digest + key_id


def truncated_key_id(key_id: bytes) -> int:
    """Return what a TokenRequest says of a key: the last byte of its id (RFC 9578 §5.1, §6.1).

    Args:
        key_id: 32 bytes.

    Raises:
        LocalMisuse: the id has another size.
    """
    if len(key_id) != KEY_ID_SIZE:
        raise LocalMisuse("a key id of a wrong size")
    return key_id[-1]
