"""Key files of an issuer: made so that the private one is nobody else's, and read within bounds."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from masque.errors import LimitExceeded, Malformed
from masque.privacypass import (
    MAX_KEY_FILE_SIZE,
    MODULUS_BITS,
    IssuerKey,
    TokenKey,
    TokenType,
    encode_public_key_file,
    encode_seed_file,
    parse_private_key_file,
)

__all__ = ["KeyFileError", "make_key_files", "read_key_file"]

_SEED_SIZE = 48
_EXPONENT = 65537


class KeyFileError(Exception):
    """A key file cannot be read or written. The text is one line with the path and no key."""


def make_key_files(token_type: TokenType, private: Path, public: Path) -> TokenKey:
    """Make a key and write it; nothing that exists is overwritten.

    Args:
        token_type: what the key is for.
        private: the private key's file, readable by its owner only.
        public: the public key's file.

    Returns:
        The public key.

    Raises:
        KeyFileError: one of the files exists or cannot be written; then neither is left behind.
    """
    text = _draw_key(token_type)
    key = parse_private_key_file(text).public
    _write_new(private, text, 0o600)
    try:
        _write_new(public, encode_public_key_file(key), 0o644)
    except KeyFileError:
        private.unlink()
        raise
    return key


def read_key_file(path: Path) -> IssuerKey:
    """Read an issuer's private key.

    Args:
        path: a file that `make_key_files` wrote, or PKCS #8 of another tool.

    Raises:
        KeyFileError: it cannot be read or holds no such key.
    """
    try:
        with path.open("rb") as file:
            return parse_private_key_file(file.read(MAX_KEY_FILE_SIZE + 1))
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    except (Malformed, LimitExceeded) as error:
        raise KeyFileError(f"{path}: {error.detail}") from None


def _draw_key(token_type: TokenType) -> bytes:
    """Make a private key's file of fresh random numbers."""
    if token_type is TokenType.VOPRF_P384:
        return encode_seed_file(secrets.token_bytes(_SEED_SIZE))
    key = rsa.generate_private_key(_EXPONENT, MODULUS_BITS)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not exist yet."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise KeyFileError(f"{path} exists; keys are not overwritten") from None
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
