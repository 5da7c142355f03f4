"""Our own client under remote control: the verbs of `Driver` on the wire client, with every feature there is."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

from masque.capsule import CapsuleParser, CapsuleType, encode_capsule
from masque.datagram import encode_prefix, parse_context
from masque.errors import MasqueError
from masque.head import Fields
from relay.conformance.driver import (
    Answer,
    DriverError,
    DriverTimeout,
    Ending,
    Feature,
    Fetched,
    Headers,
    Kind,
    Page,
    Received,
    pattern,
)
from relay.conformance.inside import ByteTunnel, PayloadTunnel, fetch_http1, fetch_http3
from relay.conformance.wire import WireClient, WireOptions, WireStream, connect_wire
from relay.quic.engine import EngineError

__all__ = ["WireDriver"]

_PIECE = 256 << 10
_BACKLOG = 512 << 10
_CAPSULE_LIMIT = 1 << 20


@dataclass(eq=False, slots=True)
class _Tunnel:
    """An open tunnel, and what of it was taken."""

    stream: WireStream
    capsules: CapsuleParser = field(default_factory=lambda: CapsuleParser(_CAPSULE_LIMIT))
    payloads: deque[bytes] = field(default_factory=deque)


class WireDriver:
    """The driver; see `relay.conformance.driver.Driver` for the verbs. Use it as an asynchronous context manager."""

    def __init__(self, options: WireOptions, patience: float = 20.0) -> None:
        """Nothing is sent yet.

        Args:
            options: which server, and how; its credentials are not used, each `open` names its own.
            patience: seconds after which what did not come will not come.
        """
        self._patience = patience
        self._options = options
        self._stack = AsyncExitStack()
        self._client: WireClient | None = None
        self._tunnels: dict[int, _Tunnel] = {}

    @property
    def features(self) -> frozenset[Feature]:
        """All but what only other clients have; tokens are another implementation's (`Stage.tokens`)."""
        return frozenset(Feature) - {Feature.HIDDEN_STATUS, Feature.PAGES, Feature.TOKENS}

    @property
    def wire(self) -> WireClient:
        """The client itself, for what no verb says. Raises DriverError before `connect`."""
        if self._client is None:
            raise DriverError("not connected")
        return self._client

    async def __aenter__(self) -> WireDriver:
        """Give itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        await self.close()

    async def connect(self, *, datagrams: bool = True) -> dict[int, int] | None:
        """Connect; a second time replaces the first connection."""
        await self.close()
        try:
            self._client = await self._stack.enter_async_context(
                connect_wire(replace(self._options, wants_datagrams=datagrams))
            )
        except TimeoutError:
            raise DriverTimeout("timeout: no handshake and SETTINGS in time") from None
        except (OSError, EngineError) as error:
            raise DriverError(str(error)) from error
        settings = self._client.machine.peer_settings
        if settings is None:
            return None
        return {0x8: int(settings.enable_connect_protocol), 0x33: int(settings.h3_datagram)}

    async def open(self, kind: Kind, host: str, port: int, headers: Headers, *, early: bytes = b"") -> Answer:
        """Ask for a tunnel."""
        fields: Fields = tuple((name.encode(), value.encode()) for name, value in headers)
        try:
            ask = self.wire.connect if kind is Kind.TCP else self.wire.connect_udp
            stream = ask(host, port, fields)
        except MasqueError as error:
            raise DriverError(str(error)) from error
        if early and kind is Kind.TCP:
            self.wire.send_content(stream, early)
        elif early:
            self.wire.send_datagram(stream, early)
        await self.until(lambda: stream.response is not None or stream.reset is not None, "the answer")
        if stream.response is None:
            raise DriverError(f"the request was reset with {stream.reset or 0:#x}")
        lines = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in stream.response.fields)
        if not 200 <= stream.response.status < 300:
            return Answer(stream.response.status, lines, None)
        self._tunnels[stream.stream_id] = _Tunnel(stream)
        return Answer(stream.response.status, lines, stream.stream_id)

    async def send(self, tunnel: int, data: bytes, *, end: bool = False) -> None:
        """Send bytes, no faster than they leave."""
        stream = self._tunnel(tunnel).stream
        for start in range(0, len(data), _PIECE):
            self.wire.send_content(stream, data[start : start + _PIECE])
            await self.until(
                lambda: self.wire.link.backlog(stream.stream_id) < _BACKLOG or stream.stopped is not None,
                "room to send",
            )
        if end:
            self.wire.send(stream, b"", fin=True)

    async def send_pattern(self, tunnel: int, size: int, *, end: bool = False) -> None:
        """Send the pattern."""
        await self.send(tunnel, pattern(size), end=end)

    async def receive(self, tunnel: int, size: int) -> bytes:
        """Receive exactly so many bytes."""
        stream = self._tunnel(tunnel).stream
        await self.until(lambda: len(stream.data) >= size or _is_over(stream), f"{size} bytes")
        data = bytes(stream.data[:size])
        del stream.data[:size]
        return data

    async def receive_all(self, tunnel: int) -> Received:
        """Receive everything until the end."""
        stream = self._tunnel(tunnel).stream
        ending = await self.wait_end(tunnel, self._patience)
        return Received(len(stream.data), hashlib.sha256(stream.data).hexdigest(), ending)

    async def reset(self, tunnel: int, code: int) -> None:
        """Abandon both directions."""
        self.wire.reset(self._tunnel(tunnel).stream, code)

    async def end(self, tunnel: int) -> None:
        """End our direction."""
        self.wire.send(self._tunnel(tunnel).stream, b"", fin=True)

    async def wait_end(self, tunnel: int, timeout: float = 10.0) -> Ending:
        """Wait for the end of the server's direction."""
        stream = self._tunnel(tunnel).stream
        await self.until(lambda: _is_over(stream), "the end of the tunnel", timeout)
        return Ending(stream.reset is None, stream.reset)

    async def send_datagrams(self, tunnel: int, payloads: Sequence[bytes], *, context: int = 0) -> int:
        """Send payloads in DATAGRAM frames, or in capsules when the connection has none."""
        stream = self._tunnel(tunnel).stream
        if self.wire.link.max_datagram_payload and self.wire.machine.carries_datagrams:
            return sum(self.wire.send_datagram(stream, payload, context) for payload in payloads)
        for payload in payloads:
            await self.send_capsule(tunnel, CapsuleType.DATAGRAM, encode_prefix(0, context)[1:] + payload)
        return len(payloads)

    async def receive_datagrams(self, tunnel: int, count: int, timeout: float = 2.0) -> list[bytes]:
        """Receive payloads of context 0, from frames and from capsules."""
        known = self._tunnel(tunnel)

        def has_enough() -> bool:
            self._collect(known)
            return len(known.payloads) >= count or _is_over(known.stream)

        try:
            await self.until(has_enough, "datagrams", timeout)
        except DriverTimeout:
            pass
        return [known.payloads.popleft() for _ in range(min(count, len(known.payloads)))]

    async def max_payload(self, tunnel: int) -> int:
        """The largest payload that fits a frame."""
        prefix = encode_prefix(self._tunnel(tunnel).stream.stream_id)
        return max(0, self.wire.link.max_datagram_payload - len(prefix))

    async def send_capsule(self, tunnel: int, capsule_type: int, value: bytes) -> None:
        """Write a capsule."""
        self.wire.send_content(self._tunnel(tunnel).stream, encode_capsule(capsule_type, value))

    async def migrate(self) -> None:
        """Go on from a new local port."""
        self.wire.rebind()

    async def wait_goaway(self, timeout: float = 5.0) -> int:
        """Wait for GOAWAY."""
        await self.until(lambda: self.wire.goaways, "GOAWAY", timeout)
        return self.wire.goaways[0]

    async def wait_closed(self, timeout: float = 10.0) -> int | None:
        """Wait for the connection's end."""
        client = self.wire
        await self.until(lambda: client.end_code is not None, "the connection's end", timeout)
        return client.end_code

    async def fetch(self, url: str, ca_file: str, via: Kind, headers: Headers) -> Fetched:
        """Fetch a page through a tunnel of its own."""
        if via is Kind.TCP:
            return await fetch_http1(self._bytes_of, url, ca_file, headers)
        return await fetch_http3(self._payloads_of, url, ca_file, headers, self._patience)

    async def load_pages(self, urls: Sequence[str], ca_file: str, via: Kind, headers: Headers) -> list[Page]:
        """Not for this client: it is no browser."""
        raise DriverError("this client loads no pages")

    async def close(self) -> None:
        """Close the connection."""
        self._client = None
        self._tunnels.clear()
        await self._stack.aclose()

    # Inside.

    def _tunnel(self, number: int) -> _Tunnel:
        if number not in self._tunnels:
            raise DriverError(f"no tunnel {number}")
        return self._tunnels[number]

    async def _open(self, kind: Kind, host: str, port: int, headers: Headers) -> int:
        answer = await self.open(kind, host, port, headers)
        if answer.tunnel is None:
            raise DriverError(f"the tunnel was refused with {answer.status}")
        return answer.tunnel

    async def _bytes_of(self, host: str, port: int, headers: Headers) -> ByteTunnel:
        """A tunnel as the code inside of it sees it."""
        tunnel = await self._open(Kind.TCP, host, port, headers)
        stream = self._tunnel(tunnel).stream

        async def receive() -> bytes:
            await self.until(lambda: stream.data or _is_over(stream), "bytes")
            data = bytes(stream.data)
            stream.data.clear()
            return data

        return ByteTunnel(lambda data: self.send(tunnel, data), receive)

    async def _payloads_of(self, host: str, port: int, headers: Headers) -> PayloadTunnel:
        tunnel = await self._open(Kind.UDP, host, port, headers)

        async def receive(timeout: float) -> list[bytes]:
            found = await self.receive_datagrams(tunnel, 1, timeout)
            return found + await self.receive_datagrams(tunnel, 64, 0) if found else []

        return PayloadTunnel(lambda payloads: self.send_datagrams(tunnel, payloads), receive)

    def _collect(self, tunnel: _Tunnel) -> None:
        """Take payloads out of what arrived."""
        datagrams, tunnel.stream.datagrams = tunnel.stream.datagrams, []
        if tunnel.stream.data:
            capsules = tunnel.capsules.receive(bytes(tunnel.stream.data))
            tunnel.stream.data.clear()
            datagrams += [value for _, value in capsules]
        for datagram in datagrams:
            context, start = parse_context(datagram)
            if context == 0:
                tunnel.payloads.append(datagram[start:])

    async def until(self, fact: Callable[[], object], what: str, timeout: float | None = None) -> None:
        """Wait until something is so.

        Args:
            fact: asked again after each thing that arrives.
            what: what it would be, for the error.
            timeout: seconds; the driver's patience without it, and never more.

        Raises:
            DriverTimeout: it did not become so.
            DriverError: the connection ended before.
        """
        client = self.wire
        timeout = self._patience if timeout is None else min(timeout, self._patience)
        try:
            await client.until(lambda: fact() or client.end_code is not None, timeout)
        except TimeoutError:
            raise DriverTimeout(f"timeout: {what} did not come in {timeout:g} s") from None
        except MasqueError as error:
            raise DriverError(f"the server broke a rule: {error}") from error
        if not fact():
            raise DriverError(f"the connection ended with {client.end_code or 0:#x} before {what} came")


def _is_over(stream: WireStream) -> bool:
    """True once the server's direction has ended."""
    return stream.is_ended or stream.reset is not None
