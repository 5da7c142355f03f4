"""Authentication: who may use the relay (RFC 9110 §11)."""

from __future__ import annotations

from relay.auth.basic import BasicScheme, scrypt_digest
from relay.auth.certificate import certificate_hooks
from relay.auth.credentials import MAX_CREDENTIALS, Credentials, find_credentials, parse_credentials
from relay.auth.hook import auth_hooks, scheme_hooks
from relay.auth.keys import basic_entry, check_user, generate_key, preshared_entry
from relay.auth.preshared import PresharedScheme
from relay.auth.private_token import TokenGate, TokenParts, describe_tokens, prepare_tokens
from relay.auth.schemes import Scheme

__all__ = [
    "MAX_CREDENTIALS",
    "BasicScheme",
    "Credentials",
    "PresharedScheme",
    "Scheme",
    "TokenGate",
    "TokenParts",
    "auth_hooks",
    "basic_entry",
    "certificate_hooks",
    "check_user",
    "describe_tokens",
    "find_credentials",
    "generate_key",
    "parse_credentials",
    "prepare_tokens",
    "preshared_entry",
    "scheme_hooks",
    "scrypt_digest",
]
