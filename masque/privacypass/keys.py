"""Issuers' public keys as challenges and directories carry them, and their ids (RFC 9578 §5.5, §6.5, §8.2).

A key's id is the SHA-256 of its encoding, so one key must have one encoding. A Blind RSA key is a
SubjectPublicKeyInfo with the object identifier id-RSASSA-PSS and parameters that say SHA-384, MGF1 with SHA-384 and
a salt of 48 bytes; the same modulus under rsaEncryption is another id and is refused. Whether the parameters of the
hash functions are absent or NULL, RFC 4055 §2.1 leaves open and both are in use: each is an encoding of its own,
taken as it came, made without NULL. A VOPRF key is a compressed point of P-384.

This module reads no private key: `masque.privacypass.blind_rsa` and `masque.privacypass.voprf` have those.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import assert_never

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from masque.errors import LocalMisuse, Malformed
from masque.privacypass.tokens import TokenType

__all__ = [
    "ELEMENT_SIZE",
    "MAX_KEY_SIZE",
    "MODULUS_BITS",
    "BlindRsaPublicKey",
    "TokenKey",
    "VoprfPublicKey",
    "encode_spki",
    "parse_blind_rsa_key",
    "parse_token_key",
    "parse_voprf_key",
]

MODULUS_BITS = 2048
"Bits of a Blind RSA key's modulus (RFC 9578 §8.2.2)."
ELEMENT_SIZE = 49
"Bytes of a compressed point of P-384, Ne (RFC 9497 §4.4)."
MAX_KEY_SIZE = 1024
"Bytes of the longest encoding that is looked at; a Blind RSA key has some 342."

_SALT_SIZE = 48
_PSS = padding.PSS(padding.MGF1(hashes.SHA384()), _SALT_SIZE)
_HASH = hashes.SHA384()

_ID_RSASSA_PSS = bytes.fromhex("06092a864886f70d01010a")
_ID_MGF1 = bytes.fromhex("06092a864886f70d010108")
_ID_SHA384 = bytes.fromhex("0609608648016503040202")
_NULL = bytes.fromhex("0500")


@dataclass(frozen=True, slots=True)
class BlindRsaPublicKey:
    """An issuer's key for tokens of type 2; `parse_blind_rsa_key` makes it."""

    encoded: bytes = field(repr=False)
    "The SubjectPublicKeyInfo, DER, as it came."
    key_id: bytes
    "SHA-256 of the encoding (RFC 9578 §6.5)."
    modulus: int = field(repr=False)
    "n, of 2048 bits."
    exponent: int
    "e."
    _key: rsa.RSAPublicKey = field(repr=False, compare=False)

    @property
    def token_type(self) -> TokenType:
        """The type of the tokens that the key is for."""
        return TokenType.BLIND_RSA_2048

    def verify(self, token_input: bytes, authenticator: bytes) -> bool:
        """Check a token's authenticator (RFC 9578 §6.4).

        Takes some 20 microseconds, most of them without the interpreter's lock.

        Args:
            token_input: `Token.input`.
            authenticator: `Token.authenticator`.

        Returns:
            True when the issuer signed it: RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes.
        """
        try:
            self._key.verify(authenticator, token_input, _PSS, _HASH)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class VoprfPublicKey:
    """An issuer's key for tokens of type 1; it verifies no token, only what the issuer answers a client."""

    encoded: bytes = field(repr=False)
    "A compressed point of P-384, 49 bytes (RFC 9578 §8.2.1)."
    key_id: bytes
    "SHA-256 of the encoding (RFC 9578 §5.5)."

    @property
    def token_type(self) -> TokenType:
        """The type of the tokens that the key is for."""
        return TokenType.VOPRF_P384


TokenKey = BlindRsaPublicKey | VoprfPublicKey
"A public key of either type."


def parse_token_key(token_type: TokenType, data: bytes) -> TokenKey:
    """Read an issuer's public key (RFC 9578 §8.2).

    Args:
        token_type: of the challenge or the directory's entry that has the key.
        data: the encoding that the type has.

    Returns:
        The key, with its id.

    Raises:
        Malformed: as `parse_blind_rsa_key` or `parse_voprf_key`.
    """
    match token_type:
        case TokenType.BLIND_RSA_2048:
            return parse_blind_rsa_key(data)
        case TokenType.VOPRF_P384:
            return parse_voprf_key(data)
    assert_never(token_type)


def parse_blind_rsa_key(data: bytes) -> BlindRsaPublicKey:
    """Read a SubjectPublicKeyInfo, and accept it only if it is what we would write ourselves (RFC 9578 §6.5).

    Args:
        data: DER.

    Returns:
        The key, with its id.

    Raises:
        Malformed: no RSA key of 2048 bits, not with id-RSASSA-PSS, with other parameters, or in another spelling
            than DER's (reach STREAM, code H3_MESSAGE_ERROR).
    """
    if len(data) > MAX_KEY_SIZE:
        raise Malformed("a token key that is too long")
    try:
        key = load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed("a token key that is no SubjectPublicKeyInfo") from None
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != MODULUS_BITS:
        raise Malformed("a token key that is no RSA key of 2048 bits")
    numbers = key.public_numbers()
    if numbers.e < 3 or not numbers.e & numbers.n & 1:
        raise Malformed("a token key of numbers that make no RSA key")
    if data not in (_encode_spki(numbers.n, numbers.e, null) for null in (b"", _NULL)):
        raise Malformed("a token key without id-RSASSA-PSS, or with other parameters")
    return BlindRsaPublicKey(data, hashlib.sha256(data).digest(), numbers.n, numbers.e, key)


def parse_voprf_key(data: bytes) -> VoprfPublicKey:
    """Read a compressed point of P-384, SerializeElement (RFC 9578 §5.5, RFC 9497 §2.1).

    Args:
        data: 49 bytes; the point at infinity, which is no key, would have another size.

    Returns:
        The key, with its id.

    Raises:
        Malformed: no point of the curve, or not compressed (reach STREAM, code H3_MESSAGE_ERROR).
    """
    if len(data) != ELEMENT_SIZE:
        raise Malformed("a token key that is no compressed point")
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), data)
    except ValueError:
        raise Malformed("a token key that is no point of P-384") from None
    return VoprfPublicKey(data, hashlib.sha256(data).digest())


def encode_spki(modulus: int, exponent: int) -> bytes:
    """Make the encoding of a Blind RSA key (RFC 9578 §6.5).

    Args:
        modulus: n, positive.
        exponent: e, positive.

    Returns:
        DER of a SubjectPublicKeyInfo with id-RSASSA-PSS, hash parameters absent.

    Raises:
        LocalMisuse: a number that is not positive.
    """
    if modulus < 1 or exponent < 1:
        raise LocalMisuse("an RSA key of numbers that are not positive")
    return _encode_spki(modulus, exponent, b"")


def _encode_spki(modulus: int, exponent: int, null: bytes) -> bytes:
    """Encode a key; `null` is what stands in place of a hash function's parameters."""
    sha384 = _der(0x30, _ID_SHA384 + null)
    mgf1 = _der(0x30, _ID_MGF1 + sha384)
    parameters = _der(0xA0, sha384) + _der(0xA1, mgf1) + _der(0xA2, _der_integer(_SALT_SIZE))
    algorithm = _der(0x30, _ID_RSASSA_PSS + _der(0x30, parameters))
    numbers = _der(0x30, _der_integer(modulus) + _der_integer(exponent))
    return _der(0x30, algorithm + _der(0x03, b"\0" + numbers))


def _der_integer(number: int) -> bytes:
    """Encode a positive INTEGER."""
    return _der(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _der(tag: int, content: bytes) -> bytes:
    """Encode one element of DER."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content
