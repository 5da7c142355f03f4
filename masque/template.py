"""URI Templates as MASQUE uses them: to make a request's path, and to read one (RFC 6570, RFC 9298 §2, §3).

A template is compiled once into a path of segments and a query of parameters, each literal or with one
variable: `{?a,b}` and `{&a}` are only another spelling of `a={a}&b={b}`. That covers every template RFC 9298 §2
allows, but for those that could be read in two ways, such as two variables in one segment; these are refused.

Reading goes in the order that keeps values apart: split first, decode percent escapes once, and only then look
at the value. What a value means is not known here: it may hold a decoded slash (CONNECT-IP's prefixes do) and
the caller has to check it, as `masque.target` does for hosts and ports.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from masque.errors import LocalMisuse, RequestRejected

__all__ = ["DEFAULT_UDP_TEMPLATE", "Template"]

DEFAULT_UDP_TEMPLATE = "/.well-known/masque/udp/{target_host}/{target_port}/"
"The path that clients assume when they know only the relay's host and port (RFC 9298 §2)."

_ORIGIN = re.compile(r"https://([^/?{}]+)")
_EXPRESSION = re.compile(r"\{([^{}]*)\}")
_NAME = r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*"
_QUERY_EXPRESSION = re.compile(rf"\{{([?&])({_NAME}(?:,{_NAME})*)\}}")
_SIMPLE_EXPRESSION = re.compile(rf"\{{({_NAME})\}}")
_LITERAL = re.compile(r"(?:[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*")
"Literals of RFC 6570 §2.1 within a path or a query."
_PARAMETER_START = re.compile(rb"[^=]+=")
_VALUE = re.compile(rb"(?:[A-Za-z0-9\-._~:@!$&'()*+,;=/?]|%[0-9A-Fa-f]{2})+")
"What a segment (RFC 3986 §3.3) or a parameter's value (§3.4) may hold before it is decoded."
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


class _Piece(NamedTuple):
    """A path segment or a query parameter: literal text, or a variable between two literals."""

    prefix: bytes
    variable: str | None
    suffix: bytes


class Template:
    """A URI Template with known variables (RFC 9298 §2)."""

    __slots__ = ("_names", "_parameters", "_segments", "_shape", "authority", "text", "variables")

    def __init__(self, text: str, required: tuple[str, ...] = ("target_host", "target_port")) -> None:
        """Compile a template.

        Args:
            text: an absolute https URI, or only its path and query.
            required: variables that the template must have; it may have others.

        Raises:
            LocalMisuse: not a template that RFC 9298 §2 allows and that can be read in one way only.
        """
        self.text = text
        "The template as given."
        self.authority: str | None = None
        "The authority when the template is an absolute URI, else None."
        if not _PRINTABLE.fullmatch(text):
            raise LocalMisuse("a URI template that is empty or has characters outside 0x21-0x7E")
        if origin := _ORIGIN.match(text):
            self.authority = origin[1]
            text = text[origin.end() :]
        if not text.startswith("/") or text.startswith("//"):
            raise LocalMisuse("a URI template that is neither https://authority/path nor /path")
        path, question, query = _desugar(text).partition("?")
        self._segments = tuple(_compile(segment) for segment in path.split("/"))
        self._shape = re.compile(b"/".join(_pattern(segment) for segment in self._segments))
        self._names = tuple(segment.variable for segment in self._segments if segment.variable is not None)
        self._parameters = tuple(_compile_parameter(item) for item in query.split("&")) if question else ()
        names = [piece.variable for piece in self._segments + self._parameters if piece.variable is not None]
        if len(set(names)) != len(names):
            raise LocalMisuse("a URI template that has a variable twice")
        keys = [piece.prefix.partition(b"=")[0] for piece in self._parameters]
        if len(set(keys)) != len(keys):
            raise LocalMisuse("a URI template that has a query parameter twice")
        if missing := set(required) - set(names):
            raise LocalMisuse(f"a URI template without {', '.join(sorted(missing))}")
        self.variables = frozenset(names)
        "The names of all variables."

    def __repr__(self) -> str:
        return f"Template({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, Template) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)

    def expand(self, **values: str) -> str:
        """Make the path and query of a request, for `:path` (RFC 6570 §3.2, RFC 9298 §3.4).

        Args:
            values: one for each variable: printable ASCII, not empty. All but unreserved characters are
                percent-encoded, the colons of IPv6 with them.

        Returns:
            Path and query. Scheme and authority are not part of it, even if the template has them.

        Raises:
            LocalMisuse: a variable without a value, a value without a variable, or a value that is empty or not
                printable ASCII.
        """
        if values.keys() != self.variables:
            raise LocalMisuse("values that do not fit the variables of the URI template")
        if not all(_PRINTABLE.fullmatch(value) for value in values.values()):
            raise LocalMisuse("a value that is empty or not printable ASCII")
        path = "/".join(_expand(piece, values) for piece in self._segments)
        query = "&".join(_expand(piece, values) for piece in self._parameters)
        return f"{path}?{query}" if self._parameters else path

    def match(self, path: bytes) -> dict[str, str] | None:
        """Read the variables from a request's `:path` (RFC 9298 §3.1).

        Segments must agree one by one, to the final slash. Query parameters may come in any order; ones that the
        template does not have are ignored.

        Args:
            path: the value of `:path`.

        Returns:
            The values, percent-decoded once; or None when the path does not have the template's shape.

        Raises:
            RequestRejected: the path has the template's shape, but a value is empty, is given twice, has a bad
                escape, or is not printable ASCII once decoded (status 400).
        """
        raw_path, _, raw_query = path.partition(b"?")
        shape = self._shape.fullmatch(raw_path)
        if shape is None:
            return None
        found = dict(zip(self._names, shape.groups(), strict=True))
        parameters = raw_query.split(b"&") if self._parameters else []
        for piece in self._parameters:
            candidates = [item for item in parameters if _fits(piece, item)]
            if not candidates:
                return None
            if piece.variable is not None:
                if len(candidates) > 1:
                    raise RequestRejected("a query parameter given twice", status=400)
                found[piece.variable] = candidates[0][len(piece.prefix) :]
        return {name: _decode(raw) for name, raw in found.items()}


def _desugar(text: str) -> str:
    """Spell form-style query expressions as simple ones (RFC 6570 §3.2.8, §3.2.9).

    Raises:
        LocalMisuse: a query begins twice or is continued before it begins.
    """
    result, end = "", 0
    for expression in _QUERY_EXPRESSION.finditer(text):
        result += text[end : expression.start()]
        if (expression[1] == "&") is not ("?" in result):
            raise LocalMisuse("a URI template whose query begins twice or never")
        result += expression[1] + "&".join(f"{name}={{{name}}}" for name in expression[2].split(","))
        end = expression.end()
    return result + text[end:]


def _compile(text: str) -> _Piece:
    """Compile a segment or a parameter.

    Raises:
        LocalMisuse: an expression RFC 9298 §2 forbids, more than one variable, or a character out of place.
    """
    for expression in _EXPRESSION.finditer(text):
        if not _SIMPLE_EXPRESSION.fullmatch(expression[0]):
            raise LocalMisuse("a URI template with an expression other than {a}, {?a,b} and {&a,b}")
    literals = _SIMPLE_EXPRESSION.split(text)
    if len(literals) > 3:
        raise LocalMisuse("a URI template with two variables side by side")
    if not all(_LITERAL.fullmatch(literal) for literal in literals[::2]):
        raise LocalMisuse("a URI template with a character out of place")
    if len(literals) == 1:
        return _Piece(text.encode("ascii"), None, b"")
    return _Piece(literals[0].encode("ascii"), literals[1], literals[2].encode("ascii"))


def _compile_parameter(text: str) -> _Piece:
    """Compile a query parameter: `name=value`, with at most one variable, which is the whole value.

    Raises:
        LocalMisuse: as `_compile`, or a variable elsewhere.
    """
    piece = _compile(text)
    if piece.variable is not None and (piece.suffix or not _PARAMETER_START.fullmatch(piece.prefix)):
        raise LocalMisuse("a URI template with a variable that is not the whole of a parameter's value")
    return piece


def _expand(piece: _Piece, values: Mapping[str, str]) -> str:
    """Put a value in its place, percent-encoded (RFC 6570 §3.2.2)."""
    value = quote(values[piece.variable], safe="") if piece.variable is not None else ""
    return f"{piece.prefix.decode('ascii')}{value}{piece.suffix.decode('ascii')}"


def _pattern(piece: _Piece) -> bytes:
    """Write a segment as a regular expression; a variable may be empty here."""
    variable = b"" if piece.variable is None else b"([^/]*)"
    return re.escape(piece.prefix) + variable + re.escape(piece.suffix)


def _fits(piece: _Piece, raw: bytes) -> bool:
    """Tell whether a parameter has its literal in place; a variable may be empty here."""
    return raw == piece.prefix if piece.variable is None else raw.startswith(piece.prefix)


def _decode(raw: bytes) -> str:
    """Percent-decode a value, once.

    Raises:
        RequestRejected: empty, a bad escape, or not printable ASCII (status 400).
    """
    if not _VALUE.fullmatch(raw):
        raise RequestRejected("a value that is empty or not a legal part of a URI", status=400)
    if b"%" not in raw:
        return raw.decode("ascii")
    value = unquote_to_bytes(raw).decode("latin-1")
    if not _PRINTABLE.fullmatch(value):
        raise RequestRejected("a value that is not printable ASCII", status=400)
    return value
