"""What `relay token key` does: two files, and what to do with them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from masque.privacypass import TokenType
from relay.issuance import make_key_files

__all__ = ["make_key"]


def make_key(options: argparse.Namespace) -> int:
    """Make an issuer's key.

    Args:
        options: the command line.

    Returns:
        0.

    Raises:
        KeyFileError: a file exists or cannot be written.
    """
    token_type = TokenType(options.type)
    private: Path = options.file
    public = private.with_name(private.name + ".pub")
    key = make_key_files(token_type, private, public)
    print(f"private key, for the issuer:  {private}")
    print(f"public key, for clients:      {public}")
    print(f"key id:                       {key.key_id.hex()}")
    if token_type is TokenType.BLIND_RSA_2048:
        wanted, why = public, "verifies with the public key"
    else:
        wanted, why = private, "can only verify with the private key; keep it as secret there as here"
    print(f"in the relay's tokens.issuers: keys = {json.dumps([str(wanted)])}, types = [{token_type.value}]")
    print(f"the relay {why}")
    return 0
