"""`relay token`: keys of an issuer, a development issuer, tokens fetched, and what tokens and challenges say."""

from __future__ import annotations

import argparse
from pathlib import Path

from relay.cli.options import add_issuer, add_relay

__all__ = ["add_token"]


def add_token(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its parts."""
    token = commands.add_parser("token", help="Privacy Pass: issuers' keys, a development issuer, tokens")
    parts = token.add_subparsers(required=True, metavar="PART")
    for add in (_add_key, _add_issuer, _add_fetch, _add_show):
        add(parts)


def _add_key(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    key = parts.add_parser("key", help="make an issuer's key: a private file, and a public one beside it")
    key.add_argument("file", type=Path, metavar="FILE", help="the private key; the public one is FILE with .pub")
    _add_type(key, default=2)
    key.set_defaults(command=_key)


def _add_issuer(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    issuer = parts.add_parser("issuer", help="serve an issuer for development: whoever reaches it gets tokens")
    issuer.add_argument(
        "--key",
        action="append",
        required=True,
        type=Path,
        metavar="FILE",
        help="a private key; the first is preferred",
    )
    issuer.add_argument("--listen", metavar="ADDR:PORT", default="127.0.0.1:4440", help="port 0 takes any")
    issuer.add_argument("--certificates", type=Path, default=Path("certs"), metavar="DIR")
    issuer.add_argument(
        "--preshared", metavar="ENTRY", help="only for clients with this key; `relay key` makes key and entry"
    )
    issuer.set_defaults(command=_issuer)


def _add_fetch(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    fetch = parts.add_parser("fetch", help="get tokens from an issuer, for a relay's challenge or one of yours")
    fetch.add_argument("--relay", metavar="URL", help="ask this relay for its challenge")
    add_relay(fetch)
    fetch.add_argument(
        "--challenge", metavar="TEXT", help="a challenge as a 407 has it; - reads it from standard input"
    )
    add_issuer(fetch, "issuer")
    _add_type(fetch, default=None)
    fetch.add_argument("--origin", action="append", default=[], metavar="NAME", help="an origin of your challenge")
    fetch.add_argument(
        "--context", default="", metavar="HEX", help="the redemption context of your challenge, 32 bytes"
    )
    fetch.add_argument("--count", type=int, default=1, metavar="N", help="how many tokens")
    fetch.add_argument("--out", type=Path, metavar="FILE", help="append them to this file, and do not print them")
    fetch.set_defaults(command=_fetch)


def _add_show(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    show = parts.add_parser("show", help="say what a token, challenge, directory or key is; needs no network")
    show.add_argument("what", metavar="WHAT", help="a file, the text itself, or - for standard input")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(command=_show)


def _add_type(parser: argparse.ArgumentParser, default: int | None) -> None:
    parser.add_argument(
        "--type", type=int, choices=(1, 2), default=default, help="1: VOPRF over P-384, 2: Blind RSA (RFC 9578)"
    )


# The parts are imported only when they are run: a serving relay has no use for issuers.


def _key(options: argparse.Namespace) -> int:
    from relay.cli.token_key import make_key

    return make_key(options)


def _issuer(options: argparse.Namespace) -> int:
    from relay.cli.token_issuer import run_issuer

    return run_issuer(options)


def _fetch(options: argparse.Namespace) -> int:
    from relay.cli.token_fetch import fetch_tokens

    return fetch_tokens(options)


def _show(options: argparse.Namespace) -> int:
    from relay.cli.token_show import show

    return show(options)
