"""Challenges and parameters of HTTP authentication, of any scheme (RFC 9110 §11.2, §11.3).

A list of challenges has commas between the challenges and commas between the parameters of one, so it cannot be
cut at commas: a word is a parameter when `=` and a value follow it, and begins a challenge otherwise. These fields
are older than Structured Fields and are none.

One thing is taken that the grammar does not have: an unquoted value that ends in `=`, as base64url does, because
common clients write tokens so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from masque.errors import LimitExceeded, Malformed

__all__ = ["MAX_AUTH_ITEMS", "AuthItem", "parse_auth_items", "parse_auth_params"]

MAX_AUTH_ITEMS = 32
"The most challenges, and the most parameters of one, that are read."

_SPACE = re.compile(rb"[ \t]*")
_EMPTY = re.compile(rb"[ \t,]*")
_END = rb"(?=[ \t]*(?:,|\Z))"
_TCHAR = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_SCHEME = re.compile(rb"(" + _TCHAR + rb"+)(?:(?= )|" + _END + rb")")
_TOKEN68 = re.compile(rb"([0-9A-Za-z._~+/-]+=*)" + _END)
_PARAM = re.compile(
    rb"(" + _TCHAR + rb"+)[ \t]*=[ \t]*"
    rb'(?:"((?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*)"|(' + _TCHAR + rb"+=*))" + _END
)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class AuthItem:
    """A challenge, or credentials: both have the same form (RFC 9110 §11.3, §11.4)."""

    scheme: str
    "The scheme's name in lower case: it has no case (RFC 9110 §11.1)."
    token68: bytes | None = None
    "What follows the name when that is no list of parameters."
    params: tuple[tuple[str, bytes], ...] = ()
    "Names in lower case and values without their quotes, in order; a name may come twice."

    def find(self, name: str) -> bytes | None:
        """Return a parameter's value, or None when there is none.

        Args:
            name: in lower case.

        Raises:
            Malformed: the parameter comes twice (RFC 9110 §11.2; reach STREAM, code H3_MESSAGE_ERROR).
        """
        values = [value for key, value in self.params if key == name]
        if len(values) > 1:
            raise Malformed("an authentication parameter that comes twice")
        return values[0] if values else None


def parse_auth_items(values: Iterable[bytes], *, limit: int) -> list[AuthItem]:
    """Decode `WWW-Authenticate` or `Proxy-Authenticate` (RFC 9110 §11.6.1, §11.7.1).

    Args:
        values: one for each field line, in order; a challenge does not go on in the next.
        limit: the most bytes that are read, of all lines together.

    Returns:
        The challenges of all lines, in order.

    Raises:
        Malformed: a line that is no list of challenges (reach STREAM, code H3_MESSAGE_ERROR).
        LimitExceeded: more bytes than the limit, or more than `MAX_AUTH_ITEMS` challenges or parameters of one
            (reach STREAM, code H3_EXCESSIVE_LOAD).
    """
    items: list[AuthItem] = []
    for value in values:
        limit -= len(value)
        if limit < 0:
            raise LimitExceeded("more bytes of challenges than we read")
        position = _skip(_EMPTY, value, 0)
        while position < len(value):
            item, position = _parse_item(value, position)
            items.append(item)
            if len(items) > MAX_AUTH_ITEMS:
                raise LimitExceeded("more challenges than we read")
    return items


def parse_auth_params(value: bytes) -> AuthItem:
    """Decode the parameters of credentials, what follows the scheme's name and its spaces (RFC 9110 §11.4).

    Args:
        value: the rest of the field; the caller bounds its length.

    Returns:
        An item with no name.

    Raises:
        Malformed: this is no list of parameters (reach STREAM, code H3_MESSAGE_ERROR).
        LimitExceeded: more than `MAX_AUTH_ITEMS` parameters (reach STREAM, code H3_EXCESSIVE_LOAD).
    """
    params, position = _parse_params(value, _skip(_EMPTY, value, 0))
    if position < len(value):
        raise Malformed("credentials that are no list of parameters")
    return AuthItem("", None, params)


def _parse_item(value: bytes, position: int) -> tuple[AuthItem, int]:
    """Read one challenge. Returns it and where the next one begins."""
    found = _SCHEME.match(value, position)
    if found is None:
        raise Malformed("a challenge without the name of a scheme")
    scheme = found[1].decode("ascii").lower()
    position = _skip(_SPACE, value, found.end())
    token68 = _TOKEN68.match(value, position)
    if token68 is not None:
        return AuthItem(scheme, token68[1]), _skip(_EMPTY, value, token68.end())
    if position < len(value) and value[position] != ord(",") and _PARAM.match(value, position) is None:
        raise Malformed("a challenge with neither parameters nor token68")
    params, position = _parse_params(value, _skip(_EMPTY, value, position))
    return AuthItem(scheme, None, params), position


def _parse_params(value: bytes, position: int) -> tuple[tuple[tuple[str, bytes], ...], int]:
    """Read parameters as long as there are any. Returns them and where something else begins."""
    params: list[tuple[str, bytes]] = []
    while (found := _PARAM.match(value, position)) is not None:
        name, quoted, plain = found.groups()
        text = plain if quoted is None else _QUOTED_PAIR.sub(rb"\1", quoted)
        params.append((name.decode("ascii").lower(), text))
        if len(params) > MAX_AUTH_ITEMS:
            raise LimitExceeded("more authentication parameters than we read")
        position = _skip(_EMPTY, value, found.end())
    return tuple(params), position


def _skip(pattern: re.Pattern[bytes], value: bytes, position: int) -> int:
    """Return the position after what a pattern that matches anywhere takes."""
    found = pattern.match(value, position)
    return position if found is None else found.end()
