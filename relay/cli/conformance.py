"""What `relay interop` does: the server described, the origins started, the cases played."""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import tempfile
from pathlib import Path

from relay.cli.options import parse_address, read_key
from relay.client import ClientError, resolve_relay, split_relay_url
from relay.conformance import (
    ALL_CASES,
    Case,
    Need,
    Outcome,
    Server,
    Stage,
    Verdict,
    WireDriver,
    WireOptions,
    can_listen,
    encode_report,
    play,
    render_cases,
    render_outcome,
    render_summary,
    running_origins,
)
from relay.conformance.driver import DriverError, Headers
from relay.quic.engine import EngineName

__all__ = ["run_interop"]

_LOOPBACK6 = "::1"
_FORBIDDEN = "127.0.0.2:9"
"A target that no relay on another machine should open; nobody listens there."


def run_interop(options: argparse.Namespace) -> int:
    """Do what `relay interop` was asked.

    Args:
        options: its command line.

    Returns:
        0 when no case failed, else 1.

    Raises:
        ClientError: a mistake on the command line, or no server there.
    """
    cases = _choose(options.case)
    if options.list:
        print(render_cases(cases), end="")
        return 0
    if options.url is None:
        raise ClientError("interop: name the server: https://host:port")
    outcomes = asyncio.run(_play_all(options, cases))
    print(render_summary(outcomes), end="")
    if options.json is not None:
        try:
            options.json.write_text(json.dumps(encode_report(options.url, outcomes), indent=1) + "\n")
        except OSError as error:
            raise ClientError(f"--json: cannot write {options.json}: {error.strerror}") from error
    return int(any(outcome.verdict is Verdict.FAIL for outcome in outcomes))


def _choose(wanted: list[str]) -> list[Case]:
    names = [name for group in wanted for name in group.split(",") if name]
    known = {case.name: case for case in ALL_CASES}
    if unknown := [name for name in names if name not in known]:
        raise ClientError(f"--case: unknown: {', '.join(unknown)}; `relay interop --list` prints all")
    return [case for case in ALL_CASES if not names or case.name in names]


async def _play_all(options: argparse.Namespace, cases: list[Case]) -> list[Outcome]:
    """Play the cases one after the other, each on a connection of its own."""
    wire = await _wire_options(options)
    server = _describe(options, wire.host)
    await _reach(wire, options.url)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="relay-interop-") as folder:
        hosts = tuple(filter(None, (server.host, server.host6)))
        try:
            async with running_origins(hosts, Path(folder), tuple(filter(None, (*hosts, server.name)))) as origins:
                print(f"{options.url} reaches the origins of these cases at {' and '.join(hosts)}", flush=True)
                for case in cases:
                    async with WireDriver(wire) as driver:
                        outcome = await play(case, Stage(driver, server, origins))
                    outcomes.append(outcome)
                    print(render_outcome(outcome), end="", flush=True)
        except (OSError, ValueError) as error:
            raise ClientError(f"--origin-host: cannot serve origins at {' and '.join(hosts)}: {error}") from error
    return outcomes


async def _wire_options(options: argparse.Namespace) -> WireOptions:
    """Where and how to connect."""
    host, port, authority = split_relay_url(options.url)
    address = await resolve_relay(host, port)
    return WireOptions(
        address[0],
        address[1],
        EngineName(options.engine),
        server_name=host,
        ca_file=options.ca,
        is_verified=not options.insecure,
        authority=authority,
        template=options.template,
    )


async def _reach(wire: WireOptions, url: str) -> None:
    """Make one connection, so that an absent server is one line and not a report. Raises ClientError."""
    async with WireDriver(wire) as driver:
        try:
            await driver.connect()
        except DriverError as error:
            raise ClientError(f"no HTTP/3 connection to {url}: {error}") from error


def _describe(options: argparse.Namespace, server_host: str) -> Server:
    """Say what the server offers, as far as the command line tells."""
    host = options.origin_host or _own_address(server_host)
    is_local = server_host in {"127.0.0.1", _LOOPBACK6}
    host6 = options.origin_host6 or (_LOOPBACK6 if is_local and host != _LOOPBACK6 and can_listen(_LOOPBACK6) else "")
    forbidden = options.forbidden or ("" if is_local else _FORBIDDEN)
    credentials = _credentials(options)
    offers = {
        Need.TCP: "tcp" not in options.without,
        Need.UDP: "udp" not in options.without,
        Need.IPV6: host6,
        Need.NAME: options.origin_name,
        Need.AUTH: credentials,
        Need.REFUSALS: forbidden,
    }
    return Server(
        frozenset(need for need, has in offers.items() if has),
        host,
        host6,
        options.origin_name or "",
        forbidden=parse_address(forbidden, "--forbidden") if forbidden else ("", 0),
        credentials=credentials,
        wrong_credentials=[(name, f"{value[:-4]}0000") for name, value in credentials],
        streams=options.streams,
        is_strict=options.strict,
    )


def _credentials(options: argparse.Namespace) -> Headers:
    key = read_key(options)
    value = options.authorization or (None if key is None else f"Preshared {key}")
    return [] if value is None else [("proxy-authorization", value)]


def _own_address(server_host: str) -> str:
    """The address that this machine uses towards the server."""
    with socket.socket(socket.AF_INET6 if ":" in server_host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((server_host, 9))
        except OSError as error:
            raise ClientError(f"--origin-host: no way to {server_host}: {error.strerror}") from error
        return str(sock.getsockname()[0])
