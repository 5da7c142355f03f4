"""Issuers' keys as files hold them: PEM (RFC 7468), or what a key is made of, plain or in a line of base64url.

A private key of type 2 is PKCS #8, as every tool writes it. One of type 1 is the seed that it is derived from
(RFC 9578 §5.5), since `masque.privacypass.voprf` takes nothing else; no standard has a PEM label for that, so it is
a line of base64url. A public key of type 2 is a SubjectPublicKeyInfo, one of type 1 the compressed point, in
base64url as challenges and directories carry it. Lines that begin with # say nothing.
"""

from __future__ import annotations

import base64
import binascii
import re

from masque.errors import LimitExceeded, LocalMisuse, Malformed
from masque.privacypass.base64url import encode_base64url, parse_base64url
from masque.privacypass.blind_rsa import parse_blind_rsa_private_key
from masque.privacypass.issuance import IssuerKey
from masque.privacypass.keys import (
    ELEMENT_SIZE,
    BlindRsaPublicKey,
    TokenKey,
    parse_blind_rsa_key,
    parse_voprf_key,
)
from masque.privacypass.voprf import SEED_SIZES, VoprfPrivateKey

__all__ = [
    "MAX_KEY_FILE_SIZE",
    "encode_public_key_file",
    "encode_seed_file",
    "parse_key_file",
    "parse_private_key_file",
    "parse_public_key_file",
]

MAX_KEY_FILE_SIZE = 16384
"The longest file that is looked at, in bytes."

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 #-]+)-----\s+([A-Za-z0-9+/=\s]*)-----END \1-----")
_PRIVATE = (b"PRIVATE KEY", b"RSA PRIVATE KEY")
_PUBLIC = b"PUBLIC KEY"
_LINE = 64
_TEXT = re.compile(rb"[\t\r\n\x20-\x7e]+")
_SEED_COMMENT = b"# the seed of an issuer's key for tokens of type 1; secret\n"


def parse_key_file(data: bytes) -> IssuerKey | TokenKey:
    """Read a key of an issuer, of either type, private or public.

    Args:
        data: the whole file.

    Returns:
        The key.

    Raises:
        Malformed: no such key, or one that its type refuses (reach STREAM, code H3_MESSAGE_ERROR).
        LimitExceeded: more bytes than are looked at (reach STREAM, code H3_EXCESSIVE_LOAD).
    """
    if len(data) > MAX_KEY_FILE_SIZE:
        raise LimitExceeded("a key file that is longer than we read")
    if b"-----BEGIN" not in data:
        return _parse_plain(data)
    found = _PEM.search(data)
    if found is None:
        raise Malformed("a PEM file that is cut off, or has a password")
    label = found[1]
    if label in _PRIVATE:
        return parse_blind_rsa_private_key(found[0])
    if label != _PUBLIC:
        raise Malformed("a PEM file that holds no issuer's key")
    return parse_blind_rsa_key(_decode(found[2]))


def parse_private_key_file(data: bytes) -> IssuerKey:
    """Read a private key: what an issuer signs with, and what verifies tokens of type 1.

    Args:
        data: the whole file.

    Returns:
        The key.

    Raises:
        Malformed: as `parse_key_file`, or the key is a public one (reach STREAM, code H3_MESSAGE_ERROR).
        LimitExceeded: as `parse_key_file`.
    """
    key = parse_key_file(data)
    if isinstance(key, TokenKey):
        raise Malformed("a public key where a private one is wanted")
    return key


def parse_public_key_file(data: bytes) -> TokenKey:
    """Read a public key: of a public file, or out of a private one.

    Args:
        data: the whole file.

    Returns:
        The key.

    Raises:
        Malformed: as `parse_key_file`.
        LimitExceeded: as `parse_key_file`.
    """
    key = parse_key_file(data)
    return key if isinstance(key, TokenKey) else key.public


def encode_public_key_file(key: TokenKey) -> bytes:
    """Write a public key: PEM for type 2, a line of base64url for type 1.

    Args:
        key: of either type.

    Returns:
        Text that `parse_key_file` reads; the encoding inside is the key's own, so that its id stays the same.
    """
    if isinstance(key, BlindRsaPublicKey):
        return _encode(_PUBLIC, key.encoded)
    return encode_base64url(key.encoded) + b"\n"


def encode_seed_file(seed: bytes) -> bytes:
    """Write the private key of type 1.

    Args:
        seed: 32 or 48 random bytes, the secret.

    Returns:
        Text that `parse_key_file` reads.

    Raises:
        LocalMisuse: a seed of another size.
    """
    if len(seed) not in SEED_SIZES:
        raise LocalMisuse("a seed of a wrong size")
    return _SEED_COMMENT + encode_base64url(seed) + b"\n"


def _parse_plain(data: bytes) -> IssuerKey | TokenKey:
    """Read a key that is no PEM: a seed or a public key's encoding, plain or in a line of base64url."""
    if _TEXT.fullmatch(data):
        lines = [line for line in map(bytes.strip, data.splitlines()) if line and not line.startswith(b"#")]
        if len(lines) != 1:
            raise Malformed("a key file without a key, or with several")
        data = parse_base64url(lines[0])
    if len(data) in SEED_SIZES:
        return VoprfPrivateKey(data)
    return parse_voprf_key(data) if len(data) == ELEMENT_SIZE else parse_blind_rsa_key(data)


def _decode(text: bytes) -> bytes:
    """Read what is between the lines of a PEM file."""
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        raise Malformed("a PEM file whose base64 does not decode") from None


def _encode(label: bytes, content: bytes) -> bytes:
    """Write a PEM file (RFC 7468 §3)."""
    text = base64.b64encode(content)
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return b"\n".join((b"-----BEGIN %b-----" % label, *lines, b"-----END %b-----" % label, b""))
