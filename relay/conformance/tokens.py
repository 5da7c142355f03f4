"""What a case asks of an implementation of Privacy Pass: the token verbs of interop/peers/README.md, as Python.

An implementation is a client, an issuer and an origin at once, without a network. Ours is `masque.privacypass`; the
matrix in interop/ drives others by the same verbs.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from masque.errors import MasqueError
from masque.privacypass import (
    ENTROPY_SIZE,
    MODULUS_BITS,
    NONCE_SIZE,
    SALT_SIZE,
    SEED_SIZES,
    BlindRsaPublicKey,
    IssuerKey,
    PendingToken,
    TokenType,
    VoprfPrivateKey,
    begin,
    draw_blinds,
    encode_credentials,
    encode_token,
    find_token_type,
    issue,
    parse_authorization,
    parse_blind_rsa_private_key,
    parse_challenges,
    parse_token,
    parse_token_key,
)
from relay.conformance.driver import DriverError

__all__ = ["OwnTokens", "TokenDriver", "TokenKeys"]

_EXPONENT = 65537


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """An issuer's key, in a form that every implementation reads."""

    private: bytes = field(repr=False)
    "PKCS #8 for type 2; for type 1 the seed that the key is derived from (RFC 9578 §5.5)."
    public: bytes = field(repr=False)
    "The public key as challenges carry it."

    def load(self, token_type: TokenType) -> IssuerKey:
        """Read the private key with our own code. Raises Malformed or LocalMisuse."""
        if token_type is TokenType.VOPRF_P384:
            return VoprfPrivateKey(self.private)
        return parse_blind_rsa_private_key(self.private)


class TokenDriver(Protocol):
    """An implementation of Privacy Pass. Every verb raises DriverError when it cannot be done."""

    async def make_key(self, token_type: TokenType) -> TokenKeys:
        """Make an issuer's key."""

    async def request_token(self, token_type: TokenType, challenges: str) -> tuple[int, bytes]:
        """Answer the challenge of that type in a field's value; returns a ticket and the TokenRequest."""

    async def finish_token(self, ticket: int, response: bytes) -> str:
        """Make credentials of the TokenResponse to a request."""

    async def answer_request(self, token_type: TokenType, request: bytes, keys: TokenKeys) -> bytes:
        """Answer a TokenRequest as an issuer does."""

    async def verify_token(self, token_type: TokenType, credentials: str, keys: TokenKeys) -> bool:
        """Tell, as an origin, whether the key made the token in the credentials."""


class OwnTokens:
    """Ours. Satisfies `TokenDriver`."""

    def __init__(self) -> None:
        """Start without requests."""
        self._pending: dict[int, PendingToken] = {}

    async def make_key(self, token_type: TokenType) -> TokenKeys:
        """Make an issuer's key."""
        if token_type is TokenType.VOPRF_P384:
            seed = secrets.token_bytes(max(SEED_SIZES))
            return TokenKeys(seed, VoprfPrivateKey(seed).public.encoded)
        key = rsa.generate_private_key(_EXPONENT, MODULUS_BITS)
        private = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return TokenKeys(private, parse_blind_rsa_private_key(private).public.encoded)

    async def request_token(self, token_type: TokenType, challenges: str) -> tuple[int, bytes]:
        """Answer a challenge; see `TokenDriver`."""
        try:
            for offer in parse_challenges([challenges.encode()]):
                if find_token_type(offer.challenge) is token_type and offer.token_key is not None:
                    key = parse_token_key(token_type, offer.token_key)
                    blinds = None
                    if isinstance(key, BlindRsaPublicKey):
                        blinds = draw_blinds(key, secrets.token_bytes(ENTROPY_SIZE + SALT_SIZE))
                    pending = begin(offer.challenge, key, secrets.token_bytes(NONCE_SIZE), blinds)
                    ticket = len(self._pending) + 1
                    self._pending[ticket] = pending
                    return ticket, pending.request
        except MasqueError as error:
            raise DriverError(error.detail) from None
        raise DriverError(f"no challenge of type {token_type.value} with a key in the field")

    async def finish_token(self, ticket: int, response: bytes) -> str:
        """Make credentials; see `TokenDriver`."""
        try:
            return encode_credentials(encode_token(self._pending[ticket].finish(response))).decode("ascii")
        except KeyError:
            raise DriverError(f"no ticket {ticket}") from None
        except MasqueError as error:
            raise DriverError(error.detail) from None

    async def answer_request(self, token_type: TokenType, request: bytes, keys: TokenKeys) -> bytes:
        """Answer a request; see `TokenDriver`."""
        try:
            return issue(request, [keys.load(token_type)], secrets.token_bytes(ENTROPY_SIZE))
        except MasqueError as error:
            raise DriverError(error.detail) from None

    async def verify_token(self, token_type: TokenType, credentials: str, keys: TokenKeys) -> bool:
        """Verify a token; see `TokenDriver`."""
        try:
            data = parse_authorization(credentials.encode())
            if data is None:
                return False
            token, key = parse_token(data), keys.load(token_type)
        except MasqueError as error:
            raise DriverError(error.detail) from None
        verifying = key if isinstance(key, VoprfPrivateKey) else key.public
        return token.key_id == verifying.key_id and verifying.verify(token.input, token.authenticator)
