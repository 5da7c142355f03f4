"""base64url as Privacy Pass uses it: padding is sent, and not asked for (RFC 9577 §2.1.2, RFC 4648 §5).

The RFC says that the padding must be there. Clients are seen that leave it out, and nothing is ambiguous without
it. The alphabet is the URL-safe one alone, and one value has one spelling: bits that stand for nothing must be zero.
"""

from __future__ import annotations

import base64
import binascii
import re

from masque.errors import Malformed

__all__ = ["encode_base64url", "parse_base64url"]

_TEXT = re.compile(rb"([A-Za-z0-9_-]*)(={0,2})")


def encode_base64url(data: bytes) -> bytes:
    """Encode with padding, as RFC 9577 §2.1.2 wants it sent.

    Args:
        data: any bytes.

    Returns:
        Text of the URL-safe alphabet, its length a multiple of four.
    """
    return base64.urlsafe_b64encode(data)


def parse_base64url(text: bytes) -> bytes:
    """Decode, with the right padding or with none.

    Args:
        text: of the URL-safe alphabet; the caller bounds its length.

    Returns:
        The bytes.

    Raises:
        Malformed: another character, a length that no bytes have, wrong padding, or left-over bits that are not
            zero (reach STREAM, code H3_MESSAGE_ERROR).
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise Malformed("base64url with a character outside of its alphabet")
    body, given = found.groups()
    padding = b"=" * (-len(body) % 4)
    if len(padding) == 3 or given not in (b"", padding):
        raise Malformed("base64url of an impossible length or with wrong padding")
    try:
        data = base64.urlsafe_b64decode(body + padding)
    except binascii.Error:
        raise Malformed("base64url that does not decode") from None
    if base64.urlsafe_b64encode(data) != body + padding:
        raise Malformed("base64url with bits that stand for nothing")
    return data
