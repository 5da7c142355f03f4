"""A driver in another process, as the Python protocol: every verb of interop/peers/README.md.

What a driver answers is checked before a case sees it: a missing or odd value is the driver's error, not the case's.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from interop.matrix.channel import Channel
from interop.matrix.process import Program
from interop.matrix.transcript import shorten
from relay.conformance.driver import Answer, DriverError, Ending, Feature, Fetched, Headers, Kind, Page, Received

__all__ = ["Endpoint", "Greeting", "Puppet", "decode", "encode"]

_ANSWER_SECONDS = 15.0
"The timeout of verbs that wait for one answer."
_BULK_SECONDS = 60.0
"The timeout of verbs that move any amount of data."
_GREETING_SECONDS = 60.0
"A virtual machine may take long to start on a machine that has other things to do."
_MARGIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The server that a driver connects to."""

    url: str
    "`https://host:port`."
    ca_file: str
    "A PEM file with the authority to trust."
    template: str
    "The template of CONNECT-UDP, a path."
    qlog: str = ""
    "A folder for the driver's qlogs; empty for none."


@dataclass(frozen=True, slots=True)
class Greeting:
    """A driver's first line."""

    peer: str
    "Its name."
    version: str
    "The packages and their versions."
    features: frozenset[Feature]
    "What it can do."
    unknown: tuple[str, ...] = ()
    "Features that no case knows."


class Puppet:
    """A driver process. Use it as a context manager: leaving ends the process and all that it started.

    Satisfies `relay.conformance.driver.Driver`.
    """

    def __init__(
        self,
        program: Program,
        endpoint: Endpoint,
        folder: Path,
        *,
        greeting_seconds: float = _GREETING_SECONDS,
        margin_seconds: float = _MARGIN_SECONDS,
        bulk_seconds: float = _BULK_SECONDS,
    ) -> None:
        """Prepare; entering the context starts the process.

        Args:
            program: what to run.
            endpoint: where its `connect` leads.
            folder: where driver.log and transcript.jsonl are kept.
            greeting_seconds: how long the greeting may take.
            margin_seconds: how much longer than a verb's own timeout its answer may take.
            bulk_seconds: the timeout of verbs that move any amount of data.
        """
        self._channel = Channel(program, folder, margin_seconds)
        self._endpoint = endpoint
        self._greeting_seconds = greeting_seconds
        self._bulk = bulk_seconds
        self._greeting: Greeting | None = None

    async def __aenter__(self) -> Self:
        """Start the process and wait for its greeting.

        Raises:
            DriverError: it cannot be started, ended, or said something else, or nothing.
        """
        try:
            self._greeting = _parse_greeting(await self._channel.start(self._greeting_seconds))
        except BaseException:
            await self._channel.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        await self._channel.stop()

    @property
    def greeting(self) -> Greeting:
        """What the driver said of itself.

        Raises:
            DriverError: it was not started.
        """
        if self._greeting is None:
            raise DriverError("the driver was not started")
        return self._greeting

    @property
    def features(self) -> frozenset[Feature]:
        """What the driver can do."""
        return self.greeting.features

    async def connect(self, *, datagrams: bool = True) -> dict[int, int] | None:
        """Connect to the endpoint; returns its SETTINGS where they are known."""
        server = self._endpoint
        ok = await self._wait(
            "connect",
            url=server.url,
            ca=server.ca_file,
            template=server.template,
            datagrams=datagrams,
            qlog=server.qlog,
        )
        settings = _take(ok, "settings", dict | None)
        try:
            return None if settings is None else {int(name): int(value) for name, value in settings.items()}
        except (TypeError, ValueError):
            raise DriverError(f"connect: settings that are no numbers: {shorten(settings)}") from None

    async def open(self, kind: Kind, host: str, port: int, headers: Headers, *, early: bytes = b"") -> Answer:
        """Ask for a tunnel. `early` is sent before the answer is awaited."""
        pairs = [list(pair) for pair in headers]
        extra: dict[str, Any] = {"early": encode(early)} if early else {}
        ok = await self._wait("open", kind=kind.value, host=host, port=port, headers=pairs, **extra)
        fields = _take(ok, "headers", list | None) or []
        try:
            lines = [(str(name).lower(), str(value)) for name, value in fields]
        except (TypeError, ValueError):
            raise DriverError(f"open: headers that are no pairs: {shorten(fields)}") from None
        return Answer(_number(ok, "status"), lines, _optional(ok, "tunnel"))

    async def send(self, tunnel: int, data: bytes, *, end: bool = False) -> None:
        """Send bytes."""
        await self._channel.ask("send", self._bulk, tunnel=tunnel, data=encode(data), end=end)

    async def send_pattern(self, tunnel: int, size: int, *, end: bool = False) -> None:
        """Send so many bytes of the pattern."""
        await self._channel.ask("send", self._bulk, tunnel=tunnel, pattern=size, end=end)

    async def receive(self, tunnel: int, size: int) -> bytes:
        """Receive exactly `size` bytes, fewer only when the stream ended."""
        ok = await self._wait("receive", tunnel=tunnel, size=size)
        data = decode("receive", ok.get("data"))
        if len(data) > size or (len(data) < size and not ok.get("end")):
            raise DriverError(f"receive: {len(data)} bytes instead of {size}, and no end")
        return data

    async def receive_all(self, tunnel: int) -> Received:
        """Receive everything until the end."""
        ok = await self._wait("receive_all", self._bulk, tunnel=tunnel)
        return Received(_number(ok, "size"), _text(ok, "sha256").lower(), _ending(ok))

    async def reset(self, tunnel: int, code: int) -> None:
        """Abandon both directions."""
        await self._channel.ask("reset", _ANSWER_SECONDS, tunnel=tunnel, code=code)

    async def end(self, tunnel: int) -> None:
        """End our direction."""
        await self._channel.ask("end", self._bulk, tunnel=tunnel)

    async def wait_end(self, tunnel: int, timeout: float = 10.0) -> Ending:
        """Wait for the end of the server's direction."""
        return _ending(await self._wait("wait_end", timeout, tunnel=tunnel))

    async def send_datagrams(self, tunnel: int, payloads: Sequence[bytes], *, context: int = 0) -> int:
        """Send UDP payloads; returns how many the driver's library took."""
        extra = {"context": context} if context else {}
        texts = [encode(payload) for payload in payloads]
        ok = await self._channel.ask("send_datagrams", self._bulk, tunnel=tunnel, payloads=texts, **extra)
        return _number(ok, "sent")

    async def receive_datagrams(self, tunnel: int, count: int, timeout: float = 2.0) -> list[bytes]:
        """Receive `count` UDP payloads, or what came until the timeout."""
        ok = await self._wait("receive_datagrams", timeout, tunnel=tunnel, count=count)
        return [decode("receive_datagrams", text) for text in _take(ok, "payloads", list)]

    async def max_payload(self, tunnel: int) -> int:
        """The largest UDP payload that fits a DATAGRAM frame now."""
        return _number(await self._channel.ask("max_payload", _ANSWER_SECONDS, tunnel=tunnel), "size")

    async def send_capsule(self, tunnel: int, capsule_type: int, value: bytes) -> None:
        """Write a capsule to the tunnel's stream."""
        await self._channel.ask("send_capsule", self._bulk, tunnel=tunnel, type=capsule_type, value=encode(value))

    async def migrate(self) -> None:
        """Go on from a new local port."""
        await self._wait("migrate")

    async def wait_goaway(self, timeout: float = 5.0) -> int:
        """Wait for GOAWAY; returns its stream id."""
        return _number(await self._wait("wait_goaway", timeout), "stream")

    async def wait_closed(self, timeout: float = 10.0) -> int | None:
        """Wait for the connection's end; returns its code where it is known."""
        return _optional(await self._wait("wait_closed", timeout), "code")

    async def fetch(self, url: str, ca_file: str, via: Kind, headers: Headers) -> Fetched:
        """Fetch a page through a tunnel of its own."""
        pairs = [list(pair) for pair in headers]
        ok = await self._wait("fetch", self._bulk, url=url, ca=ca_file, via=via.value, headers=pairs)
        digest, protocol = _text(ok, "sha256").lower(), _text(ok, "protocol")
        return Fetched(_number(ok, "status"), _number(ok, "size"), digest, protocol)

    async def load_pages(self, urls: Sequence[str], ca_file: str, via: Kind, headers: Headers) -> list[Page]:
        """Load pages at once, as a browser does, through tunnels that they share."""
        pairs = [list(pair) for pair in headers]
        ok = await self._wait("load_pages", self._bulk, urls=list(urls), ca=ca_file, via=via.value, headers=pairs)
        return [_parse_page(page) for page in _take(ok, "pages", list)]

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.ask("close", _ANSWER_SECONDS)

    async def _wait(self, verb: str, seconds: float = _ANSWER_SECONDS, **arguments: Any) -> dict[str, Any]:
        """Ask for a verb that takes a timeout."""
        return await self._channel.ask(verb, seconds, **arguments, timeout=seconds)


def _parse_page(value: Any) -> Page:
    """Read one page of `load_pages`.

    Raises:
        DriverError: it is no page, or one that could not be loaded.
    """
    if not isinstance(value, dict):
        raise DriverError(f"the driver answered {shorten(value)} for a page")
    if "error" in value:
        raise DriverError(f"a page: {shorten(value['error'])}")
    parts = _take(value, "resources", list)
    if not all(isinstance(part, dict) for part in parts):
        raise DriverError("the driver's resources are not objects")
    return Page(
        _number(value, "status"),
        _text(value, "protocol"),
        {urlsplit(_text(part, "url")).path: _number(part, "status") for part in parts},
        frozenset(_text(part, "protocol") for part in parts),
    )


def _parse_greeting(value: Any) -> Greeting:
    """Read a driver's first line.

    Raises:
        DriverError: it is no greeting.
    """
    if not isinstance(value, dict):
        raise DriverError(f"the driver greeted with {shorten(value)}")
    names = _take(value, "features", list)
    known = set(Feature)
    return Greeting(
        _text(value, "peer"),
        _text(value, "version"),
        frozenset(Feature(name) for name in names if name in known),
        tuple(str(name) for name in names if name not in known),
    )


def _take(ok: Mapping[str, Any], name: str, kind: Any) -> Any:
    """Take one value of a kind out of an answer.

    Raises:
        DriverError: it is missing or of another kind.
    """
    value = ok.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DriverError(f"the driver's answer is wrong: `{name}` is {shorten(repr(value))}")
    return value


def _number(ok: Mapping[str, Any], name: str) -> int:
    return int(_take(ok, name, int))


def _optional(ok: Mapping[str, Any], name: str) -> int | None:
    value = _take(ok, name, int | None)
    return None if value is None else int(value)


def _text(ok: Mapping[str, Any], name: str) -> str:
    return str(_take(ok, name, str))


def _ending(ok: Mapping[str, Any]) -> Ending:
    end = ok.get("end")
    if end not in ("fin", "reset"):
        raise DriverError(f"the driver's answer is wrong: `end` is {shorten(repr(end))}")
    return Ending(end == "fin", _optional(ok, "code"))


def encode(data: bytes) -> str:
    """Write bytes as drivers have them, base64."""
    return b64encode(data).decode("ascii")


def decode(verb: str, text: object) -> bytes:
    """Read bytes of an answer to `verb`. Raises DriverError when they are no base64."""
    try:
        return b64decode(text if isinstance(text, str) else "?", validate=True)
    except ValueError:
        raise DriverError(f"{verb}: no base64: {shorten(repr(text))}") from None
