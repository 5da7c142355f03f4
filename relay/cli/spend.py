"""Where `relay forward` has its tokens from, as its options say."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from relay.cli.options import add_issuer, check_ca, issuer_authorization, wall_clock
from relay.client import ClientError, FileTokens, IssuedTokens, TokenSource, TokenSources
from relay.issuance import Issuer, issuer_authority, open_http

__all__ = ["Tokens", "add_tokens", "check_tokens", "open_tokens"]

_MAX_STOCK = 256


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the options gave."""

    source: TokenSource | None = None
    "Where tokens come from; None when the options name nothing."
    issued: IssuedTokens | None = None
    "Those of an issuer, whose stock somebody has to keep."


def add_tokens(parser: argparse.ArgumentParser) -> None:
    """Add what spends tokens."""
    parser.add_argument("--tokens", type=Path, metavar="FILE", help="spend tokens of this file, one a line")
    add_issuer(parser, "token-issuer")
    parser.add_argument(
        "--token-stock", type=int, default=4, metavar="N", help="how many tokens of the issuer to have ready"
    )


def check_tokens(options: argparse.Namespace) -> bool:
    """See that the options of `add_tokens` make sense.

    Args:
        options: the command line, with the options of `add_client` too.

    Returns:
        True when tokens are to be spent.

    Raises:
        ClientError: they do not.
    """
    spends = options.tokens is not None or options.token_issuer is not None
    if spends and (options.key is not None or options.key_file is not None):
        raise ClientError("--tokens, --token-issuer: not together with a key; a relay reads one of them only")
    if options.token_issuer is None and (options.token_issuer_ca or options.token_issuer_key_file):
        raise ClientError("--token-issuer-ca, --token-issuer-key-file: they need --token-issuer")
    if options.token_issuer is None and options.token_issuer_name is not None:
        raise ClientError("--token-issuer-name: it needs --token-issuer")
    if not 0 <= options.token_stock <= _MAX_STOCK:
        raise ClientError(f"--token-stock: must be a number from 0 to {_MAX_STOCK}")
    if options.tokens is not None and not options.tokens.is_file():
        raise ClientError(f"--tokens: no file {options.tokens}")
    check_ca(options.token_issuer_ca, "--token-issuer-ca")
    return spends


@asynccontextmanager
async def open_tokens(options: argparse.Namespace) -> AsyncIterator[Tokens]:
    """Make the source for the time of the context; nothing is fetched yet.

    Args:
        options: checked by `check_tokens`.

    Raises:
        ClientError: a file cannot be read.
        IssuanceError: the issuer's URL is none, or its authority cannot be read.
    """
    sources: list[TokenSource] = []
    issued = None
    async with AsyncExitStack() as stack:
        if options.tokens is not None:
            sources.append(FileTokens(options.tokens))
        if options.token_issuer is not None:
            url, key_file = options.token_issuer, options.token_issuer_key_file
            authorization = issuer_authorization(key_file, "--token-issuer-key-file")
            http = await stack.enter_async_context(open_http(options.token_issuer_ca, authorization))
            name = options.token_issuer_name or issuer_authority(url)
            issued = IssuedTokens(Issuer(http, url, wall_clock), name, options.token_stock)
            sources.append(issued)
        yield Tokens(TokenSources(sources) if sources else None, issued)
