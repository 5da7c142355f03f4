"""A process that checks tokens of type 1 for a relay. It imports `masque` alone, so that it is soon there.

It reads orders from standard input and answers each with a byte on standard output, 1 for a good token and 0 for
another. It ends with its input, so it never outlives the relay, and takes no notice of signals that are meant for
that: tunnels are still opened while a relay drains.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import lru_cache
from typing import BinaryIO

from masque.privacypass import KEY_ID_SIZE, NONCE_SIZE, SEED_SIZES, TokenType, VoprfPrivateKey

__all__ = ["INPUT_SIZE", "OUTPUT_SIZE", "encode_order", "main", "serve"]

INPUT_SIZE = 2 + NONCE_SIZE + 2 * KEY_ID_SIZE
"Bytes of a token's input."
OUTPUT_SIZE = TokenType.VOPRF_P384.authenticator_size
"Bytes of an authenticator."
_KEYS = 64
_NICE = 5
"Below the relay's own priority: where they share a processor, packets go first."


def encode_order(seed: bytes, token_input: bytes, authenticator: bytes) -> bytes:
    """Write one check: the size of the seed in a byte, the seed, the token's input, the authenticator."""
    return bytes((len(seed),)) + seed + token_input + authenticator


def serve(orders: BinaryIO, answers: BinaryIO) -> None:
    """Answer orders until they end.

    Raises:
        ValueError: an order that no relay writes.
    """
    while size := orders.read(1):
        if size[0] not in SEED_SIZES:
            raise ValueError("an order with a seed of an impossible size")
        order = orders.read(size[0] + INPUT_SIZE + OUTPUT_SIZE)
        if len(order) < size[0] + INPUT_SIZE + OUTPUT_SIZE:
            return
        seed, token_input = order[: size[0]], order[size[0] : -OUTPUT_SIZE]
        answers.write(bytes((_key(seed).verify(token_input, order[-OUTPUT_SIZE:]),)))
        answers.flush()


def main() -> None:
    """Serve the process that started this one."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICE)
    serve(sys.stdin.buffer, sys.stdout.buffer)


@lru_cache(_KEYS)
def _key(seed: bytes) -> VoprfPrivateKey:
    return VoprfPrivateKey(seed)


if __name__ == "__main__":
    main()
