"""What tokens, challenges, directories and keys say, as facts with names. Pure: bytes in, facts out.

Private keys and authenticators are never among the facts: the output can be shown to somebody.
"""

from __future__ import annotations

import datetime
import re
from typing import TypeAlias

from masque.errors import LimitExceeded, Malformed
from masque.privacypass import (
    MAX_CHALLENGE_BYTES,
    AuthItem,
    BlindRsaPublicKey,
    IssuerKey,
    Token,
    TokenKey,
    TokenType,
    challenge_digest,
    encode_base64url,
    find_token_type,
    parse_auth_items,
    parse_base64url,
    parse_directory,
    parse_key_file,
    parse_token,
    parse_token_challenge,
    parse_token_key,
    truncated_key_id,
)

__all__ = ["MAX_INPUT", "Facts", "describe"]

MAX_INPUT = 1 << 20
"The most bytes that are looked at."

Facts: TypeAlias = "dict[str, str | int | list[Facts] | list[str] | None]"
"Names and values; a list has further facts, or texts."

_FIELD = re.compile(rb"\s*(?:(?:proxy-|www-)authenticate|(?:proxy-)?authorization)\s*:\s*", re.IGNORECASE)
_SCHEME = re.compile(rb"(?:^|[\s,])privatetoken ", re.IGNORECASE)
_TITLES = {TokenType.VOPRF_P384: "VOPRF (P-384, SHA-384)", TokenType.BLIND_RSA_2048: "Blind RSA (2048-bit)"}


def describe(data: bytes) -> list[Facts]:
    """Find out what something is.

    Args:
        data: a field's line or value, base64url, PEM, JSON, a file of tokens, or a structure's bytes.

    Returns:
        Facts of each thing in it.

    Raises:
        Malformed: it is nothing of that.
        LimitExceeded: it is longer than such a thing may be.
    """
    text = data.strip()
    if text.startswith(b"{"):
        return [_describe_directory(text)]
    if b"-----BEGIN" in text:
        return [_describe_key(parse_key_file(data))]
    if _SCHEME.search(text):
        return _describe_field(_FIELD.sub(b"", text, count=1))
    lines = [line.strip() for line in text.split(b"\n")]
    lines = [line for line in lines if line and not line.startswith(b"#")]
    try:
        structures = [parse_base64url(line) for line in lines]
    except Malformed:
        structures = [data]
    if not structures:
        raise Malformed("nothing but comments")
    return [_describe_structure(structure) for structure in structures]


def _describe_field(value: bytes) -> list[Facts]:
    """Challenges or credentials of PrivateToken."""
    items = parse_auth_items([value], limit=MAX_CHALLENGE_BYTES)
    found = [_describe_item(item) for item in items if item.scheme == "privatetoken"]
    if not found:
        raise Malformed("a field without PrivateToken")
    return found


def _describe_item(item: AuthItem) -> Facts:
    token, challenge, token_key = item.find("token"), item.find("challenge"), item.find("token-key")
    if token is not None:
        return _describe_token(parse_token(parse_base64url(token)))
    if challenge is None:
        raise Malformed("a PrivateToken with neither challenge nor token")
    structure = parse_base64url(challenge)
    facts = _describe_challenge(structure)
    facts["token-key"] = None
    if token_key is not None:
        token_type = find_token_type(structure)
        encoded = parse_base64url(token_key)
        said: Facts = {"encoded": _text(encoded)} if token_type is None else _key_facts(token_type, encoded)
        facts["token-key"] = [said]
    max_age = item.find("max-age")
    facts["max-age"] = None if max_age is None else max_age.decode("latin-1")
    return facts


def _describe_structure(data: bytes) -> Facts:
    """A challenge, a token or a key, in that order: only a challenge can be told by its inner lengths."""
    try:
        return _describe_challenge(data)
    except Malformed:
        pass
    try:
        return _describe_token(parse_token(data))
    except Malformed:
        pass
    try:
        return _describe_key(parse_key_file(data))
    except (Malformed, LimitExceeded):
        raise Malformed("neither token, challenge, directory nor key") from None


def _describe_challenge(data: bytes) -> Facts:
    challenge = parse_token_challenge(data)
    return {
        "what": "challenge",
        **_type_facts(challenge.token_type),
        "issuer": challenge.issuer_name,
        "redemption-context": challenge.redemption_context.hex() or None,
        "origins": list(challenge.origin_info),
        "digest": challenge_digest(data).hex(),
    }


def _describe_token(token: Token) -> Facts:
    return {
        "what": "token",
        **_type_facts(token.token_type),
        "nonce": token.nonce.hex(),
        "challenge-digest": token.challenge_digest.hex(),
        "key-id": token.key_id.hex(),
        "bytes": token.token_type.token_size,
    }


def _describe_key(key: IssuerKey | TokenKey) -> Facts:
    is_public = isinstance(key, TokenKey)
    public = key if isinstance(key, TokenKey) else key.public
    return {"what": "public key" if is_public else "private key", **_facts_of_key(public)}


def _describe_directory(data: bytes) -> Facts:
    directory = parse_directory(data)
    keys: list[Facts] = []
    for key in directory.keys:
        known = next((known for known in TokenType if known == key.token_type), None)
        facts = {**_type_facts(key.token_type)} if known is None else _key_facts(known, key.token_key)
        keys.append({**facts, "not-before": _time(key.not_before)})
    return {"what": "directory", "issuer-request-uri": directory.request_uri, "keys": keys}


def _key_facts(token_type: TokenType, encoded: bytes) -> Facts:
    """A key that may be none: then it is said what is wrong with it."""
    try:
        return _facts_of_key(parse_token_key(token_type, encoded))
    except Malformed as error:
        return {**_type_facts(token_type), "error": error.detail}


def _facts_of_key(key: TokenKey) -> Facts:
    facts: Facts = {
        **_type_facts(key.token_type),
        "key-id": key.key_id.hex(),
        "truncated-key-id": truncated_key_id(key.key_id),
        "encoded": _text(key.encoded),
    }
    return facts | ({"exponent": key.exponent} if isinstance(key, BlindRsaPublicKey) else {})


def _type_facts(number: int) -> Facts:
    known = next((title for token_type, title in _TITLES.items() if token_type == number), "unknown")
    return {"type": int(number), "type-name": known}


def _text(data: bytes) -> str:
    return encode_base64url(data).decode("ascii")


def _time(seconds: int | None) -> str | None:
    if seconds is None:
        return None
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return str(seconds)
