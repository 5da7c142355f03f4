"""A client that behaves, to show that another one's misbehaviour costs it nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from relay.client import TunnelStream, UdpFlow
from relay.conformance.wire import WireClient, WireStream
from tests.e2e.origins import tcp_echo, udp_origin
from tests.e2e.rig import Relay, RelayProcess

__all__ = ["Neighbour", "neighbour", "still_works", "udp_tunnel"]


class Neighbour:
    """A client that behaves, with a TCP and a UDP tunnel to echoes."""

    def __init__(self, stream: TunnelStream, flow: UdpFlow) -> None:
        self.stream = stream
        self.flow = flow

    async def echoes(self, within: float = 2.0) -> None:
        """Both tunnels carry something there and back, soon."""
        async with asyncio.timeout(within):
            text = os.urandom(16)
            await self.stream.send(text)
            data = b""
            while len(data) < len(text):
                more = await self.stream.receive()
                assert more, "the neighbour's tunnel ended"
                data += more
            assert data == text
            for size in (0, 1200):
                payload = os.urandom(size)
                assert self.flow.send(payload)
                assert await self.flow.receive() == payload


@asynccontextmanager
async def neighbour(relay: Relay | RelayProcess) -> AsyncIterator[Neighbour]:
    """A neighbour on a connection of its own."""
    async with tcp_echo() as port, udp_origin(echoes=True) as origin, relay.client() as client:
        tunnels = await client.open_tcp("127.0.0.1", port), await client.open_udp("127.0.0.1", origin.port)
        yield Neighbour(*tunnels)


async def udp_tunnel(client: WireClient, port: int) -> WireStream:
    """An open UDP tunnel."""
    stream = await client.answered(client.connect_udp("127.0.0.1", port))
    assert stream.status == 200
    return stream


async def still_works(client: WireClient, stream: WireStream) -> None:
    """An echoing UDP tunnel of this very connection carries a payload there and back."""
    text = b"\0" + os.urandom(8)
    client.send_datagram(stream, text[1:])
    await client.until(lambda: text in stream.datagrams)
