"""What several commands share: settings from the command line, addresses."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from relay.client import ClientError
from relay.quic.engine import Address, EngineName
from relay.settings import Settings, SettingsError, load_settings

__all__ = ["add_client", "add_settings", "format_address", "load", "parse_address", "read_key"]


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
    parser.add_argument("--ca", type=Path, metavar="FILE", help="PEM file with the authority to trust")
    parser.add_argument("--insecure", action="store_true", help="accept any certificate of the relay; for tests")
    parser.add_argument("--engine", choices=[name.value for name in EngineName], default=EngineName.QH3.value)


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
    if options.ca is not None and not options.ca.is_file():
        raise ClientError(f"--ca: cannot read {options.ca}")
    if options.key_file is None:
        key: str | None = options.key
        return key
    try:
        text: str = options.key_file.read_text()
        return text.strip()
    except OSError as error:
        raise ClientError(f"--key-file: cannot read {options.key_file}: {error.strerror}") from error
    except UnicodeError:
        raise ClientError(f"--key-file: {options.key_file} holds no text") from None


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
