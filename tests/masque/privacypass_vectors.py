"""The RFCs' vectors for Privacy Pass, and the keys in them."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from masque.privacypass import BlindRsaPrivateKey, VoprfPrivateKey, parse_blind_rsa_private_key

ENTROPY = bytes(range(256)) * 2
"Random enough for a signer of tests."
CHALLENGE_2 = bytes.fromhex("0002000e6973737565722e6578616d706c6500000e6f726967696e2e6578616d706c65")
"A challenge of issuer.example and origin.example, type 2."
CHALLENGE_1 = b"\x00\x01" + CHALLENGE_2[2:]
"The same, type 1."


@functools.cache
def load(name: str) -> Any:
    """Read a file of vectors."""
    return json.loads((Path(__file__).parent / "vectors" / f"{name}.json").read_text(encoding="utf-8"))


def unhex(vector: dict[str, str], *names: str) -> list[bytes]:
    """Return fields of a vector."""
    return [bytes.fromhex(vector[name]) for name in names]


@functools.cache
def rsa_key() -> BlindRsaPrivateKey:
    """The issuer's key of RFC 9578 appendix B.2."""
    return parse_blind_rsa_private_key(bytes.fromhex(load("rfc9578_blind_rsa")["skS"]))


@functools.cache
def voprf_key() -> VoprfPrivateKey:
    """A key of our own: no seed of a published Privacy Pass key is known."""
    return VoprfPrivateKey(b"\x01" * 32)
