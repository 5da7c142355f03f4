"""What `relay token issuer` does: a development issuer until SIGTERM, and a hint of what to try."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import ssl
from pathlib import Path

from masque.errors import LocalMisuse
from relay.cli.options import format_address, parse_address, until_terminated
from relay.client import ClientError
from relay.issuance import read_key_file
from relay.issuer import DevelopmentIssuer, serve_issuer

__all__ = ["run_issuer"]


def run_issuer(options: argparse.Namespace) -> int:
    """Serve an issuer for development.

    Args:
        options: the command line.

    Returns:
        0, once it was told to stop.

    Raises:
        KeyFileError: a key cannot be read.
        ClientError: another mistake on the command line.
    """
    listen = parse_address(options.listen, "--listen", lowest=0)
    folder: Path = options.certificates
    keys = [read_key_file(path) for path in options.key]
    try:
        issuer = DevelopmentIssuer(keys, options.preshared)
    except LocalMisuse as error:
        raise ClientError(f"--key: {error.detail}") from None
    except ValueError as error:
        raise ClientError(f"--preshared: {error}") from None
    certificate = (folder / "server.pem", folder / "server.key")
    for path in certificate:
        if not path.is_file():
            command = f"python -m certs.generate --out {shlex.quote(str(folder))}"
            raise ClientError(f"--certificates: no {path}; make it, in a checkout of masque-relay, with: {command}")

    def ready(host: str, port: int) -> None:
        address = format_address((host, port))
        print(f"relay: an issuer of tokens, for development only, at https://{address}", flush=True)
        if options.preshared is None:
            print("relay: it asks nobody who they are: whoever reaches it gets tokens", flush=True)

    try:
        asyncio.run(until_terminated(serve_issuer(issuer, listen, certificate, ready)))
    except ssl.SSLError:
        raise ClientError(f"--certificates: {folder} holds no certificate and key that belong together") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error.strerror
        raise ClientError(f"--listen: cannot use {options.listen}: {reason}") from error
    return 0
