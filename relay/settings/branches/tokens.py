"""Who may use the relay with a token of Privacy Pass, and where spent tokens are kept."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from relay.settings.branches.bounds import Branch, Duration, lasting, within

__all__ = ["IssuerSettings", "SpentSettings", "TokenSettings"]

_MAX_ISSUERS = 8
_MAX_OFFERED = 8192
"Bytes of all challenges of a 407 together, as field values: half of what clients read."
_KEY_SIZES = {1: 49, 2: 346}
"Bytes of a public key of each type, at most."


def _server_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._~!$&'()*+;=:%\[\]-]{1,253}", value):
        raise ValueError('must be a host, with a port when it is not 443, like "issuer.example"')
    return value


def _directory_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_good = parts.scheme == "https" and parts.hostname and not parts.username and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or not re.fullmatch(r"[\x21-\x7e]{1,2048}", value) or "#" in value:
        raise ValueError('must be an https URL, like "https://issuer.example"')
    return value


def _context_value(value: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise ValueError("must be 32 bytes as 64 hex digits")
    return value.lower()


def _admits(value: object) -> object:
    if value in ("tunnel", "connection"):
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,7}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1_000_000:
        return value
    raise ValueError('must be "tunnel", "connection" or a number of tunnels, 1..1000000')


_ServerName: TypeAlias = Annotated[str, AfterValidator(_server_name)]


class IssuerSettings(Branch):
    """An issuer whose tokens are taken."""

    name: _ServerName
    """The issuer's name in challenges (RFC 9577 §2.1.1): a host, with a port when it is not 443."""
    keys: tuple[Path, ...] = ()
    """Files with keys of the issuer, in order of preference. Type 2: public keys, PEM or DER. Type 1: seeds, which
    are secret. A file may hold several. Read again with SIGHUP."""
    directory: Annotated[str, AfterValidator(_directory_url)] | None = None
    """The URL of the issuer's directory (RFC 9578 §4), or of its host: then at the well-known place. Keys of type 2
    are taken from it, no others."""
    ca_file: Path | None = None
    """A PEM file with the authorities to trust for `directory`, in place of the system's."""
    refresh: Annotated[Duration, lasting(1, 604_800)] = timedelta(hours=1)
    """How long a directory is used before it is fetched again, at most; its Cache-Control can make it sooner."""
    types: tuple[Literal[1, 2], ...] = (2,)
    """The types of token that are taken, the preferred one first: 2 is Blind RSA, 1 is VOPRF (RFC 9578 §8.2)."""

    @model_validator(mode="after")
    def _has_keys(self) -> IssuerSettings:
        if not self.types or len(set(self.types)) != len(self.types):
            raise ValueError("types must name each type once, and at least one")
        if not self.keys and (self.directory is None or 2 not in self.types):
            raise ValueError("must have keys, or a directory and type 2")
        return self


class SpentSettings(Branch):
    """Where spent tokens are kept."""

    kind: Literal["memory", "sqlite", "redis"] = "sqlite"
    """sqlite: a file for all relays of a host, survives restarts. redis: a server for a fleet. memory: this process
    only; after a restart every token is good again."""
    path: Path = Path("/var/lib/masque-relay/spent.db")
    """The file of sqlite, on a local disk. The folder must exist."""
    synchronous: Literal["full", "normal"] = "full"
    """What sqlite waits for: full for the disk; with normal a power failure lets the last tokens in again."""
    url: str | None = Field(default=None, repr=False)
    """The server of redis: `redis://`, `rediss://` (TLS) or `unix://`, with user and password if it wants them."""
    prefix: Annotated[str, Field(min_length=1, max_length=128)] = "relay:spent:"
    """What the keys of redis begin with. Relays that share it share their tokens."""
    ca_file: Path | None = None
    """A PEM file with the authorities to trust with `rediss://`, in place of the system's."""
    replicas: Annotated[int, within(0, 16)] = 0
    """How many replicas of redis must confirm each spend."""
    entries: Annotated[int, within(1, 100_000_000)] = 1_000_000
    """The most tokens that memory keeps. Full, it admits nobody rather than to forget one."""
    waiting: Annotated[int, within(1, 65_536)] = 1024
    """Spends that may wait for sqlite or redis."""
    timeout: Annotated[Duration, lasting(0.1, 60)] = timedelta(seconds=2)
    """How long a spend may take with sqlite or redis; then the store counts as away."""
    retry: Annotated[Duration, lasting(0.05, 60)] = timedelta(seconds=1)
    """How long a store that is away is left alone between two attempts."""

    @model_validator(mode="after")
    def _has_server(self) -> SpentSettings:
        if self.kind == "redis" and self.url is None:
            raise ValueError("url: must be set for kind redis")
        return self


class TokenSettings(Branch):
    """Tokens of Privacy Pass (RFC 9577). Without an issuer, none is taken."""

    issuers: tuple[IssuerSettings, ...] = ()
    """Whose tokens are taken. In TOML a table each, `[[tokens.issuers]]`."""
    origins: tuple[_ServerName, ...] = ()
    """The names of the relay as clients know it, for the challenges' origin_info; empty: tokens for any origin."""
    context: Literal["none", "fixed", "rolling"] = "none"
    """What challenges say beside names: none; fixed, the same always; rolling, another in each `window`, so that a
    token is good for one to two windows and its entry is forgotten after that."""
    context_value: Annotated[str, AfterValidator(_context_value)] | None = None
    """The fixed context, 64 hex digits. It is no secret: challenges hold it."""
    context_secret: Path | None = None
    """A file with 32 random bytes or more that contexts are derived from: needed for rolling, possible for fixed.
    Relays that take the same tokens share it."""
    window: Annotated[Duration, lasting(1, 2_592_000)] = timedelta(hours=1)
    """How long a rolling context is offered. Its tokens are taken for one window more."""
    admits: Annotated[str | int, BeforeValidator(_admits)] = "tunnel"
    """What one token admits: tunnel, one; a number, so many tunnels; connection, all tunnels of one connection."""
    waiting: Annotated[int, within(1, 65_536)] = 1024
    """Tokens of each type that may wait for their check; for one more the answer is 503."""
    store: SpentSettings = Field(default_factory=SpentSettings)

    @model_validator(mode="after")
    def _contexts(self) -> TokenSettings:
        has_value, has_secret = self.context_value is not None, self.context_secret is not None
        if self.context == "rolling" and (not has_secret or has_value):
            raise ValueError("context, context_value, context_secret: rolling needs the last and not the second")
        if self.context == "fixed" and has_value == has_secret:
            raise ValueError("context, context_value, context_secret: fixed needs one of the others")
        if self.context == "none" and (has_value or has_secret):
            raise ValueError("context, context_value, context_secret: none takes neither of the others")
        return self

    @model_validator(mode="after")
    def _bounded(self) -> TokenSettings:
        names = [issuer.name for issuer in self.issuers]
        if len(set(names)) != len(names) or len(names) > _MAX_ISSUERS:
            raise ValueError(f"issuers: must be at most {_MAX_ISSUERS}, each with a name of its own")
        origins = sum(len(name) + 1 for name in self.origins)
        sizes = [
            90 + (7 + len(issuer.name) + 32 + origins + _KEY_SIZES[number]) * 4 // 3
            for issuer in self.issuers
            for number in issuer.types
        ]
        if sum(sizes) > _MAX_OFFERED:
            raise ValueError(f"issuers, origins: make challenges of more than {_MAX_OFFERED} bytes together")
        return self
