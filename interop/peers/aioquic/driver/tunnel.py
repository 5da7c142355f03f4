"""One request stream as a case sees it: what arrived on it, and how it ended. No I/O of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from aioquic.buffer import Buffer, BufferReadError, encode_uint_var  # type: ignore[attr-defined]  # no __all__

__all__ = ["DATAGRAM_CAPSULE", "DriverError", "Ending", "Signal", "Tunnel", "encode_capsule"]

DATAGRAM_CAPSULE = 0
"The capsule type of HTTP Datagrams (RFC 9297 §3.5)."
_UDP_PAYLOAD = 0
"The context of UDP payloads (RFC 9298 §4)."


class DriverError(Exception):
    """A verb could not be carried out."""


class Signal:
    """Wakes all who wait for facts, each time that something happened."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def happened(self) -> None:
        """Let everybody look again."""
        self._event.set()

    async def until(self, fact: Callable[[], object]) -> None:
        """Wait until `fact()` is true."""
        while not fact():
            self._event.clear()
            await self._event.wait()


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of the relay's direction."""

    kind: str
    "`fin`, or `reset`."
    code: int | None
    "The code of a reset."


class Tunnel:
    """What came on one stream. aioquic's events go in, the verbs wait and take out."""

    def __init__(self, stream_id: int, kind: str) -> None:
        self.stream_id = stream_id
        self.kind = kind
        self.status: int | None = None
        "Of the final response."
        self.headers: list[tuple[str, str]] = []
        self.ending: Ending | None = None
        self.changed = Signal()
        self._content = bytearray()
        self._payloads: deque[bytes] = deque()

    def receive_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Take a response's head; interim responses and trailers pass by (RFC 9114 §4.1)."""
        fields = [(name.decode("ascii"), value.decode("latin-1")) for name, value in headers]
        status = int(dict(fields).get(":status", "0"))
        if self.status is None and status >= 200:
            self.headers = [field for field in fields if not field[0].startswith(":")]
            self.status = status
        self.changed.happened()

    def receive_content(self, data: bytes) -> None:
        """Take content: a TCP tunnel's bytes, or capsules."""
        self._content += data
        if self.kind == "udp" and self.status is not None and self.status < 300:
            self._take_capsules()
        self.changed.happened()

    def receive_datagram(self, data: bytes) -> None:
        """Take an HTTP Datagram. Contexts that nobody registered are dropped (RFC 9298 §4)."""
        buffer = Buffer(data=data)
        try:
            context = buffer.pull_uint_var()
        except BufferReadError:
            return
        if context == _UDP_PAYLOAD:
            self._payloads.append(data[buffer.tell() :])
            self.changed.happened()

    def finish(self, ending: Ending) -> None:
        """The relay's direction is over."""
        if self.ending is None:
            self.ending = ending
        self.changed.happened()

    def take_content(self, size: int | None = None) -> bytes:
        """Take up to `size` bytes, or all."""
        taken = bytes(self._content[:size])
        del self._content[: len(taken)]
        return taken

    def take_payloads(self, count: int) -> list[bytes]:
        """Take up to `count` UDP payloads."""
        return [self._payloads.popleft() for _ in range(min(count, len(self._payloads)))]

    def has_content(self, size: int = 1) -> bool:
        """True when so many bytes wait, or no more come."""
        return len(self._content) >= size or self.ending is not None

    def is_used_up(self) -> bool:
        """True when no content waits and no more comes."""
        return self.ending is not None and not self._content

    def has_payloads(self, count: int = 1) -> bool:
        """True when so many UDP payloads wait, or no more come."""
        return len(self._payloads) >= count or self.ending is not None

    def _take_capsules(self) -> None:
        """Take whole capsules off the content (RFC 9297 §3.2); unknown types are skipped."""
        buffer = Buffer(data=bytes(self._content))
        done = 0
        try:
            while True:
                capsule_type = buffer.pull_uint_var()
                value = buffer.pull_bytes(buffer.pull_uint_var())
                done = buffer.tell()
                if capsule_type == DATAGRAM_CAPSULE:
                    self.receive_datagram(value)
        except BufferReadError:
            del self._content[:done]


def encode_capsule(capsule_type: int, value: bytes) -> bytes:
    """Encode a capsule (RFC 9297 §3.2)."""
    return encode_uint_var(capsule_type) + encode_uint_var(len(value)) + value
