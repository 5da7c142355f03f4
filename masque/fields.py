"""Looking up field lines, and the Capsule-Protocol field (RFC 9110 §5, RFC 9297 §3.4).

Names are in lower case everywhere, as HTTP/2 and HTTP/3 carry them.
"""

from __future__ import annotations

import http_sf

from masque.head import Fields

__all__ = ["CAPSULE_PROTOCOL_TRUE", "get_field", "get_fields", "has_content_fields", "parse_capsule_protocol"]

CAPSULE_PROTOCOL_TRUE = (b"capsule-protocol", b"?1")
"The field line that says the Capsule Protocol is in use (RFC 9297 §3.4)."

_CONTENT_FIELDS = frozenset({b"content-length", b"content-type", b"transfer-encoding"})
"Fields that a message using the Capsule Protocol must not have (RFC 9297 §3.2)."


def get_fields(fields: Fields, name: bytes) -> list[bytes]:
    """List the values of all field lines of a name, in order.

    Args:
        fields: field lines.
        name: in lower case.

    Returns:
        The values; empty when the field is absent.
    """
    return [value for key, value in fields if key == name]


def get_field(fields: Fields, name: bytes) -> bytes | None:
    """Find the value of a field that must be sent at most once.

    Args:
        fields: field lines.
        name: in lower case.

    Returns:
        The value, or None when the field is absent or repeated: a repeated one has no single meaning.
    """
    values = get_fields(fields, name)
    return values[0] if len(values) == 1 else None


def has_content_fields(fields: Fields) -> bool:
    """Tell whether a message has a field that the Capsule Protocol forbids (RFC 9297 §3.2).

    Args:
        fields: field lines.

    Returns:
        True for Content-Length, Content-Type or Transfer-Encoding: such a message is malformed.
    """
    return any(name in _CONTENT_FIELDS for name, _ in fields)


def parse_capsule_protocol(fields: Fields) -> bool:
    """Read the Capsule-Protocol field, a Boolean item (RFC 9297 §3.4).

    Args:
        fields: field lines.

    Returns:
        True only for the value `?1`, whatever its parameters. A field sent twice is a List; that, any other type
        and anything unparsable count as absent.
    """
    value = get_field(fields, CAPSULE_PROTOCOL_TRUE[0])
    if value is None:
        return False
    try:
        item = http_sf.parse(value, tltype="item")
    except http_sf.StructuredFieldError:
        return False
    return isinstance(item, tuple) and item[0] is True
