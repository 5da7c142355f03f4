"""Kinds of setting values: durations, and the entries that credentials are checked by.

Each parser says what is wrong in words that follow "must be", and never repeats the value: it may be secret.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from datetime import timedelta

import idna

from masque.errors import RequestRejected
from masque.target import parse_host

__all__ = [
    "BasicEntry",
    "ScryptCost",
    "encode_basic_entry",
    "encode_preshared_entry",
    "parse_basic_entry",
    "parse_client_entry",
    "parse_domain",
    "parse_duration",
    "parse_port_range",
    "parse_preshared_entry",
]

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(ms|s|m|h|d)?")
_UNITS = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_PRESHARED = re.compile(r"sha256:([0-9a-f]{64})", re.IGNORECASE)
_CLIENT = re.compile(r"([a-z0-9][a-z0-9._-]{0,63})=(?:sha256:([0-9A-Fa-f]{2}(?::?[0-9A-Fa-f]{2}){31})|\*)")
_BASIC = re.compile(
    r"([^:\x00-\x1f\x7f]{1,128}):scrypt:(\d{1,8}),(\d{1,3}),(\d{1,3}):([\w-]{16,86}):([\w-]{43})", re.A
)
_SCRYPT_MEMORY = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ScryptCost:
    """What one password check costs (RFC 7914 §2)."""

    n: int = 16384
    "CPU and memory cost: a power of two."
    r: int = 8
    "Block size."
    p: int = 1
    "Parallelization."

    @property
    def memory(self) -> int:
        """The bytes that one check needs."""
        return 128 * self.r * (self.n + self.p + 2)


@dataclass(frozen=True, slots=True)
class BasicEntry:
    """One user of the Basic scheme, without the password."""

    user: str = field(repr=False)
    "The user name (RFC 7617 §2): no colon, no control characters."
    cost: ScryptCost
    "How the hash was made."
    salt: bytes = field(repr=False)
    "The salt."
    digest: bytes = field(repr=False)
    "scrypt of the password, 32 bytes."


def parse_duration(value: object) -> object:
    """Read a duration: seconds as a number, or a number with ms, s, m, h or d.

    Args:
        value: what a source holds; a timedelta passes as it is.

    Returns:
        A timedelta.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1e9:
        return timedelta(seconds=value)
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError('must be a duration, like 30, "500ms", "30s", "2m" or "1h"')
    return timedelta(seconds=float(found[1]) * _UNITS[found[2]])


def parse_domain(text: str) -> str:
    """Read a domain name: any case, with or without the final dot, its labels in Unicode or in ASCII (RFC 5890 §2.3).

    Returns:
        The name as targets have it: A-labels, lower case, no final dot.

    Raises:
        ValueError: it is no domain name.
    """
    wrong = ValueError('must be a domain name, like "example.com"; it stands for all names below it too')
    try:
        name, address = parse_host(text if text.isascii() else idna.encode(text, uts46=True).decode("ascii"))
    except (RequestRejected, UnicodeError):  # idna's own error is a UnicodeError
        raise wrong from None
    if address is not None:
        raise ValueError("must be a domain name; addresses belong into networks")
    return name


def parse_port_range(text: str) -> tuple[int, int]:
    """Read a port, `443`, or a range of ports with both its ends, `8000-8999`.

    Raises:
        ValueError: it is neither, a port is not 1..65535, or the range is upside down.
    """
    found = _PORTS.fullmatch(text)
    low, high = (int(found[1]), int(found[2] or found[1])) if found is not None else (0, 0)
    if not 1 <= low <= high <= 65535:
        raise ValueError('must be a port or a range of ports within 1..65535, like 443 or "8000-8999"')
    return low, high


def parse_preshared_entry(entry: str) -> bytes:
    """Read `sha256:<64 hex digits>`.

    Returns:
        The SHA-256 digest of the key, 32 bytes.

    Raises:
        ValueError: it has another form.
    """
    found = _PRESHARED.fullmatch(entry)
    if found is None:
        raise ValueError('must be "sha256:" and 64 hex digits, as `relay key` prints it')
    return bytes.fromhex(found[1])


def encode_preshared_entry(digest: bytes) -> str:
    """Write the SHA-256 digest of a key as the settings hold it."""
    return f"sha256:{digest.hex()}"


def parse_basic_entry(entry: str) -> BasicEntry:
    """Read `user:scrypt:<n>,<r>,<p>:<salt>:<hash>`; salt and hash are base64url without padding.

    Raises:
        ValueError: it has another form, or its cost is outside of what a relay should spend.
    """
    found = _BASIC.fullmatch(entry)
    if found is None:
        raise ValueError('must be "user:scrypt:n,r,p:salt:hash", as `relay key --basic` prints it')
    cost = ScryptCost(int(found[2]), int(found[3]), int(found[4]))
    if not 1024 <= cost.n <= 2**20 or cost.n & (cost.n - 1) or not 1 <= cost.r <= 32 or not 1 <= cost.p <= 16:
        raise ValueError("must have a scrypt cost of n a power of two in 1024..1048576, r 1..32, p 1..16")
    if cost.memory > _SCRYPT_MEMORY:
        raise ValueError("must have a scrypt cost that needs at most 256 MiB")
    try:
        salt, digest = _from_base64url(found[5]), _from_base64url(found[6])
    except binascii.Error:
        raise ValueError("must have salt and hash in base64url") from None
    return BasicEntry(found[1], cost, salt, digest)


def parse_client_entry(entry: str) -> tuple[str, bytes | None]:
    """Read `name=sha256:<64 hex digits>`, colons between them or not, or `name=*`.

    Returns:
        The principal's name, and the SHA-256 of its certificate; None for any other certificate.

    Raises:
        ValueError: it has another form.
    """
    found = _CLIENT.fullmatch(entry)
    if found is None:
        raise ValueError('must be "name=sha256:" and the 64 hex digits of a certificate\'s fingerprint, or "name=*"')
    return found[1], None if found[2] is None else bytes.fromhex(found[2].replace(":", ""))


def encode_basic_entry(entry: BasicEntry) -> str:
    """Write an entry as the settings hold it."""
    cost = f"{entry.cost.n},{entry.cost.r},{entry.cost.p}"
    return f"{entry.user}:scrypt:{cost}:{_to_base64url(entry.salt)}:{_to_base64url(entry.digest)}"


def _to_base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _from_base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
