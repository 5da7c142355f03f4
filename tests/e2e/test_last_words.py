"""The end of a tunnel overtakes nothing: a broken target's last bytes, a client's last datagram."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from masque.capsule import CapsuleType, encode_capsule
from masque.errors import ErrorCode
from relay.conformance.wire import WireClient, WireStream
from relay.quic.engine import TransportLimits
from relay.resolver import MAX_ADDRESSES
from relay.telemetry import DropReason, LimitName, Metric
from tests.e2e.conftest import StartRelay
from tests.e2e.origins import TcpPeer, closed_port, tcp_listener, udp_origin
from tests.e2e.rig import Relay, resolving, until
from tests.relay.dns_server import records, running_server

pytestmark = pytest.mark.anyio

_NARROW = TransportLimits(stream_window=16384)
"A client that takes little at a time."


def waiting(peer: TcpPeer, request: int = termios.FIONREAD) -> int:
    """Bytes that the peer has not read, or with TIOCOUTQ those that have not reached the relay's socket."""
    found: tuple[int] = struct.unpack("i", fcntl.ioctl(peer.sock, request, bytes(4)))
    return found[0]


async def close_with_unread(peer: TcpPeer, answer: bytes) -> None:
    """Send, and close while input waits: the kernel sends a reset instead of a FIN, after the answer."""
    await peer.send(answer)
    await until(lambda: waiting(peer) and not waiting(peer, termios.TIOCOUTQ))
    peer.close()


async def turn(relay: Relay) -> None:
    """Wait until the relay has done all that it can know of: it answers somebody else."""
    async with closed_port() as port, relay.wire() as client:
        assert (await client.answered(client.connect("127.0.0.1", port))).status == 502


def send_now(client: WireClient, stream: WireStream, data: bytes, fin: bool = False) -> None:
    """Send, and have the packet in the relay's socket before anything else happens."""
    client.send_content(stream, data, fin)
    client.link._poller.drain()


async def take_more(client: WireClient, stream: WireStream) -> None:
    """Give a held stream credit until something comes."""
    size = len(stream.data)
    client.link.release(stream.stream_id)
    await client.until(lambda: len(stream.data) > size or stream.reset is not None)
    client.link.hold(stream.stream_id)


@asynccontextmanager
async def client_behind(
    start_relay: StartRelay, settings: dict[str, str], *, receive_buffer: int | None = None
) -> AsyncIterator[tuple[Relay, WireClient, WireStream, TcpPeer]]:
    """A tunnel of a client that takes little at a time, and of this stream nothing until it is released."""
    async with (
        tcp_listener(receive_buffer=receive_buffer) as origin,
        start_relay(settings) as relay,
        relay.wire(limits=_NARROW) as client,
    ):
        stream = await client.answered(client.connect("127.0.0.1", origin.port))
        peer = await origin.accept()
        client.link.hold(stream.stream_id)
        yield relay, client, stream, peer


def answer_of(size: int) -> bytes:
    """Bytes of which none can be lost or moved unseen."""
    return b"".join(struct.pack("!I", number) for number in range(size // 4))


class TestBrokenTargets:
    """A target that answers and closes without reading on: its bytes, all of them, and then the reset."""

    @pytest.mark.parametrize("size", [200, 20_000, 200_000])
    async def test_nothing_is_uploaded(self, start_relay: StartRelay, size: int) -> None:
        async with tcp_listener() as origin, start_relay() as relay, relay.wire() as client:
            stream = await client.answered(client.connect("127.0.0.1", origin.port))
            peer = await origin.accept()
            client.send_content(stream, b"ask!")
            assert await peer.receive_exactly(3) == b"ask"
            await close_with_unread(peer, answer_of(size))
            assert await client.cut(stream) == ErrorCode.H3_CONNECT_ERROR
            assert stream.data == answer_of(size)
            assert not stream.is_ended
            await relay.idle()
            assert relay.count(Metric.BYTES_TO_CLIENT) == size

    @pytest.mark.parametrize("size", [200, 20_000, 200_000])
    async def test_upload_is_pending(self, start_relay: StartRelay, size: int) -> None:
        settings = {"limits.tunnel_buffer": "512KiB"}
        async with (
            tcp_listener(receive_buffer=4096) as origin,
            start_relay(settings) as relay,
            relay.wire() as client,
        ):
            stream = await client.answered(client.connect("127.0.0.1", origin.port))
            peer = await origin.accept()
            for _ in range(60):
                client.send_content(stream, bytes(100_000))
            await until(lambda: relay.count(Metric.LIMITS_HIT, LimitName.TUNNEL_BUFFER))
            await close_with_unread(peer, answer_of(size))
            assert await client.cut(stream) == ErrorCode.H3_CONNECT_ERROR
            assert stream.data == answer_of(size)
            other = await client.answered(client.connect("127.0.0.1", origin.port))
            assert other.status == 200, "the connection is held no more"

    async def test_upload_comes_with_the_break(self, start_relay: StartRelay) -> None:
        """The relay's turn begins with the client's bytes: its socket is broken, and has the answer."""
        async with tcp_listener() as origin, start_relay() as relay, relay.wire() as client:
            stream = await client.answered(client.connect("127.0.0.1", origin.port))
            peer = await origin.accept()
            await turn(relay)
            send_now(client, stream, b"more")
            peer.sock.send(answer_of(20_000))
            peer.reset()
            assert await client.cut(stream) == ErrorCode.H3_CONNECT_ERROR
            assert stream.data == answer_of(20_000)

    @pytest.mark.parametrize("size", [40_000, 120_000])
    @pytest.mark.parametrize("uploads", [False, True])
    async def test_stream_is_behind(self, start_relay: StartRelay, size: int, uploads: bool) -> None:
        """With the larger answer the relay's socket has bytes too, which it reads as the stream drains."""
        settings = {"limits.tunnel_buffer": "512KiB"}  # 64 KiB wait for the client before the socket is left alone
        async with client_behind(start_relay, settings) as (relay, client, stream, peer):
            client.send_content(stream, b"ask!")
            assert await peer.receive_exactly(3) == b"ask"
            await close_with_unread(peer, answer_of(size))
            if uploads:
                client.send_content(stream, b"more")
            await turn(relay)
            assert relay.count(Metric.TUNNELS_ACTIVE) == 1
            client.link.release(stream.stream_id)
            assert await client.cut(stream) == ErrorCode.H3_CONNECT_ERROR
            assert stream.data == answer_of(size)

    async def test_both_are_behind(self, start_relay: StartRelay) -> None:
        """The relay neither reads its socket nor gets rid of the upload when the target breaks."""
        settings = {"limits.tunnel_buffer": "512KiB"}
        async with client_behind(start_relay, settings, receive_buffer=4096) as (relay, client, stream, peer):
            for _ in range(60):
                client.send_content(stream, bytes(100_000))
            await until(lambda: relay.count(Metric.LIMITS_HIT, LimitName.TUNNEL_BUFFER))
            await close_with_unread(peer, answer_of(120_000))
            await turn(relay)
            client.link.release(stream.stream_id)
            assert await client.cut(stream) == ErrorCode.H3_CONNECT_ERROR
            assert stream.data == answer_of(120_000)

    async def test_client_ends_while_it_is_behind(self, start_relay: StartRelay) -> None:
        """The broken socket cannot be shut down any more, and is read all the same."""
        settings = {"limits.tunnel_buffer": "512KiB"}
        async with client_behind(start_relay, settings) as (relay, client, stream, peer):
            client.send_content(stream, b"ask!")
            assert await peer.receive_exactly(3) == b"ask"
            await close_with_unread(peer, answer_of(120_000))
            client.send_content(stream, b"", True)
            await turn(relay)
            client.link.release(stream.stream_id)
            assert await client.cut(stream) == ErrorCode.H3_CONNECT_ERROR
            assert stream.data == answer_of(120_000)

    async def test_client_that_is_slow_is_not_given_up(self, start_relay: StartRelay) -> None:
        """All in all it takes longer than the bound, but it never takes nothing for so long."""
        async with client_behind(start_relay, {"limits.write_stall": "0.3"}) as (_, client, stream, peer):
            client.send_content(stream, b"?")
            await close_with_unread(peer, answer_of(200_000))
            while stream.reset is None and len(stream.data) < 200_000:
                await take_more(client, stream)
                await asyncio.sleep(0.05)
            assert await client.cut(stream) == ErrorCode.H3_CONNECT_ERROR
            assert stream.data == answer_of(200_000)

    async def test_client_that_never_takes_them(self, start_relay: StartRelay) -> None:
        async with client_behind(start_relay, {"limits.write_stall": "0.5"}) as (relay, client, stream, peer):
            client.send_content(stream, b"?")
            started = asyncio.get_running_loop().time()
            await close_with_unread(peer, answer_of(40_000))
            await relay.idle()
            assert asyncio.get_running_loop().time() - started > 0.45
            client.link.release(stream.stream_id)
            assert await client.cut(stream) == ErrorCode.H3_CONNECT_ERROR
            assert len(stream.data) < 40_000


class TestDatagrams:
    """UDP payloads at a tunnel's end, and next to one that cannot be sent."""

    async def test_end_of_the_stream_in_the_same_flight(self, start_relay: StartRelay) -> None:
        async with udp_origin() as origin, start_relay() as relay, relay.wire() as client:
            stream = await client.answered(client.connect_udp("127.0.0.1", origin.port))
            for number in range(3):
                assert client.send_datagram(stream, b"last %d" % number)
            client.send(stream, b"", True)
            assert [(await origin.receive())[0] for _ in range(3)] == [b"last 0", b"last 1", b"last 2"]
            await client.ended(stream)
            await relay.idle()
            assert relay.count(Metric.DATAGRAMS_TO_TARGET) == 3

    @pytest.mark.parametrize("place", [0, 1, 3])
    async def test_payload_too_big_for_the_path(self, start_relay: StartRelay, place: int) -> None:
        """A UDP payload may have 65,527 bytes (RFC 9298 §5), but over IPv4 no packet takes more than 65,507."""
        others = [b"a" * 10, b"b" * 10, b"c" * 11]
        payloads = [*others[:place], bytes(65_520), *others[place:]]
        async with udp_origin() as origin, start_relay() as relay, relay.wire() as client:
            stream = await client.answered(client.connect_udp("127.0.0.1", origin.port))
            client.send_content(stream, b"".join(encode_capsule(CapsuleType.DATAGRAM, b"\0" + p) for p in payloads))
            assert [(await origin.receive())[0] for _ in others] == others
            client.send(stream, b"", True)
            await client.ended(stream)
            await relay.idle()
            assert relay.count(Metric.DATAGRAMS_TO_TARGET) == 3
            assert relay.metrics.snapshot()["bytes_to_target", ("udp",)] == 31
            assert relay.count(Metric.DATAGRAMS_DROPPED, DropReason.TOO_BIG) == 1
            assert relay.count(Metric.DATAGRAMS_DROPPED) == 1


@pytest.mark.parametrize("place", [MAX_ADDRESSES, MAX_ADDRESSES + 1])
async def test_name_with_many_addresses(start_relay: StartRelay, place: int) -> None:
    """Only the address at `place` answers; whoever owns a name may not have more tried than the bound."""
    async with running_server() as server, tcp_listener(f"127.0.9.{place}") as origin:
        server.answer("many.example", records(*(f"many.example. 60 IN A 127.0.9.{n}" for n in range(1, 31))))
        async with start_relay(resolving(server)) as relay, relay.wire() as client:
            stream = await client.answered(client.connect("many.example", origin.port))
            assert stream.status == (200 if place == MAX_ADDRESSES else 502)
            assert origin.has_waiting() == (place == MAX_ADDRESSES)
