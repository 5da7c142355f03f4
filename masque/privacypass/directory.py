"""What an issuer says of itself: where to ask, and with which keys (RFC 9578 §4).

The document is JSON. Unknown members are ignored, and so are keys of unknown types until someone asks for them by
type. Keys are in the issuer's order of preference. Time is an argument: `now` is seconds since 1970, as not-before
counts them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import NoReturn, TypeGuard

from masque.errors import LimitExceeded, LocalMisuse, Malformed
from masque.privacypass.base64url import encode_base64url, parse_base64url
from masque.privacypass.keys import TokenKey, parse_token_key
from masque.privacypass.tokens import TokenType

__all__ = [
    "DIRECTORY_MEDIA_TYPE",
    "DIRECTORY_PATH",
    "MAX_DIRECTORY_KEYS",
    "MAX_DIRECTORY_SIZE",
    "DirectoryKey",
    "IssuerDirectory",
    "encode_directory",
    "parse_directory",
]

DIRECTORY_PATH = "/.well-known/private-token-issuer-directory"
"Where an issuer's directory is (RFC 9578 §8.1)."
DIRECTORY_MEDIA_TYPE = b"application/private-token-issuer-directory"
"The content type of a directory (RFC 9578 §8.3.1)."
MAX_DIRECTORY_SIZE = 65536
"The longest document that is read, in bytes."
MAX_DIRECTORY_KEYS = 64
"The most keys that are read."

_MAX_URI = 2048
_MAX_TYPE = 0xFFFF
_MAX_TIME = 2**53
"The largest integer that every JSON reader takes exactly."


@dataclass(frozen=True, slots=True)
class DirectoryKey:
    """One entry of token-keys (RFC 9578 §4)."""

    token_type: int
    "A number of `TokenType`, or one that we do not know."
    token_key: bytes = field(repr=False)
    "The key, encoded as its type has it; not looked at yet."
    not_before: int | None = None
    "From when on the key can be used; None means at once."

    def is_usable(self, now: float) -> bool:
        """Tell whether the key's time has come."""
        return self.not_before is None or self.not_before <= now


@dataclass(frozen=True, slots=True)
class IssuerDirectory:
    """An issuer's configuration (RFC 9578 §4)."""

    request_uri: str
    "Where token requests go: a URL, absolute or relative to the directory's."
    keys: tuple[DirectoryKey, ...]
    "The keys, the most preferred first."

    def load_keys(self, token_type: TokenType) -> list[TokenKey]:
        """Read all keys of a type: what an origin tries, whether their time has come or not (RFC 9578 §4).

        Returns:
            The keys, the most preferred first.

        Raises:
            Malformed: one of them is no key of its type (reach STREAM, code H3_MESSAGE_ERROR).
        """
        return [parse_token_key(token_type, key.token_key) for key in self.keys if key.token_type == token_type]

    def choose_key(self, token_type: TokenType, now: float) -> TokenKey | None:
        """Read the key that a client uses now: the first whose time has come (RFC 9578 §4).

        Args:
            token_type: of the challenge.
            now: seconds since 1970.

        Returns:
            The key, or None when there is none of this type yet.

        Raises:
            Malformed: it is no key of its type (reach STREAM, code H3_MESSAGE_ERROR).
        """
        for key in self.keys:
            if key.token_type == token_type and key.is_usable(now):
                return parse_token_key(token_type, key.token_key)
        return None


def parse_directory(data: bytes) -> IssuerDirectory:
    """Decode a directory (RFC 9578 §4).

    Args:
        data: the whole document.

    Returns:
        What it says. Whether the URL leads somewhere and the keys are keys is not known yet.

    Raises:
        Malformed: no JSON in UTF-8, no object, or a member that is missing or of another form (reach STREAM, code
            H3_MESSAGE_ERROR).
        LimitExceeded: more bytes, more keys or a longer URL than are read (reach STREAM, code H3_EXCESSIVE_LOAD).
    """
    if len(data) > MAX_DIRECTORY_SIZE:
        raise LimitExceeded("a directory that is longer than we read")
    try:
        document = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Malformed("a directory that is no JSON") from None
    if not isinstance(document, dict):
        raise Malformed("a directory that is no object")
    uri, entries = document.get("issuer-request-uri"), document.get("token-keys")
    if not isinstance(uri, str) or not _is_uri(uri) or not isinstance(entries, list):
        raise Malformed("a directory without its URL or its keys")
    if len(uri) > _MAX_URI or len(entries) > MAX_DIRECTORY_KEYS:
        raise LimitExceeded("a directory with a longer URL or more keys than we read")
    return IssuerDirectory(uri, tuple(_read_key(entry) for entry in entries))


def encode_directory(directory: IssuerDirectory) -> bytes:
    """Encode a directory (RFC 9578 §4).

    Args:
        directory: what the issuer says.

    Returns:
        The document, which `parse_directory` reads.

    Raises:
        LocalMisuse: a URL, a type or a time that a reader would not take, or more of them than one reads.
    """
    if not _is_uri(directory.request_uri) or len(directory.request_uri) > _MAX_URI:
        raise LocalMisuse("a directory with a URL that is none")
    if len(directory.keys) > MAX_DIRECTORY_KEYS:
        raise LocalMisuse("a directory with too many keys")
    entries = [_encode_key(key) for key in directory.keys]
    document = json.dumps({"issuer-request-uri": directory.request_uri, "token-keys": entries}).encode("ascii")
    if len(document) > MAX_DIRECTORY_SIZE:
        raise LocalMisuse("a directory that is too long")
    return document


def _read_key(entry: object) -> DirectoryKey:
    """Read one entry."""
    if not isinstance(entry, dict):
        raise Malformed("a directory's key that is no object")
    token_type, token_key = entry.get("token-type"), entry.get("token-key")
    not_before = entry.get("not-before")
    if not _is_count(token_type, _MAX_TYPE) or not isinstance(token_key, str):
        raise Malformed("a directory's key without its type or value")
    if not (not_before is None or _is_count(not_before, _MAX_TIME)):
        raise Malformed("a directory's key with a time that is none")
    try:
        encoded = token_key.encode("ascii")
    except UnicodeEncodeError:
        raise Malformed("a directory's key that is no base64url") from None
    return DirectoryKey(token_type, parse_base64url(encoded), not_before)


def _encode_key(key: DirectoryKey) -> dict[str, str | int]:
    """Make one entry."""
    if not _is_count(key.token_type, _MAX_TYPE):
        raise LocalMisuse("a directory's key with a type that is none")
    if not (key.not_before is None or _is_count(key.not_before, _MAX_TIME)):
        raise LocalMisuse("a directory's key with a time that is none")
    entry: dict[str, str | int] = {
        "token-type": int(key.token_type),
        "token-key": encode_base64url(key.token_key).decode("ascii"),
    }
    return entry if key.not_before is None else entry | {"not-before": key.not_before}


def _refuse_constant(name: str) -> NoReturn:
    """Refuse what Python reads and JSON does not have: NaN and the infinities."""
    raise ValueError(name)


def _is_count(value: object, largest: int) -> TypeGuard[int]:
    """Tell whether a value is an integer in range; a Boolean is none."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest


def _is_uri(value: str) -> bool:
    """Tell whether a text may be a percent-encoded URL: printable ASCII without spaces."""
    return value.isascii() and value.isprintable() and " " not in value and value != ""
