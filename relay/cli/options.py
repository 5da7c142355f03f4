"""What several commands share: settings from the command line, addresses."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from collections.abc import Coroutine
from pathlib import Path

from relay.client import ClientError, RelayOptions
from relay.quic.engine import Address, EngineName
from relay.settings import Settings, SettingsError, load_settings

__all__ = [
    "add_client",
    "add_issuer",
    "add_relay",
    "add_settings",
    "check_ca",
    "format_address",
    "issuer_authorization",
    "load",
    "parse_address",
    "read_key",
    "relay_options",
    "until_terminated",
    "wall_clock",
]


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add what gives settings to a command."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, TOML")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="one setting, stronger than file and environment",
    )


def add_client(parser: argparse.ArgumentParser) -> None:
    """Add what a command that connects to a relay asks."""
    parser.add_argument("--key", help="a preshared key; visible in the list of processes, so rather --key-file")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="a file that holds the preshared key")
    add_relay(parser)


def add_relay(parser: argparse.ArgumentParser) -> None:
    """Add how a command connects to a relay, without what it shows there."""
    parser.add_argument("--ca", type=Path, metavar="FILE", help="PEM file with the authority to trust")
    parser.add_argument("--insecure", action="store_true", help="accept any certificate of the relay; for tests")
    parser.add_argument("--engine", choices=[name.value for name in EngineName], default=EngineName.QH3.value)


def add_issuer(parser: argparse.ArgumentParser, prefix: str) -> None:
    """Add what a command that asks an issuer of tokens needs; `prefix` begins the options' names."""
    parser.add_argument(f"--{prefix}", metavar="URL", help="the issuer: https://host[:port], or its directory's URL")
    parser.add_argument(
        f"--{prefix}-name", metavar="NAME", help="its name in challenges, when that is not the URL's host[:port]"
    )
    parser.add_argument(
        f"--{prefix}-ca", type=Path, metavar="FILE", help="PEM file with the authority to trust there"
    )
    parser.add_argument(
        f"--{prefix}-key-file", type=Path, metavar="FILE", help="a file that holds a preshared key of the issuer"
    )


def load(options: argparse.Namespace, defaults: dict[str, str] | None = None) -> Settings:
    """Read the settings that the options of `add_settings` name. Raises SettingsError."""
    overrides = dict(defaults or {})
    for item in options.set:
        name, separator, value = item.partition("=")
        if not separator:
            raise SettingsError(f"--set {name}: must be NAME=VALUE")
        overrides[name] = value
    return load_settings(options.config, os.environ, overrides)


def read_key(options: argparse.Namespace) -> str | None:
    """The key that the options of `add_client` name, or None. Raises ClientError."""
    check_ca(options.ca, "--ca")
    if options.key_file is None:
        key: str | None = options.key
        return key
    return _read_key_file(options.key_file, "--key-file")


def issuer_authorization(key_file: Path | None, name: str) -> str | None:
    """What an issuer is shown, by the options of `add_issuer`; `name` is the option's. Raises ClientError."""
    return None if key_file is None else f"Preshared {_read_key_file(key_file, name)}"


def check_ca(ca_file: Path | None, name: str) -> None:
    """See that a file of authorities is there; `name` is the option's. Raises ClientError."""
    if ca_file is not None and not ca_file.is_file():
        raise ClientError(f"{name}: cannot read {ca_file}")


def relay_options(options: argparse.Namespace, key: str | None = None) -> RelayOptions:
    """Which relay the options `--relay` and those of `add_relay` name. Raises ClientError."""
    check_ca(options.ca, "--ca")
    return RelayOptions(
        options.relay,
        key=key,
        ca_file=options.ca,
        is_verified=not options.insecure,
        engine=EngineName(options.engine),
    )


async def until_terminated(work: Coroutine[object, object, None]) -> None:
    """Run `work`; SIGTERM ends it in order."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await work
    except asyncio.CancelledError:
        return


def wall_clock() -> float:
    """Seconds since 1970, for times of the calendar such as those of an issuer's keys (RFC 9578 §4)."""
    return time.time()  # noqa: TID251  the loop's clock knows no calendar


def _read_key_file(path: Path, name: str) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise ClientError(f"{name}: cannot read {path}: {error.strerror}") from error
    except UnicodeError:
        raise ClientError(f"{name}: {path} holds no text") from None


def parse_address(text: str, name: str, lowest: int = 1) -> tuple[str, int]:
    """Take HOST:PORT apart; `name` is what to call it. Raises ClientError."""
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isdecimal() or not lowest <= int(port) <= 65535:
        raise ClientError(f"{name}: must be HOST:PORT, with brackets around an IPv6 address, not {text}")
    return host, int(port)


def format_address(address: Address) -> str:
    """HOST:PORT, with brackets around an IPv6 address."""
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
