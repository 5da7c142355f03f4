"""From the settings of tokens to the parts that admit by them: what is wrong is found before anything serves."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from masque.privacypass import TokenType
from relay.auth.private_token.contexts import Contexts
from relay.auth.private_token.key_ring import KeyRing
from relay.settings import SettingsError, SpentSettings, TokenSettings
from relay.spent import SpentStore, StoreKind, Synchronous, open_store

__all__ = ["TokenParts", "describe_tokens", "prepare_tokens"]


@dataclass(frozen=True, slots=True)
class TokenParts:
    """What `TokenGate` is made of."""

    settings: TokenSettings
    "The settings."
    clock: Callable[[], float]
    "The wall clock."
    rings: tuple[KeyRing, ...]
    "The issuers' keys, those of files read."
    contexts: Contexts
    "Redemption contexts."
    trusts: Mapping[int, ssl.SSLContext]
    "For each issuer with a directory, by its place in the settings: the authorities that it is fetched with."
    store: SpentStore
    "Spent tokens; not opened yet."


def prepare_tokens(settings: TokenSettings, clock: Callable[[], float]) -> TokenParts | None:
    """Read keys and secrets, and make the store.

    Args:
        settings: of tokens.
        clock: the wall clock, seconds since 1970: windows, keys' times and entries go by it.

    Returns:
        The parts, or None when no issuer is set.

    Raises:
        SettingsError: a file cannot be used, or the store cannot be made. A directory is not fetched yet.
    """
    if not settings.issuers:
        return None
    rings = tuple(KeyRing(number, issuer) for number, issuer in enumerate(settings.issuers))
    for ring in rings:
        ring.use_files(ring.load_files())
    trusts = {ring.number: _trust(ring) for ring in rings if ring.settings.directory is not None}
    store = _make_store(settings.store, clock)
    return TokenParts(settings, clock, rings, Contexts(settings), trusts, store)


def describe_tokens(settings: TokenSettings) -> list[str]:
    """Say in lines which issuers, keys and store are set, and whether the files can be read. Starts nothing."""
    lines = []
    for number, issuer in enumerate(settings.issuers):
        ring = KeyRing(number, issuer)
        lines.append(f"{ring.setting}: {issuer.name}, {_describe(partial(_describe_keys, ring))}")
        if issuer.directory is not None:
            lines.append(f"{ring.setting}: {_describe(partial(_describe_directory, ring))}")
    if settings.issuers:
        lines.append(f"tokens.context: {settings.context}, {_describe(partial(_describe_context, settings))}")
        lines.append(f"tokens.store: {settings.store.kind}, {_describe(partial(_describe_store, settings.store))}")
    return lines


def _describe(say: Callable[[], str]) -> str:
    try:
        return say()
    except SettingsError as error:
        return f"CANNOT BE USED: {error}"


def _describe_keys(ring: KeyRing) -> str:
    ring.use_files(ring.load_files())
    counts = [f"{len(ring.live(kind))} of type {kind.value}" for kind in TokenType if kind in ring.types]
    return f"keys in its files: {', '.join(counts)}"


def _describe_directory(ring: KeyRing) -> str:
    _check_directory(ring)
    return f"keys of {ring.settings.directory} are fetched when the relay serves"


def _describe_context(settings: TokenSettings) -> str:
    Contexts(settings)
    return "can be used"


def _describe_store(settings: SpentSettings) -> str:
    _make_store(settings, lambda: 0.0)
    return {
        "memory": "forgotten at a restart",
        "sqlite": f"{settings.path} is there" if settings.path.exists() else f"{settings.path} will be made",
        "redis": "its server is asked when the relay serves",
    }[settings.kind]


def _trust(ring: KeyRing) -> ssl.SSLContext:
    """Read the authorities for an issuer's directory, and check its URL."""
    from relay.auth.private_token.directory import make_trust

    _check_directory(ring)
    try:
        return make_trust(ring.settings.ca_file)
    except OSError as error:
        wrong = "holds no certificate" if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"
        raise SettingsError(f"{ring.setting}.ca_file: {ring.settings.ca_file} {wrong}") from None


def _check_directory(ring: KeyRing) -> None:
    """Check a directory's URL as the client that fetches it does."""
    from relay.auth.private_token.directory import directory_url

    try:
        directory_url(ring.settings.directory or "")
    except ValueError:
        raise SettingsError(f"{ring.setting}.directory: is no URL that can be fetched") from None


def _make_store(settings: SpentSettings, clock: Callable[[], float]) -> SpentStore:
    if settings.kind == "sqlite":
        _check_folder(settings.path)
    if settings.ca_file is not None and not os.access(settings.ca_file, os.R_OK):
        raise SettingsError(f"tokens.store.ca_file: cannot read {settings.ca_file}")
    try:
        return open_store(
            StoreKind(settings.kind),
            clock,
            path=settings.path,
            synchronous=Synchronous(settings.synchronous),
            url=settings.url,
            prefix=settings.prefix,
            ca_file=settings.ca_file,
            replicas=settings.replicas,
            entries=settings.entries,
            waiting=settings.waiting,
            timeout=settings.timeout.total_seconds(),
            retry=settings.retry.total_seconds(),
        )
    except ValueError as error:
        raise SettingsError(f"tokens.store: {error}") from None


def _check_folder(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise SettingsError(f"tokens.store.path: the folder {folder} does not exist; make it for the relay alone")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.R_OK | os.W_OK):
        raise SettingsError(f"tokens.store.path: {path} cannot be written to")
