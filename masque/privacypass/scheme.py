"""The authentication scheme PrivateToken: challenges and credentials as fields carry them (RFC 9577 §2.1.2, §2.2.2).

A proxy asks in `Proxy-Authenticate` and is answered in `Proxy-Authorization`; the values are those of
`WWW-Authenticate` and `Authorization`. Values are written quoted and with padding, as the RFC says. Read is also
what clients send instead: tokens without quotes, without padding, or with padding and without quotes.

A challenge that a client cannot use does not spoil the others: it is left out. Credentials are one token or none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from masque.errors import LimitExceeded, LocalMisuse, Malformed
from masque.privacypass.auth_fields import AuthItem, parse_auth_items, parse_auth_params
from masque.privacypass.base64url import encode_base64url, parse_base64url

__all__ = [
    "MAX_CHALLENGE_BYTES",
    "MAX_CREDENTIAL_BYTES",
    "SCHEME",
    "ChallengeOffer",
    "encode_challenges",
    "encode_credentials",
    "parse_authorization",
    "parse_challenges",
    "parse_credentials",
]

SCHEME = "PrivateToken"
"The scheme's name; it has no case (RFC 9577 §6.1, RFC 9110 §11.1)."
MAX_CHALLENGE_BYTES = 16384
"The most bytes of challenges that a client reads, of all field lines together."
MAX_CREDENTIAL_BYTES = 4096
"The longest credentials that are read, in bytes; a token of type 2 takes some 490."

_MAX_AGE = 2**31
"Where larger numbers of seconds end, as in RFC 9111 §1.2.2."
_DIGITS = re.compile(rb"[0-9]+")
_NAMED = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?: +(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ChallengeOffer:
    """One challenge of the scheme with its parameters (RFC 9577 §2.1.2)."""

    challenge: bytes = field(repr=False)
    "The challenge's structure; `parse_token_challenge` reads it, `challenge_digest` takes its digest."
    token_key: bytes | None = field(default=None, repr=False)
    "The issuer's public key; None when the client is to get it elsewhere."
    max_age: int | None = None
    "For how many seconds the origin accepts a token for this challenge; None when it does not say."


def parse_challenges(values: Iterable[bytes]) -> list[ChallengeOffer]:
    """Decode the challenges of this scheme in `WWW-Authenticate` or `Proxy-Authenticate` (RFC 9577 §2.1.2).

    Challenges of other schemes are left out, and so is one of ours whose challenge or key is missing, comes twice
    or is no base64url. Unknown parameters are ignored. What the structures say is not looked at.

    Args:
        values: one for each field line, in order.

    Returns:
        The origin's offers, in its order of preference (RFC 9577 §2.1.2.1).

    Raises:
        Malformed: a line that is no list of challenges (reach STREAM, code H3_MESSAGE_ERROR).
        LimitExceeded: more than `MAX_CHALLENGE_BYTES`, or more challenges or parameters than are read (reach
            STREAM, code H3_EXCESSIVE_LOAD).
    """
    items = parse_auth_items(values, limit=MAX_CHALLENGE_BYTES)
    offers = (_read_offer(item) for item in items if item.scheme == SCHEME.lower())
    return [offer for offer in offers if offer is not None]


def encode_challenges(offers: Iterable[ChallengeOffer]) -> bytes:
    """Encode challenges as one field value (RFC 9577 §2.1.2).

    Args:
        offers: the most preferred one first.

    Returns:
        A list of challenges, to which those of other schemes may be joined with commas.

    Raises:
        LocalMisuse: no offer, an offer without a challenge, or a `max_age` that is negative.
    """
    encoded = [_encode_offer(offer) for offer in offers]
    if not encoded:
        raise LocalMisuse("no challenge to encode")
    return b", ".join(encoded)


def parse_credentials(value: bytes) -> bytes:
    """Decode what follows the scheme's name in `Authorization` or `Proxy-Authorization` (RFC 9577 §2.2.2).

    Args:
        value: the parameters.

    Returns:
        The token's structure, for `parse_token`. Unknown parameters are ignored.

    Raises:
        Malformed: no list of parameters, no token or two, or one that is no base64url (reach STREAM, code
            H3_MESSAGE_ERROR).
        LimitExceeded: more than `MAX_CREDENTIAL_BYTES`, or more parameters than are read (reach STREAM, code
            H3_EXCESSIVE_LOAD).
    """
    if len(value) > MAX_CREDENTIAL_BYTES:
        raise LimitExceeded("longer credentials than we read")
    token = parse_auth_params(value).find("token")
    if not token:
        raise Malformed("credentials without a token")
    return parse_base64url(token)


def parse_authorization(value: bytes) -> bytes | None:
    """Decode `Authorization` or `Proxy-Authorization` (RFC 9577 §2.2.2).

    Args:
        value: the whole field value.

    Returns:
        The token's structure, or None when the credentials are of another scheme.

    Raises:
        Malformed: no credentials at all, or as `parse_credentials`.
        LimitExceeded: as `parse_credentials`.
    """
    if len(value) > MAX_CREDENTIAL_BYTES:
        raise LimitExceeded("longer credentials than we read")
    found = _NAMED.fullmatch(value)
    if found is None:
        raise Malformed("credentials without the name of a scheme")
    if found[1].decode("ascii").lower() != SCHEME.lower():
        return None
    return parse_credentials(found[2] or b"")


def encode_credentials(token: bytes) -> bytes:
    """Encode credentials as a field value (RFC 9577 §2.2.2).

    Args:
        token: its structure, from `encode_token`.

    Returns:
        The scheme's name and the token, quoted.

    Raises:
        LocalMisuse: there is no token.
    """
    if not token:
        raise LocalMisuse("credentials without a token")
    return b'%b token="%b"' % (SCHEME.encode("ascii"), encode_base64url(token))


def _read_offer(item: AuthItem) -> ChallengeOffer | None:
    """Read one challenge of our scheme, or return None when a client must not answer it (RFC 9577 §2.1.3)."""
    try:
        challenge, token_key = item.find("challenge"), item.find("token-key")
        if not challenge:
            return None
        key = None if token_key is None else parse_base64url(token_key)
        return ChallengeOffer(parse_base64url(challenge), key, _read_max_age(item.find("max-age")))
    except Malformed:
        return None


def _read_max_age(text: bytes | None) -> int | None:
    """Read a number of seconds; what is none counts as not said."""
    if text is None or not _DIGITS.fullmatch(text):
        return None
    return _MAX_AGE if len(text.lstrip(b"0")) > 10 else min(int(text), _MAX_AGE)


def _encode_offer(offer: ChallengeOffer) -> bytes:
    """Encode one challenge."""
    if not offer.challenge:
        raise LocalMisuse("an offer without a challenge")
    params = [b'challenge="%b"' % encode_base64url(offer.challenge)]
    if offer.token_key is not None:
        params.append(b'token-key="%b"' % encode_base64url(offer.token_key))
    if offer.max_age is not None:
        if offer.max_age < 0:
            raise LocalMisuse("a negative number of seconds")
        params.append(b'max-age="%d"' % offer.max_age)
    return SCHEME.encode("ascii") + b" " + b", ".join(params)
