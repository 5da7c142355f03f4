"""Finds the credentials of a request (RFC 9110 §11.4, §11.7.2).

They come in `Proxy-Authorization`, from some clients in `Authorization`. The first goes before the second;
when it is there, the second is not looked at, even if the first is useless. A field that comes twice, or is
malformed, or is too long, holds no credentials.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from masque.head import Fields

__all__ = ["MAX_CREDENTIALS", "Credentials", "find_credentials", "parse_credentials"]

MAX_CREDENTIALS = 4096
"The longest field value that is read, in bytes."

_CREDENTIALS = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}) +([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)")
_FIELDS = (b"proxy-authorization", b"authorization")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A scheme's name and what the client offers under it."""

    scheme: str
    "In lower case: scheme names have no case (RFC 9110 §11.1)."
    value: bytes = field(repr=False)
    "Everything after the name and its spaces."


def find_credentials(fields: Fields) -> Credentials | None:
    """Return the credentials of a request's fields, or None when there are none that could be read.

    Args:
        fields: names in lower case.
    """
    for name in _FIELDS:
        values = [value for found, value in fields if found == name]
        if values:
            return parse_credentials(values[0]) if len(values) == 1 else None
    return None


def parse_credentials(value: bytes) -> Credentials | None:
    """Split a field value into scheme and credentials, or return None when it has another form."""
    if len(value) > MAX_CREDENTIALS:
        return None
    found = _CREDENTIALS.fullmatch(value)
    return None if found is None else Credentials(found[1].decode("ascii").lower(), found[2])
