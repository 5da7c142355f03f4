"""What a development issuer answers: its directory, and tokens to whoever asks (RFC 9578 §4, §5, §6).

Pure: a request in, an answer out. Nobody attests anything here: a client that reaches this issuer gets tokens, or
one that knows the preshared key, where there is one. That, and the signer (`masque.privacypass.blind_rsa`), is why
it is for development.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from masque.errors import RequestRejected
from masque.privacypass import (
    DIRECTORY_MEDIA_TYPE,
    DIRECTORY_PATH,
    ENTROPY_SIZE,
    REQUEST_MEDIA_TYPE,
    RESPONSE_MEDIA_TYPE,
    DirectoryKey,
    IssuerDirectory,
    IssuerKey,
    TokenType,
    encode_directory,
    issue,
    request_size,
)
from relay.settings import parse_preshared_entry

__all__ = ["MAX_REQUEST_SIZE", "REQUEST_PATH", "Answer", "DevelopmentIssuer", "Request"]

REQUEST_PATH = "/token-request"
"Where this issuer takes requests; its directory says so."
MAX_REQUEST_SIZE = max(request_size(token_type) for token_type in TokenType)
"Bytes of the longest request that can be a good one."

_DIRECTORY_SECONDS = 60
_TEXT = b"text/plain"


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose content is here."""

    method: bytes
    "In capitals, as it came."
    path: bytes
    "Path and query."
    media_type: bytes = b""
    "Content-Type without parameters, in lower case."
    authorization: bytes = field(default=b"", repr=False)
    "The Authorization field, or nothing."
    content: bytes = field(default=b"", repr=False)
    "No more than `MAX_REQUEST_SIZE` and one byte of it are looked at."


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client gets."""

    status: int
    "The HTTP status."
    content: bytes = field(default=b"", repr=False)
    "The content."
    media_type: bytes = _TEXT
    "Of the content."
    fields: tuple[tuple[bytes, bytes], ...] = ()
    "More field lines."


class DevelopmentIssuer:
    """An issuer without an attester."""

    def __init__(self, keys: Sequence[IssuerKey], preshared: str | None = None) -> None:
        """Make the directory.

        Args:
            keys: the most preferred of each type first.
            preshared: an entry as `auth.preshared` has them; None gives tokens to everybody.

        Raises:
            LocalMisuse: more keys than a directory has.
            ValueError: the entry has another form.
        """
        self._keys = tuple(keys)
        self._digest = None if preshared is None else parse_preshared_entry(preshared)
        listed = tuple(DirectoryKey(key.public.token_type, key.public.encoded) for key in self._keys)
        self._directory = encode_directory(IssuerDirectory(REQUEST_PATH, listed))

    def answer(self, request: Request) -> Answer:
        """Answer a request.

        Args:
            request: any.

        Returns:
            200 with a directory or a token response; else 401, 404, 405, 413, 415, or 422 for a request that asks
            for what this issuer does not have (RFC 9578 §5.2, §6.2).
        """
        path = request.path.partition(b"?")[0].decode("latin-1")
        if path == DIRECTORY_PATH:
            return self._answer_directory(request)
        if path != REQUEST_PATH:
            return Answer(404)
        if request.method != b"POST":
            return Answer(405, fields=((b"allow", b"POST"),))
        if self._digest is not None and not _knows_key(request.authorization, self._digest):
            return Answer(401, fields=((b"www-authenticate", b'Preshared realm="issuer"'),))
        if request.media_type != REQUEST_MEDIA_TYPE:
            return Answer(415, fields=((b"accept", REQUEST_MEDIA_TYPE),))
        if len(request.content) > MAX_REQUEST_SIZE:
            return Answer(413)
        try:
            response = issue(request.content, self._keys, secrets.token_bytes(ENTROPY_SIZE))
        except RequestRejected as error:
            return Answer(error.status)
        return Answer(200, response, RESPONSE_MEDIA_TYPE, ((b"cache-control", b"no-store"),))

    def _answer_directory(self, request: Request) -> Answer:
        """Show the keys."""
        if request.method not in (b"GET", b"HEAD"):
            return Answer(405, fields=((b"allow", b"GET, HEAD"),))
        kept = b"max-age=%d" % _DIRECTORY_SECONDS
        return Answer(200, self._directory, DIRECTORY_MEDIA_TYPE, ((b"cache-control", kept),))


def _knows_key(authorization: bytes, digest: bytes) -> bool:
    """Check `Preshared <key>` in constant time."""
    scheme, _, key = authorization.partition(b" ")
    return scheme.lower() == b"preshared" and hmac.compare_digest(hashlib.sha256(key.strip()).digest(), digest)
