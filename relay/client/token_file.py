"""A file of tokens, each handed out once: one token a line, in base64url.

Several processes can share a file. Who takes a token has the file's lock, writes `#` over the token's line and waits
until that is on the disk; then the token is theirs. A crash before loses nothing, a crash after loses one token, and
whatever part of the line was written, what is left is no token. A line that begins with `#` is a comment, so a token
that was taken is one, without a trace of it. Once no token is left, the file is emptied.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from masque.errors import Malformed
from masque.privacypass import encode_base64url, parse_base64url, parse_token
from relay.client.failure import ClientError

__all__ = ["MAX_TOKEN_FILE", "TokenFile"]

MAX_TOKEN_FILE = 64 << 20
"The largest file that is read, in bytes: some 140,000 tokens of type 2."

_LINE = re.compile(rb"^[A-Za-z0-9_-]{88,512}={0,2}(?=[ \t\r]*$)", re.MULTILINE)
_SIGNIFICANT = re.compile(rb"[^#\s]")
_HEAD = 88
"Characters that hold a token's type, nonce and digest, 66 bytes: no two tokens are alike in them."
_DIGEST = slice(34, 66)


class TokenFile:
    """The file. It need not exist yet; each method opens it anew and may wait for the lock and the disk."""

    def __init__(self, path: Path) -> None:
        """Name the file; nothing is opened yet."""
        self.path = path
        "Where it is."

    def take(self, digests: Sequence[bytes]) -> bytes | None:
        """Take a token out of the file.

        Args:
            digests: of the challenges that it may answer, the most preferred first.

        Returns:
            The token, which nobody else gets, or None when there is none for these challenges.

        Raises:
            ClientError: the file cannot be read or written, is no regular file, or is too large.
        """
        with self._locked(os.O_RDWR) as file:
            data = self._read(file)
            found = _find(data, digests)
            if found is None:
                return None
            line, token = found
            for start in _occurrences(data, line[:_HEAD]):
                size = len(_whole(data, start))
                os.pwrite(file, b"#" * size, start)
                data = data[:start] + b"#" * size + data[start + size :]
            if _SIGNIFICANT.search(data) is None:
                os.ftruncate(file, 0)
            os.fdatasync(file)
            return token

    def append(self, tokens: Iterable[bytes]) -> None:
        """Put tokens into the file; one that does not exist is made, readable by its owner only.

        Args:
            tokens: their structures.

        Raises:
            ClientError: the file cannot be written, is no regular file, or would be too large.
        """
        lines = b"".join(encode_base64url(token) + b"\n" for token in tokens)
        with self._locked(os.O_RDWR | os.O_CREAT) as file:
            size = os.fstat(file).st_size
            if size + len(lines) >= MAX_TOKEN_FILE:
                raise ClientError(f"{self.path} would be larger than is read")
            if size and os.pread(file, 1, size - 1) != b"\n":
                lines = b"\n" + lines  # what a crash has cut off, or an editor left open, stays a line of its own
            written = 0
            while written < len(lines):
                written += os.pwrite(file, lines[written:], size + written)
            os.fsync(file)

    def count(self) -> dict[bytes, int]:
        """Count the tokens for each challenge.

        Returns:
            Numbers by the challenge's digest.

        Raises:
            ClientError: as `take`.
        """
        counts: dict[bytes, int] = {}
        with self._locked(os.O_RDONLY) as file:
            for line in {found[0][:_HEAD]: found[0] for found in _LINE.finditer(self._read(file))}.values():
                if _parse(line) is not None:
                    digest = _digest(line)
                    counts[digest] = counts.get(digest, 0) + 1
        return counts

    @contextlib.contextmanager
    def _locked(self, flags: int) -> Iterator[int]:
        """Have the file, and alone where it is written."""
        try:
            file = os.open(self.path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise ClientError(f"{self.path} is no regular file")
                fcntl.flock(file, fcntl.LOCK_SH if flags == os.O_RDONLY else fcntl.LOCK_EX)
                yield file
            finally:
                os.close(file)
        except OSError as error:
            raise ClientError(f"the file of tokens: {self.path}: {error.strerror}") from None

    def _read(self, file: int) -> bytes:
        size = os.fstat(file).st_size
        if size > MAX_TOKEN_FILE:
            raise ClientError(f"{self.path} is larger than is read")
        pieces, position = [], 0
        while piece := os.pread(file, size - position, position):
            pieces.append(piece)
            position += len(piece)
        return b"".join(pieces)


def _find(data: bytes, digests: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """Find the first token for the most preferred challenge. Returns its line and the token."""
    found: dict[bytes, tuple[bytes, bytes]] = {}
    for match in _LINE.finditer(data):
        digest = _digest(match[0])
        if digest in digests and digest not in found:
            token = _parse(match[0])
            if token is not None:
                found[digest] = match[0], token
                if digest == digests[0]:
                    break
    return next((found[digest] for digest in digests if digest in found), None)


def _occurrences(data: bytes, head: bytes) -> list[int]:
    """Where lines begin that hold the same token, in whatever spelling."""
    return [match.start() for match in _LINE.finditer(data) if match[0].startswith(head)]


def _whole(data: bytes, start: int) -> bytes:
    """The line that begins there, without what ends it."""
    end = data.find(b"\n", start)
    return data[start : len(data) if end < 0 else end].rstrip(b"\r")


def _digest(line: bytes) -> bytes:
    return base64.urlsafe_b64decode(line[:_HEAD])[_DIGEST]


def _parse(line: bytes) -> bytes | None:
    """Read a line, or return None when it is no token."""
    try:
        token = parse_base64url(line)
        parse_token(token)
    except Malformed:
        return None
    return token
