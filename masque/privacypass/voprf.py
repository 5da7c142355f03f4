"""The verifiable pseudorandom function of tokens of type 1, VOPRF(P-384, SHA-384) (RFC 9497, RFC 9578 §5).

The group and the proofs are the `voprf` package's. What it does decides four things here:

- it draws its own random numbers, a client's blind and a proof's nonce, and takes none from its caller;
- it makes private keys from a seed only (RFC 9497 §3.2.1), so a key that exists as a scalar cannot be used;
- it writes a proof before its element, where RFC 9578 §5.2 has the element first; we turn them around;
- it reads points in a second form of 49 bytes, compacted, which RFC 9497 §4.4 does not have; we refuse those.

It keeps the interpreter's lock while it computes, about a millisecond at a time: threads do not make it faster.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from voprf import p384

from masque.errors import LocalMisuse, Malformed
from masque.privacypass.keys import ELEMENT_SIZE, VoprfPublicKey, parse_voprf_key
from masque.privacypass.tokens import TokenType

__all__ = ["EVALUATION_SIZE", "KEY_INFO", "SEED_SIZES", "VoprfBlinding", "VoprfPrivateKey", "blind_voprf"]

KEY_INFO = b"PrivacyPass"
"The public part of a key's derivation (RFC 9578 §5.5)."
SEED_SIZES = (32, 48)
"Bytes of a seed: 32 in RFC 9497 §3.2.1, Ns, which is 48, in RFC 9578 §5.5."
EVALUATION_SIZE = ELEMENT_SIZE + 2 * 48
"Bytes of what an issuer answers: an element and a proof of two scalars, Ne + Ns + Ns (RFC 9578 §5.2)."

_PROOF_SIZE = EVALUATION_SIZE - ELEMENT_SIZE


class VoprfPrivateKey:
    """An issuer's key for tokens of type 1, which is also what their verification takes."""

    __slots__ = ("_evaluator", "public")

    def __init__(self, seed: bytes, info: bytes = KEY_INFO) -> None:
        """Derive the key, DeriveKeyPair (RFC 9497 §3.2.1).

        Args:
            seed: 32 or 48 random bytes, the secret.
            info: any bytes, not secret; another one makes another key.

        Raises:
            LocalMisuse: a seed of another size, or an info that is too long.
        """
        if len(seed) not in SEED_SIZES:
            raise LocalMisuse("a seed of a wrong size")
        try:
            self._evaluator = p384.Evaluator.from_seed(seed, info)
        except ValueError:
            raise LocalMisuse("a seed and info that make no key") from None
        self.public = parse_voprf_key(self._evaluator.public_key.serialize())
        "What clients get."

    @property
    def token_type(self) -> TokenType:
        """The type of the tokens that the key is for."""
        return TokenType.VOPRF_P384

    @property
    def key_id(self) -> bytes:
        """The public key's id (RFC 9578 §5.5)."""
        return self.public.key_id

    def verify(self, token_input: bytes, authenticator: bytes) -> bool:
        """Check a token's authenticator (RFC 9578 §5.4). Takes about a millisecond.

        Args:
            token_input: `Token.input`.
            authenticator: `Token.authenticator`.

        Returns:
            True when this key made it; compared in constant time.
        """
        return hmac.compare_digest(self._evaluator.evaluate_known_input(token_input), authenticator)

    def evaluate(self, blinded_element: bytes) -> bytes:
        """Answer a client: evaluate_msg and evaluate_proof (RFC 9578 §5.2).

        Args:
            blinded_element: from the client.

        Returns:
            145 bytes, with another proof each time.

        Raises:
            Malformed: this is no element, or the group's identity (reach STREAM, code H3_MESSAGE_ERROR).
        """
        if not _is_compressed(blinded_element):
            raise Malformed("a blinded element that is no compressed point")
        try:
            output = self._evaluator.evaluate(p384.BlindedInput.deserialize(blinded_element)).serialize()
        except ValueError:
            raise Malformed("a blinded element that is no point of P-384") from None
        return output[_PROOF_SIZE:] + output[:_PROOF_SIZE]


@dataclass(frozen=True, slots=True)
class VoprfBlinding:
    """A client between its request and the answer."""

    blinded_element: bytes = field(repr=False)
    "What the issuer gets, 49 bytes."
    _client: p384.Client = field(repr=False)

    def finalize(self, evaluation: bytes, key: VoprfPublicKey) -> bytes:
        """Check the issuer's proof and take the blind out (RFC 9578 §5.3, RFC 9497 §3.3.2).

        Args:
            evaluation: from the issuer, element and proof.
            key: the issuer's.

        Returns:
            The output, 48 bytes: a token's authenticator.

        Raises:
            Malformed: a wrong size, no element, no scalars, or a proof that does not hold for this key (reach
                STREAM, code H3_MESSAGE_ERROR).
        """
        if len(evaluation) != EVALUATION_SIZE or not _is_compressed(evaluation[:ELEMENT_SIZE]):
            raise Malformed("an evaluation of a wrong size or form")
        try:
            output = p384.VerifiableOutput.deserialize(evaluation[ELEMENT_SIZE:] + evaluation[:ELEMENT_SIZE])
            return self._client.finalize(output, p384.PublicKey.deserialize(key.encoded))
        except ValueError:
            raise Malformed("an evaluation whose proof does not hold") from None


def blind_voprf(token_input: bytes) -> VoprfBlinding:
    """Hide an input from the issuer (RFC 9578 §5.1, RFC 9497 §3.3.2). The blind is the `voprf` package's.

    Args:
        token_input: from `token_input`.

    Returns:
        What the issuer gets, and what finishes its answer.

    Raises:
        LocalMisuse: an input that is empty or too long.
    """
    try:
        client, blinded = p384.Client.blind(token_input)
    except ValueError:
        raise LocalMisuse("an input that cannot be blinded") from None
    return VoprfBlinding(blinded.serialize(), client)


def _is_compressed(data: bytes) -> bool:
    """Tell whether an element has the one form that it may have (RFC 9497 §4.4)."""
    return len(data) == ELEMENT_SIZE and data[0] in (2, 3)
