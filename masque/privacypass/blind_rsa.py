"""RSA blind signatures, RSABSSA with SHA-384 (RFC 9474), for tokens of type 2 (RFC 9578 §6).

A client hides a message from the signer by a factor that only it knows, and takes the factor out of the signature.
Tokens use RSABSSA-SHA384-PSS-Deterministic: the message as it is, and a salt of 48 bytes. The other variants differ
in two ways only, a random prefix (`prepare_randomized`) and an empty salt, and RFC 9474's vectors test them too.

An origin needs none of this: it verifies plain RSASSA-PSS (`masque.privacypass.keys`). The raw private operation is
Python's `pow`, which takes a time that depends on the key. A random factor hides the message from that, but **this
signer is for development issuers and tests**; an issuer that others can time wants another one. No random number is
drawn here: factors and salts are arguments, made of the caller's random bytes.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

from masque.errors import LocalMisuse, Malformed
from masque.privacypass.keys import MODULUS_BITS, BlindRsaPublicKey, encode_spki, parse_blind_rsa_key

__all__ = [
    "ENTROPY_SIZE",
    "PREFIX_SIZE",
    "SALT_SIZE",
    "BlindRsaPrivateKey",
    "BlindedMessage",
    "blind_message",
    "blind_sign",
    "draw_factor",
    "finalize_signature",
    "parse_blind_rsa_private_key",
    "prepare_randomized",
]

SALT_SIZE = 48
"Bytes of the salt of the PSS variants; the PSSZERO variants have none (RFC 9474 §5)."
PREFIX_SIZE = 32
"Bytes of the prefix of the Randomized variants (RFC 9474 §4.1)."
ENTROPY_SIZE = MODULUS_BITS // 8 + 16
"Random bytes that make one factor for a token key: 128 bits more than the modulus, so that none is likelier."

_HASH_SIZE = 48


@dataclass(frozen=True, slots=True)
class BlindedMessage:
    """What the signer gets, and what the client keeps (RFC 9474 §4.2)."""

    data: bytes = field(repr=False)
    "The blinded message, as long as the modulus."
    inverse: int = field(repr=False)
    "The factor's inverse; who knows it can link the signature to the request."


@dataclass(frozen=True, slots=True)
class BlindRsaPrivateKey:
    """A development issuer's key for tokens of type 2; `parse_blind_rsa_private_key` makes it."""

    public: BlindRsaPublicKey
    "What clients and origins get."
    numbers: rsa.RSAPrivateNumbers = field(repr=False)
    "The secret."

    def sign(self, blinded_message: bytes, entropy: bytes) -> bytes:
        """Answer a client: blind_sig (RFC 9578 §6.2).

        Args:
            blinded_message: from the client.
            entropy: `ENTROPY_SIZE` random bytes, not used for anything else.

        Returns:
            256 bytes.

        Raises:
            Malformed: the message has another size or is too large a number (reach STREAM, code H3_MESSAGE_ERROR).
            LocalMisuse: too few random bytes, or the key is broken.
        """
        return blind_sign(self.numbers, blinded_message, draw_factor(self.public.modulus, entropy))


def parse_blind_rsa_private_key(data: bytes) -> BlindRsaPrivateKey:
    """Read a private key (PKCS #8, RFC 5208 §5).

    Args:
        data: PEM or DER, without a password.

    Returns:
        The key, with the public key that RFC 9578 §6.5 asks for.

    Raises:
        Malformed: no private key, one with a password, or not an RSA key of 2048 bits (reach STREAM, code
            H3_MESSAGE_ERROR).
    """
    load = load_pem_private_key if b"-----BEGIN" in data else load_der_private_key
    try:
        key = load(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Malformed("a private key that cannot be read") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise Malformed("a private key that is no RSA key")
    numbers = key.private_numbers()
    spki = encode_spki(numbers.public_numbers.n, numbers.public_numbers.e)
    return BlindRsaPrivateKey(parse_blind_rsa_key(spki), numbers)


def draw_factor(modulus: int, entropy: bytes) -> int:
    """Make a factor of random bytes: a number from 1 to n - 1, each as likely as the others (RFC 9474 §4.2).

    Args:
        modulus: n.
        entropy: random bytes, at least 16 more than the modulus has, not used for anything else.

    Raises:
        LocalMisuse: too few bytes.
    """
    if len(entropy) < (modulus.bit_length() + 7) // 8 + 16:
        raise LocalMisuse("too few random bytes for a factor")
    return 1 + int.from_bytes(entropy, "big") % (modulus - 1)


def prepare_randomized(message: bytes, prefix: bytes) -> bytes:
    """Prepare a message for the Randomized variants; for the others it stays as it is (RFC 9474 §4.1).

    Args:
        message: what is to be signed.
        prefix: `PREFIX_SIZE` random bytes.

    Returns:
        The input message, which is what verifies.

    Raises:
        LocalMisuse: the prefix has another size.
    """
    if len(prefix) != PREFIX_SIZE:
        raise LocalMisuse("a prefix of a wrong size")
    return prefix + message


def blind_message(public: rsa.RSAPublicNumbers, message: bytes, factor: int, salt: bytes) -> BlindedMessage:
    """Hide a message from its signer (RFC 9474 §4.2).

    Args:
        public: the signer's key.
        message: the input message.
        factor: from `draw_factor`, used once.
        salt: `SALT_SIZE` random bytes, or none for the PSSZERO variants.

    Returns:
        What the signer gets, and the inverse that `finalize_signature` wants.

    Raises:
        LocalMisuse: a factor that is out of range or has no inverse, a key too short for the salt, or a message
            that shares a divisor with the modulus (which no one finds by chance).
    """
    modulus = public.n
    number = int.from_bytes(_encode_pss(message, salt, modulus.bit_length() - 1), "big")
    if not 1 <= factor < modulus or math.gcd(factor, modulus) != 1 or math.gcd(number, modulus) != 1:
        raise LocalMisuse("a message or factor that cannot be blinded")
    blinded = number * pow(factor, public.e, modulus) % modulus
    return BlindedMessage(_encode_number(blinded, modulus), pow(factor, -1, modulus))


def blind_sign(private: rsa.RSAPrivateNumbers, blinded_message: bytes, factor: int) -> bytes:
    """Sign what a client has blinded (RFC 9474 §4.3). For development issuers and tests: see the module's text.

    The number is multiplied by the power of a factor of our own first, so that the time taken says little; the
    result is checked, so that a fault while computing does not give the key away.

    Args:
        private: the signer's key.
        blinded_message: from the client.
        factor: from `draw_factor`, used once.

    Returns:
        The blind signature, as long as the modulus. The same for every factor.

    Raises:
        Malformed: the message has another size than the modulus or is not below it (reach STREAM, code
            H3_MESSAGE_ERROR).
        LocalMisuse: a factor without an inverse, or a key whose numbers do not belong together.
    """
    modulus, exponent = private.public_numbers.n, private.public_numbers.e
    message = _parse_number(blinded_message, modulus)
    if not 1 <= factor < modulus or math.gcd(factor, modulus) != 1:
        raise LocalMisuse("a factor without an inverse")
    hidden = message * pow(factor, exponent, modulus) % modulus
    of_p = pow(hidden % private.p, private.dmp1, private.p)
    of_q = pow(hidden % private.q, private.dmq1, private.q)
    signed = of_q + (of_p - of_q) * private.iqmp % private.p * private.q
    signature = signed * pow(factor, -1, modulus) % modulus
    if pow(signature, exponent, modulus) != message:
        raise LocalMisuse("a blind signature that does not verify")
    return _encode_number(signature, modulus)


def finalize_signature(
    public: rsa.RSAPublicNumbers, message: bytes, blind_signature: bytes, inverse: int, salt_size: int = SALT_SIZE
) -> bytes:
    """Take the factor out of a blind signature, and verify what is left (RFC 9474 §4.4).

    Args:
        public: the signer's key.
        message: the input message, as `blind_message` had it.
        blind_signature: from the signer.
        inverse: from `blind_message`.
        salt_size: of the salt that `blind_message` had.

    Returns:
        A signature that verifies as RSASSA-PSS.

    Raises:
        Malformed: the signature has another size, is not below the modulus, or is not one for this message and
            key (reach STREAM, code H3_MESSAGE_ERROR).
    """
    modulus = public.n
    signature = _encode_number(_parse_number(blind_signature, modulus) * inverse % modulus, modulus)
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), salt_size)
    try:
        public.public_key().verify(signature, message, pss, hashes.SHA384())
    except InvalidSignature:
        raise Malformed("a blind signature that does not verify") from None
    return signature


def _encode_pss(message: bytes, salt: bytes, bits: int) -> bytes:
    """Encode a message for signing, EMSA-PSS-ENCODE with SHA-384 and MGF1 (RFC 8017 §9.1.1)."""
    size = (bits + 7) // 8
    if size < _HASH_SIZE + len(salt) + 2:
        raise LocalMisuse("a key too short for the salt")
    digest = hashlib.sha384(bytes(8) + hashlib.sha384(message).digest() + salt).digest()
    block = (b"\x01" + salt).rjust(size - _HASH_SIZE - 1, b"\0")
    rounds = range(len(block) // _HASH_SIZE + 1)
    mask = b"".join(hashlib.sha384(digest + number.to_bytes(4, "big")).digest() for number in rounds)
    masked = int.from_bytes(block, "big") ^ int.from_bytes(mask[: len(block)], "big")
    masked &= (1 << bits - 8 * (_HASH_SIZE + 1)) - 1
    return masked.to_bytes(len(block), "big") + digest + b"\xbc"


def _parse_number(data: bytes, modulus: int) -> int:
    """Read a number below the modulus from as many bytes as that has."""
    number = int.from_bytes(data, "big")
    if len(data) != (modulus.bit_length() + 7) // 8 or number >= modulus:
        raise Malformed("a blinded message or signature of a wrong size")
    return number


def _encode_number(number: int, modulus: int) -> bytes:
    """Write a number in as many bytes as the modulus has."""
    return number.to_bytes((modulus.bit_length() + 7) // 8, "big")
