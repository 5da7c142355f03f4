"""Files with an issuer's keys: what a relay verifies tokens by.

For type 2 these are public keys: a SubjectPublicKeyInfo in DER, or any number of them in PEM (`PUBLIC KEY`). For type
1 it is the issuer's own seed (RFC 9578 §5.5), 32 or 48 bytes, since nothing else verifies such tokens. Either may
also stand in a line of text of its own, in base64url as directories have keys; lines that begin with # say nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from pathlib import Path

from masque.errors import MasqueError
from masque.privacypass import (
    ELEMENT_SIZE,
    SEED_SIZES,
    BlindRsaPublicKey,
    TokenType,
    VoprfPrivateKey,
    parse_base64url,
    parse_blind_rsa_key,
)

__all__ = ["OriginKey", "SeedKey", "parse_key_file", "read_key_file"]

_MAX_FILE = 65_536
_MAX_KEYS = 64
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 -]{1,64})-----\s+([A-Za-z0-9+/=\s]*)-----END \1-----")
_TEXT = re.compile(rb"[\t\r\n\x20-\x7e]+")


@dataclass(frozen=True, slots=True)
class SeedKey:
    """A key of type 1, and the seed that another process makes it of."""

    seed: bytes = field(repr=False)
    "The secret."
    private: VoprfPrivateKey = field(repr=False)
    "The key that the seed makes."

    @property
    def token_type(self) -> TokenType:
        """The type of the tokens that the key is for."""
        return TokenType.VOPRF_P384

    @property
    def key_id(self) -> bytes:
        """The id by which tokens name the key."""
        return self.private.key_id

    @property
    def encoded(self) -> bytes:
        """The public key, as challenges carry it."""
        return self.private.public.encoded

    def verify(self, token_input: bytes, authenticator: bytes) -> bool:
        """Check an authenticator here, within the interpreter's lock; see `VerifyingKey`."""
        return self.private.verify(token_input, authenticator)


OriginKey = BlindRsaPublicKey | SeedKey
"A key that verifies tokens."


def read_key_file(path: Path) -> list[OriginKey]:
    """Read the keys of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: as `parse_key_file`.
    """
    with path.open("rb") as file:
        return parse_key_file(file.read(_MAX_FILE + 1))


def parse_key_file(data: bytes) -> list[OriginKey]:
    """Find the keys in a file's content.

    Args:
        data: the whole file.

    Returns:
        The keys in the file's order, at least one.

    Raises:
        ValueError: it holds none, or something else than keys. The text follows "the file" and quotes nothing.
    """
    if len(data) > _MAX_FILE:
        raise ValueError(f"is longer than {_MAX_FILE} bytes")
    if b"-----BEGIN " in data:
        encoded = _from_pem(data)
    elif _TEXT.fullmatch(data):
        encoded = _from_lines(data)
    else:
        encoded = [data]
    if not encoded:
        raise ValueError("holds no key")
    if len(encoded) > _MAX_KEYS:
        raise ValueError(f"holds more than {_MAX_KEYS} keys")
    return [_parse_key(key) for key in encoded]


def _from_pem(data: bytes) -> list[bytes]:
    """Decode the blocks of a PEM file (RFC 7468 §13)."""
    found: list[bytes] = []
    for label, body in _PEM.findall(data):
        if label != b"PUBLIC KEY":
            raise ValueError("holds a PEM block that is no PUBLIC KEY")
        try:
            found.append(base64.b64decode(b"".join(body.split()), validate=True))
        except binascii.Error:
            raise ValueError("holds a PEM block that is no base64") from None
    return found


def _from_lines(data: bytes) -> list[bytes]:
    """Decode the lines of a text file."""
    lines = (line.strip() for line in data.splitlines())
    try:
        return [parse_base64url(line) for line in lines if line and not line.startswith(b"#")]
    except MasqueError:
        raise ValueError("holds a line that is no base64url") from None


def _parse_key(encoded: bytes) -> OriginKey:
    if len(encoded) in SEED_SIZES:
        return SeedKey(encoded, VoprfPrivateKey(encoded))
    if len(encoded) == ELEMENT_SIZE:
        raise ValueError("holds a public key of type 1, which verifies no token: the issuer's seed is needed")
    try:
        return parse_blind_rsa_key(encoded)
    except MasqueError as error:
        raise ValueError(f"holds {error.detail}") from None
