"""The scheme PrivateToken: the relay as an origin of Privacy Pass (RFC 9576, RFC 9577, RFC 9578).

`prepare_tokens` reads what the settings name, and `TokenGate` admits by it: `challenges` says what is asked for,
`key_ring` what is verified by, `checks` verifies off the packet loop, and `relay.spent` counts.
"""

from __future__ import annotations

from relay.auth.private_token.gate import TokenGate
from relay.auth.private_token.prepare import TokenParts, describe_tokens, prepare_tokens

__all__ = ["TokenGate", "TokenParts", "describe_tokens", "prepare_tokens"]
