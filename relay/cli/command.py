"""The command `relay`: its parts, and the one way in which a mistake is told.

Every mistake of the caller is one readable line on standard error and exit code 2, before anything starts. An issuer
that gives no token is one line too, and exit code 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from relay import __version__
from relay.cli.egress import add_egress
from relay.cli.forward import add_forward
from relay.cli.interop import add_interop
from relay.cli.keys import add_key
from relay.cli.serve import add_check, add_dev, add_serve
from relay.cli.token import add_token
from relay.client import ClientError
from relay.issuance import IssuanceError, KeyFileError
from relay.quic.engine import EngineError
from relay.settings import SettingsError

__all__ = ["main", "make_parser"]

_USAGE_ERROR = 2
_NO_TOKEN = 1
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = make_parser().parse_args(arguments)
    try:
        command = options.command
        result: int = command(options)
        return result
    except (SettingsError, EngineError, ClientError, KeyFileError) as error:
        for line in str(error).splitlines():
            print(f"relay: {line}", file=sys.stderr)
        return _USAGE_ERROR
    except IssuanceError as error:
        print(f"relay: {error}", file=sys.stderr)
        return _NO_TOKEN
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the exit flushes into the closed pipe
        return 0
    except KeyboardInterrupt:
        return _INTERRUPTED


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    parser = argparse.ArgumentParser(prog="relay", description="A privacy relay's second hop.")
    parser.add_argument("--version", action="version", version=f"masque-relay {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (add_serve, add_check, add_key, add_token, add_forward, add_dev, add_interop, add_egress):
        add(commands)
    return parser
