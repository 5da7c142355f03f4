"""`relay key`: credentials for a client and their entries for the settings."""

from __future__ import annotations

import argparse
import getpass
import sys

from relay.auth import basic_entry, check_user, generate_key, preshared_entry
from relay.settings import SettingsError

__all__ = ["add_key"]


def add_key(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    key = commands.add_parser("key", help="make a key for a client and its entry for auth.preshared")
    key.add_argument(
        "--basic",
        metavar="USER",
        help="make an entry for auth.basic instead; asks for the password, or reads it from a pipe",
    )
    key.set_defaults(command=_key)


def _key(options: argparse.Namespace) -> int:
    if options.basic is not None:
        print(f'entry for auth.basic: "{_ask_for_entry(options.basic)}"')
        return 0
    key = generate_key()
    print(f"key, for the client:       {key}")
    print(f'entry for auth.preshared:  "{preshared_entry(key)}"')
    return 0


def _ask_for_entry(user: str) -> str:
    """Ask for the password twice, so that a slip does not become an entry; a pipe is read once, one line."""
    try:
        check_user(user)
        if sys.stdin is not None and sys.stdin.isatty():
            password = getpass.getpass("password: ")
            if password and getpass.getpass("again: ") != password:
                raise SettingsError("--basic: the two passwords differ")
        else:
            line = "" if sys.stdin is None else sys.stdin.readline()
            if not line:
                raise EOFError
            password = line.removesuffix("\n")
        return basic_entry(user, password)
    except EOFError:
        raise SettingsError("--basic: no password was given") from None
    except UnicodeError:
        raise SettingsError("--basic: the password is not UTF-8 text") from None
    except ValueError as error:
        raise SettingsError(f"--basic: {error}") from None
