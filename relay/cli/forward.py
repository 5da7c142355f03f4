"""`relay forward`: a local port that leads through a relay."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path

from masque.errors import Malformed
from masque.geo import GEOHASH_HINT, parse_geohash_hint
from masque.head import Fields
from relay.cli.options import add_client, format_address, parse_address, read_key, relay_options, until_terminated
from relay.cli.spend import add_tokens, check_tokens, open_tokens
from relay.client import ClientError, TcpForwarder, UdpForwarder, run_stocked
from relay.quic.certificate import check_certificate
from relay.quic.engine import Address, Certificate, EngineError
from relay.telemetry import LogFormat, LogLevel, configure_logging

__all__ = ["add_forward"]


def add_forward(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    forward = commands.add_parser("forward", help="a local port that leads through a relay")
    forward.add_argument("kind", choices=("tcp", "udp"))
    forward.add_argument("target", metavar="HOST:PORT", help="where the relay should connect to")
    forward.add_argument("--listen", metavar="ADDR:PORT", default="127.0.0.1:0", help="local port; 0 takes any")
    forward.add_argument("--relay", metavar="URL", required=True, help="https://host:port")
    forward.add_argument("--location", metavar="GEOHASH-CC", help="where to appear to be, such as u33d-DE")
    add_client(forward)
    forward.add_argument("--certificate", type=Path, metavar="FILE", help="PEM file with our own certificate")
    forward.add_argument("--certificate-key", type=Path, metavar="FILE", help="PEM file with its private key")
    add_tokens(forward)
    forward.set_defaults(command=_forward)


def _forward(options: argparse.Namespace) -> int:
    host, port = parse_address(options.target, "the target")
    listen = parse_address(options.listen, "--listen", lowest=0)
    spends = check_tokens(options)
    configure_logging(LogLevel.WARNING, LogFormat.CONSOLE)
    common = relay_options(options, read_key(options))
    relay = replace(common, certificate=_certificate(options), fields=_hints(options.location))
    make = TcpForwarder if options.kind == "tcp" else UdpForwarder
    report = partial(_report_refusal, "" if spends else "; is the key right?")

    def ready(address: Address) -> None:
        print(f"relay: forwarding {options.kind} {format_address(address)} to {options.target}", flush=True)

    async def work() -> None:
        async with open_tokens(options) as tokens:
            forwarder = make(replace(relay, tokens=tokens.source), host, port, report)
            await run_stocked(tokens.issued, lambda: forwarder.run(listen, ready))

    try:
        asyncio.run(until_terminated(work()))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error.strerror  # asyncio and socket add to strerror
        raise ClientError(f"--listen: cannot use {options.listen}: {reason}") from error
    return 0


def _hints(location: str | None) -> Fields:
    """The field that asks for a location. Raises ClientError for what is none."""
    if location is None:
        return ()
    try:
        parse_geohash_hint(location.encode())
    except Malformed:
        raise ClientError(f"--location: must be a geohash, a hyphen and a country, not {location}") from None
    return ((GEOHASH_HINT, location.encode()),)


def _certificate(options: argparse.Namespace) -> Certificate | None:
    """The certificate to prove ourselves by. Raises ClientError before anything connects."""
    if options.certificate is None and options.certificate_key is None:
        return None
    if options.certificate is None or options.certificate_key is None:
        raise ClientError("--certificate, --certificate-key: one is of no use without the other")
    certificate = Certificate(options.certificate, options.certificate_key)
    try:
        check_certificate(certificate, ("--certificate", "--certificate-key"))
    except EngineError as error:
        raise ClientError(str(error)) from error
    return certificate


def _report_refusal(advice: str, error: ClientError) -> None:
    reason = f" ({error.proxy_status})" if error.proxy_status else ""
    more = advice if error.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED else ""
    print(f"relay: {error}{reason}{more}", file=sys.stderr, flush=True)
