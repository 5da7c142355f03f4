"""An issuer as its clients see it: its directory and its tokens over HTTPS, and its keys in files."""

from __future__ import annotations

from relay.issuance.failure import IssuanceError
from relay.issuance.http import Content, IssuerHttp, open_http
from relay.issuance.issuer import Issuer, directory_url, issuer_authority
from relay.issuance.keys import KeyFileError, make_key_files, read_key_file

__all__ = [
    "Content",
    "IssuanceError",
    "Issuer",
    "IssuerHttp",
    "KeyFileError",
    "directory_url",
    "issuer_authority",
    "make_key_files",
    "open_http",
    "read_key_file",
]
