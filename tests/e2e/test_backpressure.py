"""Who stops reading is not sent to for ever: memory stays bounded, neighbours go on, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os

import psutil
import pytest

from masque.errors import ErrorCode
from relay.client import ClientError, RelayClient, TunnelStream
from relay.telemetry import LimitName, Metric
from tests.e2e.conftest import StartProcess, StartRelay
from tests.e2e.neighbour import neighbour, still_works, udp_tunnel
from tests.e2e.origins import TcpPeer, tcp_echo, tcp_listener, udp_origin
from tests.e2e.rig import resolving, until
from tests.relay.dns_server import running_server, silent

pytestmark = pytest.mark.anyio

_MIB = 1 << 20


class Pump:
    """Sends as fast as it may and counts."""

    def __init__(self) -> None:
        self.sent = 0

    async def into_peer(self, peer: TcpPeer) -> None:
        """From a target."""
        try:
            while True:
                await peer.send(bytes(65536))
                self.sent += 65536
        except OSError:
            return

    async def into_stream(self, stream: TunnelStream) -> None:
        """From a client."""
        while True:
            await stream.send(bytes(65536))
            self.sent += 65536

    async def stalled(self, quiet: float = 0.5) -> int:
        """Wait until nothing more goes out for a while; returns how much went."""
        loop = asyncio.get_running_loop()
        seen, since = self.sent, loop.time()
        async with asyncio.timeout(20):
            while not self.sent or loop.time() - since < quiet:
                await asyncio.sleep(0.05)
                if self.sent != seen:
                    seen, since = self.sent, loop.time()
        return self.sent


class TestBackpressure:
    async def test_reader_that_stops(self, start_process: StartProcess) -> None:
        async with start_process() as relay, neighbour(relay) as other, tcp_listener() as origin:
            await other.echoes()
            memory = psutil.Process(relay.process.pid).memory_info
            before = memory().rss
            pump = Pump()
            async with relay.client() as client, asyncio.TaskGroup() as tasks:
                await client.open_tcp("127.0.0.1", origin.port)  # and never received from
                pumping = tasks.create_task(pump.into_peer(await origin.accept()))
                sent = await pump.stalled()
                grown = memory().rss - before
                await other.echoes()
                pumping.cancel()
            assert sent < 24 * _MIB, f"{sent} bytes were taken of a target that nobody listens to"
            assert grown < 24 * _MIB, f"the relay grew by {grown} bytes"

    async def test_target_that_stops(self, start_process: StartProcess) -> None:
        async with start_process({"limits.write_stall": "60"}) as relay, neighbour(relay) as other:
            async with tcp_listener(receive_buffer=4096) as origin:
                await other.echoes()
                memory = psutil.Process(relay.process.pid).memory_info
                before = memory().rss
                pump = Pump()
                async with relay.client() as client, asyncio.TaskGroup() as tasks:
                    stream = await client.open_tcp("127.0.0.1", origin.port)
                    await origin.accept()  # and never received from
                    pumping = tasks.create_task(pump.into_stream(stream))
                    sent = await pump.stalled()
                    grown = memory().rss - before
                    await other.echoes()
                    pumping.cancel()
            assert sent < 40 * _MIB, f"{sent} bytes were taken for a target that reads nothing"
            assert grown < 40 * _MIB, f"the relay grew by {grown} bytes"

    async def test_many_targets_that_stop(self, start_process: StartProcess) -> None:
        """The connection's own bound holds, however many of its tunnels are stuck."""
        settings = {
            "limits.write_stall": "60",
            "limits.tunnel_buffer": "2MiB",
            "limits.connection_buffer": "4MiB",
        }
        async with (
            start_process(settings) as relay,
            neighbour(relay) as other,
            tcp_listener(receive_buffer=4096) as origin,
            relay.client() as client,
        ):
            streams = [await client.open_tcp("127.0.0.1", origin.port) for _ in range(60)]
            await other.echoes()
            memory = psutil.Process(relay.process.pid).memory_info
            before = memory().rss
            pump = Pump()
            async with asyncio.TaskGroup() as tasks:
                pumping = [tasks.create_task(pump.into_stream(stream)) for stream in streams]
                await pump.stalled()
                grown = memory().rss - before
                await other.echoes()
                for task in pumping:
                    task.cancel()
        assert grown < 28 * _MIB, f"the relay grew by {grown} bytes"

    async def test_early_data_does_not_hold_the_connection(self, start_relay: StartRelay) -> None:
        """A request that waits for its name, and brings more early data than is kept, must not stop the others."""
        async with running_server() as server, udp_origin(echoes=True) as origin:
            server.answer("slow.example", silent, silent)
            async with start_relay(resolving(server)) as relay, relay.wire() as client:
                tunnel = await udp_tunnel(client, origin.port)
                stream = client.connect("slow.example", 80)
                client.send_content(stream, bytes(300_000))
                await until(lambda: server.asked)
                await asyncio.wait_for(still_works(client, tunnel), 1)
                client.reset(stream, ErrorCode.H3_REQUEST_CANCELLED)
                await until(lambda: relay.server.exchanges == 1, within=1)

    async def test_many_readers_that_stop(self, start_process: StartProcess) -> None:
        """The connection's own bound holds for what waits for its client, too."""
        async with (
            start_process() as relay,
            neighbour(relay) as other,
            tcp_listener() as origin,
            relay.client() as client,
        ):
            peers = []
            for _ in range(90):
                await client.open_tcp("127.0.0.1", origin.port)  # and never received from
                peers.append(await origin.accept())
            await other.echoes()
            memory = psutil.Process(relay.process.pid).memory_info
            before = memory().rss
            pump = Pump()
            async with asyncio.TaskGroup() as tasks:
                pumping = [tasks.create_task(pump.into_peer(peer)) for peer in peers]
                await pump.stalled()
                grown = memory().rss - before
                await other.echoes()
                for task in pumping:
                    task.cancel()
        assert grown < 44 * _MIB, f"the relay grew by {grown} bytes"

    async def test_all_bytes_arrive_after_the_stop(self, start_relay: StartRelay) -> None:
        blob = os.urandom(12 * _MIB)
        async with start_relay() as relay, tcp_listener(receive_buffer=4096) as origin, relay.client() as client:
            stream = await client.open_tcp("127.0.0.1", origin.port)
            peer = await origin.accept()
            async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(stream.send(blob))
                await until(lambda: relay.server.exchanges == 1)
                received = bytearray(await peer.receive_exactly(1000))
                await asyncio.wait([sending], timeout=0.3)
                received += await peer.receive_exactly(len(blob) - 1000)
            assert received == blob

    async def test_stuck_target_does_not_hold_the_connection(self, start_relay: StartRelay, engine: str) -> None:
        """Where holding one stream holds the connection, a target that takes nothing is cut off in time."""
        async with (
            tcp_echo() as port,
            tcp_listener(receive_buffer=4096) as stuck,
            start_relay({"limits.write_stall": "1"}) as relay,
            relay.client() as client,
        ):
            pump = Pump()
            good = await client.open_tcp("127.0.0.1", port)
            bad = await client.open_tcp("127.0.0.1", stuck.port)
            await stuck.accept()

            async def pump_until_cut() -> None:
                with pytest.raises(Exception, match="tunnel") as caught:
                    await pump.into_stream(bad)
                assert caught.typename == "TunnelClosed"

            async with asyncio.TaskGroup() as tasks:
                pumping = tasks.create_task(pump_until_cut())
                await until(lambda: pump.sent > 4 * _MIB)
                await good.send(b"still there?")
                async with asyncio.timeout(8):
                    assert await good.receive() == b"still there?"
                    if engine == "qh3":
                        await pumping
                    else:
                        await bad.aclose()
            if engine == "qh3":
                assert relay.count(Metric.LIMITS_HIT, LimitName.WRITE_STALL) == 1
                assert relay.metrics.snapshot()["tunnels_closed", ("tcp", "connection_write_timeout")] == 1
            else:
                assert relay.count(Metric.LIMITS_HIT, LimitName.WRITE_STALL) == 0

    async def test_early_data_of_many_waiting_requests(self, start_process: StartProcess) -> None:
        """Requests that wait for their names keep a bounded amount each, and do not stop a neighbour."""
        async with running_server() as server:
            server.answer("slow.example", silent, silent)
            async with start_process(resolving(server)) as relay, neighbour(relay) as other, relay.wire() as client:
                await other.echoes()
                memory = psutil.Process(relay.process.pid).memory_info
                before = memory().rss
                for _ in range(50):
                    client.send_content(client.connect("slow.example", 80), bytes(2 * _MIB))
                await until(lambda: server.asked)
                for _ in range(10):
                    await other.echoes()
                    await asyncio.sleep(0.05)
                grown = memory().rss - before
            assert grown < 40 * _MIB, f"the relay grew by {grown} bytes"


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_ten_thousand_tunnels_leave_nothing(start_process: StartProcess) -> None:
    """Tunnels of both kinds, ended in order and by reset: descriptors and memory are as before."""
    async with tcp_echo() as port, udp_origin(echoes=True) as origin, start_process() as relay:
        process = psutil.Process(relay.process.pid)
        async with relay.client(timeout=30.0) as client:
            await open_and_close(client, port, origin.port, 1000)
            await quiet(process)
            descriptors, memory = process.num_fds(), process.memory_info().rss
            await open_and_close(client, port, origin.port, 10_000)
            await quiet(process)
            more, grown = process.num_fds() - descriptors, process.memory_info().rss - memory
    report = f"after 10,000 tunnels: {more:+} descriptors, {grown / 1024:+.0f} KiB"
    print(report)
    assert more <= 0, report
    assert grown < 8 * _MIB, report


async def open_and_close(client: RelayClient, tcp_port: int, udp_port: int, count: int) -> None:
    """Open, use and close so many tunnels, forty at a time, half of them UDP, a third cut off."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            if number % 2:
                stream = await client.open_tcp("127.0.0.1", tcp_port)
                await stream.send(b"x")
                if number % 3:
                    await stream.send_eof()
                    while await stream.receive():
                        pass
                await stream.aclose()
            else:
                flow = await client.open_udp("127.0.0.1", udp_port)
                flow.send(b"x")
                if number % 3:
                    await flow.receive()
                await flow.aclose()

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(40):
                tasks.create_task(work())
    except* ClientError as group:
        raise group.exceptions[0] from None


async def quiet(process: psutil.Process) -> None:
    """Wait until the relay has closed what it closes: its descriptors stay the same for a while."""
    loop = asyncio.get_running_loop()
    seen, since = process.num_fds(), loop.time()
    async with asyncio.timeout(10):
        while loop.time() - since < 0.3:
            await asyncio.sleep(0.05)
            if process.num_fds() != seen:
                seen, since = process.num_fds(), loop.time()
