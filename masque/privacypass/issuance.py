"""From a challenge to a token: TokenRequest, TokenResponse, and the two sides of them (RFC 9578 §5, §6).

A client begins with a challenge, a key and a nonce, posts the request to the issuer and finishes with what it
answers. An issuer finds the key by the last byte of its id and signs blindly: it sees neither the nonce nor the
challenge. Whether a client deserves a token is decided before and elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import rsa

from masque.errors import LocalMisuse, Malformed, RequestRejected
from masque.privacypass.blind_rsa import SALT_SIZE, BlindRsaPrivateKey, blind_message, draw_factor, finalize_signature
from masque.privacypass.challenge import challenge_digest
from masque.privacypass.keys import ELEMENT_SIZE, BlindRsaPublicKey, TokenKey
from masque.privacypass.tokens import Token, TokenType, find_token_type, token_input, truncated_key_id
from masque.privacypass.voprf import EVALUATION_SIZE, VoprfPrivateKey, blind_voprf

__all__ = [
    "REQUEST_MEDIA_TYPE",
    "RESPONSE_MEDIA_TYPE",
    "IssuerKey",
    "PendingToken",
    "RsaBlinds",
    "TokenRequest",
    "begin",
    "draw_blinds",
    "encode_token_request",
    "issue",
    "parse_token_request",
    "request_size",
    "response_size",
]

REQUEST_MEDIA_TYPE = b"application/private-token-request"
"The content type of a TokenRequest (RFC 9578 §8.3.2)."
RESPONSE_MEDIA_TYPE = b"application/private-token-response"
"The content type of a TokenResponse (RFC 9578 §8.3.3)."

IssuerKey = BlindRsaPrivateKey | VoprfPrivateKey
"An issuer's private key of either type."


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What a client posts (RFC 9578 §5.1, §6.1)."""

    token_type: TokenType
    "The type of token."
    truncated_key_id: int
    "The last byte of the key's id, truncated_token_key_id."
    blinded_message: bytes = field(repr=False)
    "49 or 256 bytes."


@dataclass(frozen=True, slots=True)
class RsaBlinds:
    """What hides one request for a token of type 2; never used twice (RFC 9474 §4.2)."""

    factor: int = field(repr=False)
    "The factor, from 1 to the modulus less one."
    salt: bytes = field(repr=False)
    "48 bytes."


@dataclass(frozen=True, slots=True)
class PendingToken:
    """A client that waits for its issuer; `begin` makes it."""

    request: bytes = field(repr=False)
    "The TokenRequest to post."
    token_type: TokenType
    "The type of the token to come."
    nonce: bytes = field(repr=False)
    "The token's nonce, which the issuer does not see."
    digest: bytes = field(repr=False)
    "The digest of the challenge."
    key: TokenKey
    "The issuer's key."
    _unblind: Callable[[bytes], bytes] = field(repr=False)

    def finish(self, response: bytes) -> Token:
        """Make the token of the issuer's answer (RFC 9578 §5.3, §6.3).

        Args:
            response: the TokenResponse.

        Returns:
            A token that the issuer's key verifies.

        Raises:
            Malformed: an answer of another size, or one that proves or verifies nothing: the client gives up
                (reach STREAM, code H3_MESSAGE_ERROR).
        """
        return Token(self.token_type, self.nonce, self.digest, self.key.key_id, self._unblind(response))


def request_size(token_type: TokenType) -> int:
    """Return the bytes of a TokenRequest (RFC 9578 §5.1, §6.1)."""
    return 3 + (ELEMENT_SIZE if token_type is TokenType.VOPRF_P384 else token_type.authenticator_size)


def response_size(token_type: TokenType) -> int:
    """Return the bytes of a TokenResponse (RFC 9578 §5.2, §6.2). It has no fields but the signature or proof."""
    return EVALUATION_SIZE if token_type is TokenType.VOPRF_P384 else token_type.authenticator_size


def parse_token_request(data: bytes) -> TokenRequest:
    """Decode a TokenRequest (RFC 9578 §5.1, §6.1).

    Args:
        data: the whole content.

    Returns:
        Its fields.

    Raises:
        Malformed: a type that we do not know, or another size than the type has (reach STREAM, code
            H3_MESSAGE_ERROR). To the client either is 422.
    """
    token_type = find_token_type(data)
    if token_type is None:
        raise Malformed("a token request of an unknown type")
    if len(data) != request_size(token_type):
        raise Malformed("a token request of a wrong size")
    return TokenRequest(token_type, data[2], data[3:])


def encode_token_request(request: TokenRequest) -> bytes:
    """Encode a TokenRequest (RFC 9578 §5.1, §6.1).

    Args:
        request: what to post.

    Returns:
        52 or 259 bytes, by type.

    Raises:
        LocalMisuse: a key id that is no byte, or a blinded message of another size.
    """
    size = request_size(request.token_type) - 3
    if not 0 <= request.truncated_key_id <= 0xFF or len(request.blinded_message) != size:
        raise LocalMisuse("a token request with a field of a wrong size")
    return request.token_type.to_bytes(2, "big") + bytes((request.truncated_key_id,)) + request.blinded_message


def draw_blinds(key: BlindRsaPublicKey, entropy: bytes) -> RsaBlinds:
    """Make the blinds of one request of random bytes.

    Args:
        key: the issuer's.
        entropy: `ENTROPY_SIZE + SALT_SIZE` random bytes or more, not used for anything else.

    Raises:
        LocalMisuse: too few bytes.
    """
    return RsaBlinds(draw_factor(key.modulus, entropy[SALT_SIZE:]), entropy[:SALT_SIZE])


def begin(challenge: bytes, key: TokenKey, nonce: bytes, blinds: RsaBlinds | None = None) -> PendingToken:
    """Ask for a token (RFC 9578 §5.1, §6.1).

    Args:
        challenge: the origin's TokenChallenge, as it came.
        key: the issuer's, of the challenge's type.
        nonce: 32 random bytes, not used for another token.
        blinds: for a key of type 2, from `draw_blinds`; none for type 1, whose blind the `voprf` package draws.

    Returns:
        The request, and what makes a token of the answer.

    Raises:
        LocalMisuse: a challenge of another type than the key, a nonce of another size, or blinds that do not fit.
    """
    token_type = key.token_type
    if challenge[:2] != token_type.to_bytes(2, "big"):
        raise LocalMisuse("a challenge of another type than the key")
    digest = challenge_digest(challenge)
    message = token_input(token_type, nonce, digest, key.key_id)
    if isinstance(key, BlindRsaPublicKey):
        blinded, unblind = _blind_rsa(key, message, blinds)
    elif blinds is not None:
        raise LocalMisuse("blinds for a key that takes none")
    else:
        pending = blind_voprf(message)
        blinded, unblind = pending.blinded_element, lambda response: pending.finalize(response, key)
    request = encode_token_request(TokenRequest(token_type, truncated_key_id(key.key_id), blinded))
    return PendingToken(request, token_type, nonce, digest, key, unblind)


def issue(data: bytes, keys: Iterable[IssuerKey], entropy: bytes) -> bytes:
    """Answer a request (RFC 9578 §5.2, §6.2).

    Args:
        data: the content that a client posted; with `REQUEST_MEDIA_TYPE`, which the caller checks.
        keys: the issuer's, the most preferred first. Two of a type whose ids end in the same byte are
            indistinguishable here: the first is used.
        entropy: `ENTROPY_SIZE` random bytes, not used for anything else; type 1 takes no notice of them.

    Returns:
        The TokenResponse, to be sent with `RESPONSE_MEDIA_TYPE`.

    Raises:
        RequestRejected: 422: an unknown type, an unknown key, a blinded message of a wrong size or that is no
            element. The RFC has no other error.
        LocalMisuse: too few random bytes, or the key is broken.
    """
    try:
        request = parse_token_request(data)
        asked = (request.token_type, request.truncated_key_id)
        for key in keys:
            if (key.public.token_type, truncated_key_id(key.public.key_id)) == asked:
                return _sign(key, request.blinded_message, entropy)
    except Malformed as error:
        raise RequestRejected(error.detail, status=422) from None
    raise RequestRejected("a token request for an unknown key", status=422)


def _sign(key: IssuerKey, blinded_message: bytes, entropy: bytes) -> bytes:
    """Make the one field of an answer."""
    if isinstance(key, BlindRsaPrivateKey):
        return key.sign(blinded_message, entropy)
    return key.evaluate(blinded_message)


def _blind_rsa(
    key: BlindRsaPublicKey, message: bytes, blinds: RsaBlinds | None
) -> tuple[bytes, Callable[[bytes], bytes]]:
    """Blind a token's input. Returns the blinded message, and what makes a signature of a blind one."""
    if blinds is None or len(blinds.salt) != SALT_SIZE:
        raise LocalMisuse("a key that wants blinds, with a salt of 48 bytes")
    numbers = rsa.RSAPublicNumbers(key.exponent, key.modulus)
    blinded = blind_message(numbers, message, blinds.factor, blinds.salt)
    return blinded.data, lambda response: finalize_signature(numbers, message, response, blinded.inverse)
