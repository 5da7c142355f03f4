"""Another HTTP/3 stack as the client: aioquic's own, unchanged, with its own asyncio shell.

It announces H3_DATAGRAM only together with WebTransport; without, the relay answers in capsules.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DatagramReceived, DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamReset

from masque.capsule import CapsuleParser, encode_capsule
from tests.e2e.conftest import StartRelay
from tests.e2e.origins import closed_port, tcp_listener, udp_origin
from tests.e2e.rig import KEY, Relay

pytestmark = pytest.mark.anyio

Lines = list[tuple[bytes, bytes]]
_CREDENTIALS = (b"proxy-authorization", b"Preshared " + KEY.encode())


class Client(QuicConnectionProtocol):
    """aioquic's protocol with its HTTP/3 connection; keeps what arrives for the test."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.http: H3Connection | None = None
        self.events: asyncio.Queue[H3Event | QuicEvent] = asyncio.Queue()

    def start(self, *, webtransport: bool) -> None:
        """Put HTTP/3 on the connection."""
        self.http = H3Connection(self._quic, enable_webtransport=webtransport)
        self.transmit()

    def quic_event_received(self, event: QuicEvent) -> None:
        """Pass events through aioquic's HTTP/3."""
        if isinstance(event, ConnectionTerminated | StreamReset):
            self.events.put_nowait(event)
        elif self.http is not None:
            for found in self.http.handle_event(event):
                self.events.put_nowait(found)

    def request(self, lines: Lines) -> int:
        """Send a request's HEADERS."""
        assert self.http is not None
        stream_id = self._quic.get_next_available_stream_id()
        self.http.send_headers(stream_id, lines)
        self.transmit()
        return stream_id

    def send(self, stream_id: int, data: bytes, *, fin: bool = False) -> None:
        """Send DATA."""
        assert self.http is not None
        self.http.send_data(stream_id, data, fin)
        self.transmit()

    def send_datagram(self, stream_id: int, data: bytes) -> None:
        """Send an HTTP Datagram."""
        assert self.http is not None
        self.http.send_datagram(stream_id, data)
        self.transmit()

    async def next(self) -> H3Event | QuicEvent:
        """The next event."""
        async with asyncio.timeout(5):
            return await self.events.get()

    async def status(self) -> bytes:
        """The next event is a response; its status."""
        event = await self.next()
        assert isinstance(event, HeadersReceived)
        return dict(event.headers)[b":status"]


@asynccontextmanager
async def connected(relay: Relay, *, webtransport: bool = False) -> AsyncIterator[Client]:
    """A connection of aioquic's client to the relay."""
    configuration = QuicConfiguration(alpn_protocols=["h3"], max_datagram_frame_size=65536, server_name="localhost")
    configuration.load_verify_locations(str(relay.certificates / "ca.pem"))
    async with connect(relay.host, relay.port, configuration=configuration, create_protocol=Client) as client:
        assert isinstance(client, Client)
        client.start(webtransport=webtransport)
        yield client


def connect_lines(port: int) -> Lines:
    """A classic CONNECT request."""
    return [(b":method", b"CONNECT"), (b":authority", b"127.0.0.1:%d" % port), _CREDENTIALS]


def connect_udp_lines(port: int) -> Lines:
    """A CONNECT-UDP request."""
    return [
        (b":method", b"CONNECT"),
        (b":protocol", b"connect-udp"),
        (b":scheme", b"https"),
        (b":authority", b"relay.example"),
        (b":path", b"/.well-known/masque/udp/127.0.0.1/%d/" % port),
        (b"capsule-protocol", b"?1"),
        _CREDENTIALS,
    ]


async def test_connect(start_relay: StartRelay) -> None:
    blob = os.urandom(200_000)
    async with tcp_listener() as origin, start_relay() as relay, connected(relay) as client:
        stream_id = client.request(connect_lines(origin.port))
        peer = await origin.accept()
        assert await client.status() == b"200"
        client.send(stream_id, blob, fin=True)
        assert await peer.receive_all() == blob
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(peer.send(blob))
            received, ended = b"", False
            while not ended:
                event = await client.next()
                assert isinstance(event, DataReceived)
                received, ended = received + event.data, event.stream_ended
                if sending.done() and len(received) == len(blob) and not ended:
                    peer.end()
        assert received == blob
        await relay.idle()
        assert relay.metrics.snapshot()["tunnels_closed", ("tcp", "closed")] == 1


async def test_refusal(start_relay: StartRelay) -> None:
    async with closed_port() as port, start_relay() as relay, connected(relay) as client:
        client.request(connect_lines(port))
        event = await client.next()
        assert isinstance(event, HeadersReceived)
        fields = dict(event.headers)
        assert fields[b":status"] == b"502"
        assert fields[b"proxy-status"] == b"masque-relay;error=connection_refused"
        assert event.stream_ended


async def test_connect_udp_with_frames(start_relay: StartRelay) -> None:
    async with (
        udp_origin(echoes=True) as origin,
        start_relay() as relay,
        connected(relay, webtransport=True) as client,
    ):
        stream_id = client.request(connect_udp_lines(origin.port))
        event = await client.next()
        assert isinstance(event, HeadersReceived)
        assert dict(event.headers)[b":status"] == b"200"
        assert dict(event.headers)[b"capsule-protocol"] == b"?1"
        for size in (0, 1, 1000, 1100):
            payload = b"\0" + os.urandom(size)
            client.send_datagram(stream_id, payload)
            answer = await client.next()
            assert isinstance(answer, DatagramReceived)
            assert (answer.stream_id, answer.data) == (stream_id, payload)


async def test_connect_udp_with_capsules(start_relay: StartRelay) -> None:
    async with udp_origin(echoes=True) as origin, start_relay() as relay, connected(relay) as client:
        stream_id = client.request(connect_udp_lines(origin.port))
        assert await client.status() == b"200"
        parser = CapsuleParser()
        for size in (0, 1, 1000, 3000):
            payload = b"\0" + os.urandom(size)
            client.send(stream_id, encode_capsule(0, payload))
            capsules: list[tuple[int, bytes]] = []
            while not capsules:
                event = await client.next()
                assert isinstance(event, DataReceived)
                capsules = parser.receive(event.data)
            assert capsules == [(0, payload)]


async def test_target_reset(start_relay: StartRelay) -> None:
    async with tcp_listener() as origin, start_relay() as relay, connected(relay) as client:
        client.request(connect_lines(origin.port))
        peer = await origin.accept()
        assert await client.status() == b"200"
        peer.reset()
        event = await client.next()
        assert isinstance(event, StreamReset)
        assert event.error_code == 0x10F
