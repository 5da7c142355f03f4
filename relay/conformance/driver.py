"""What a case asks of a client: the verbs of interop/peers/README.md, as Python.

A driver is a client under remote control. Ours speaks on the wire itself (`relay.conformance.wire_driver`); the
matrix in interop/ drives programs in other languages by the same verbs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

__all__ = [
    "Answer",
    "Driver",
    "DriverError",
    "DriverTimeout",
    "Ending",
    "Feature",
    "Fetched",
    "Headers",
    "Kind",
    "Page",
    "Received",
    "pattern",
]

Headers = Sequence[tuple[str, str]]
"Field lines, names in lowercase."


class DriverError(Exception):
    """A client could not do what it was asked, by whoever's fault."""


class DriverTimeout(DriverError):
    """What the client waited for did not come."""


class Kind(StrEnum):
    """Which tunnel."""

    TCP = "tcp"
    UDP = "udp"


class Feature(StrEnum):
    """What a client can do beyond connecting; interop/peers/README.md says which verb each stands for."""

    TCP = "tcp"
    UDP = "udp"
    HEADERS = "headers"
    EARLY = "early"
    RESET = "reset"
    ENDS = "ends"
    MAX_PAYLOAD = "max-payload"
    CONTEXTS = "contexts"
    CAPSULES = "capsules"
    NO_DATAGRAMS = "no-datagrams"
    MIGRATION = "migration"
    GOAWAY = "goaway"
    CLOSED = "closed"
    FETCH_TCP = "fetch-tcp"
    FETCH_UDP = "fetch-udp"
    PAGES = "pages"
    SETTINGS = "settings"
    HIDDEN_STATUS = "hidden-status"
    WIRE = "wire"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Answer:
    """The server's answer to a request for a tunnel."""

    status: int
    "The final response's status; 0 where the client's library hides it."
    headers: Headers
    "Its field lines."
    tunnel: int | None
    "The tunnel's number, or None when it was refused."

    def header(self, name: str) -> str | None:
        """The first field of that name, or None."""
        return next((value for key, value in self.headers if key.lower() == name), None)


@dataclass(frozen=True, slots=True)
class Ending:
    """How the server's direction of a tunnel ended."""

    is_clean: bool
    "FIN; else RESET_STREAM, or the connection went."
    code: int | None
    "The code of a reset, where the client's library tells it."


@dataclass(frozen=True, slots=True)
class Received:
    """Everything that came on a tunnel until its end."""

    size: int
    "Bytes."
    sha256: str
    "Their digest, in hexadecimal."
    ending: Ending
    "How it ended."


@dataclass(frozen=True, slots=True)
class Fetched:
    """A page that was fetched through a tunnel."""

    status: int
    "The origin's status."
    size: int
    "Bytes of content."
    sha256: str
    "Their digest, in hexadecimal."
    protocol: str
    "`h3`, `h2` or `http/1.1`."


@dataclass(frozen=True, slots=True)
class Page:
    """A page that was loaded with all that belongs to it."""

    status: int
    "The origin's status."
    protocol: str
    "As in `Fetched`."
    parts: Mapping[str, int]
    "The status of each part, by path."
    part_protocols: frozenset[str]
    "The protocols that they came by."


class Driver(Protocol):
    """A client. Every verb raises DriverError when it cannot be done, DriverTimeout when nothing came in time."""

    @property
    def features(self) -> frozenset[Feature]:
        """What it can do."""

    async def connect(self, *, datagrams: bool = True) -> dict[int, int] | None:
        """Connect to the server; returns its SETTINGS where they are known."""

    async def open(self, kind: Kind, host: str, port: int, headers: Headers, *, early: bytes = b"") -> Answer:
        """Ask for a tunnel. `early` is sent before the answer is awaited."""

    async def send(self, tunnel: int, data: bytes, *, end: bool = False) -> None:
        """Send bytes."""

    async def send_pattern(self, tunnel: int, size: int, *, end: bool = False) -> None:
        """Send so many bytes of `pattern`."""

    async def receive(self, tunnel: int, size: int) -> bytes:
        """Receive exactly `size` bytes, fewer only when the stream ended."""

    async def receive_all(self, tunnel: int) -> Received:
        """Receive everything until the end."""

    async def reset(self, tunnel: int, code: int) -> None:
        """Abandon both directions."""

    async def end(self, tunnel: int) -> None:
        """End our direction."""

    async def wait_end(self, tunnel: int, timeout: float = 10.0) -> Ending:
        """Wait for the end of the server's direction."""

    async def send_datagrams(self, tunnel: int, payloads: Sequence[bytes], *, context: int = 0) -> int:
        """Send UDP payloads; returns how many the client's library took."""

    async def receive_datagrams(self, tunnel: int, count: int, timeout: float = 2.0) -> list[bytes]:
        """Receive `count` UDP payloads, or what came until the timeout."""

    async def max_payload(self, tunnel: int) -> int:
        """The largest UDP payload that fits a DATAGRAM frame now."""

    async def send_capsule(self, tunnel: int, capsule_type: int, value: bytes) -> None:
        """Write a capsule to the tunnel's stream."""

    async def migrate(self) -> None:
        """Go on from a new local port."""

    async def wait_goaway(self, timeout: float = 5.0) -> int:
        """Wait for GOAWAY; returns its stream id."""

    async def wait_closed(self, timeout: float = 10.0) -> int | None:
        """Wait for the connection's end; returns its code where it is known."""

    async def fetch(self, url: str, ca_file: str, via: Kind, headers: Headers) -> Fetched:
        """Fetch a page through a tunnel of its own."""

    async def load_pages(self, urls: Sequence[str], ca_file: str, via: Kind, headers: Headers) -> list[Page]:
        """Load pages at once, as a browser does, through tunnels that they share."""

    async def close(self) -> None:
        """Close the connection."""


def pattern(size: int) -> bytes:
    """Make test content that shows lost, doubled and reordered pieces; any client can make the same.

    Args:
        size: bytes, at most 16 MiB where the pattern begins to repeat.

    Returns:
        Byte `i` is `(i ^ i >> 8 ^ i >> 16) & 255`.
    """
    low = bytes(range(256))
    blocks = (
        low.translate(bytes(value ^ (block ^ block >> 8) & 255 for value in range(256)))
        for block in range(size + 255 >> 8)
    )
    return b"".join(blocks)[:size]
