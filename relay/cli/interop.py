"""`relay interop`: plays the conformance cases against any server and prints what came of them."""

from __future__ import annotations

import argparse
from pathlib import Path

from masque.template import DEFAULT_UDP_TEMPLATE
from relay.cli.options import add_client

__all__ = ["add_interop"]


def add_interop(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    interop = commands.add_parser("interop", help="test any MASQUE server: play cases against it and print a report")
    interop.add_argument("url", metavar="URL", nargs="?", help="the server: https://host:port")
    interop.add_argument("--list", action="store_true", help="print the cases and what each proves, and end")
    interop.add_argument("--case", action="append", default=[], metavar="NAMES", help="only these, with commas")
    add_client(interop)
    interop.add_argument("--authorization", metavar="VALUE", help="a whole Proxy-Authorization value, not a key")
    interop.add_argument("--template", metavar="PATH", default=DEFAULT_UDP_TEMPLATE, help="of CONNECT-UDP")
    interop.add_argument(
        "--origin-host",
        metavar="ADDR",
        help="this machine's address, as the server reaches it",
    )
    interop.add_argument("--origin-host6", metavar="ADDR", help="the same over IPv6")
    interop.add_argument("--origin-name", metavar="NAME", help="a name that the server resolves to --origin-host")
    interop.add_argument("--forbidden", metavar="HOST:PORT", help="a target that the server must refuse")
    interop.add_argument("--without", action="append", default=[], choices=("tcp", "udp"), help="what it has not")
    interop.add_argument("--streams", type=int, default=100, metavar="N", help="how many tunnels it allows at once")
    interop.add_argument("--strict", action="store_true", help="count what it only should do like what it must do")
    interop.add_argument("--json", type=Path, metavar="FILE", help="write the report there as well")
    interop.set_defaults(command=_interop)


def _interop(options: argparse.Namespace) -> int:
    from relay.cli.conformance import run_interop  # only now: a serving relay has no use for origins and clients

    return run_interop(options)
