"""Backlog and backpressure of `relay.quic.engine.Engine`: memory stays within the windows (RFC 9000 §4)."""

from __future__ import annotations

import hashlib

import pytest

from relay.quic.engine import EngineName, Terminated, TransportLimits
from tests.relay.quic.network import Network, Pki

WINDOW = 256 * 1024
LIMITS = TransportLimits(stream_window=WINDOW, connection_window=4 * WINDOW)
SLACK = 20_000
"Bytes of headers, acknowledgements and one refused packet."


@pytest.fixture
def small(pki: Pki, client_name: EngineName, server_name: EngineName) -> Network:
    """A network whose server has small windows, handshake complete and one request open on stream 0."""
    network = Network.of_engines(pki, client_name, server_name, server_limits=LIMITS)
    network.establish()
    network.client.send_stream(0, b"request")
    network.run(0.2)
    return network


def block(size: int) -> bytes:
    """Bytes that tell where they stand."""
    return b"".join(number.to_bytes(8, "big") for number in range(size // 8))


def test_backlog_grows_and_falls(small: Network) -> None:
    assert small.client.backlog(0) == 0
    small.client.send_stream(0, block(100_000))
    assert small.client.backlog(0) == 100_000
    small.client.transmit(small.now)
    assert 0 < small.client.backlog(0) < 100_000
    small.run(3)
    assert small.client.backlog(0) == 0
    assert small.client.backlog(4) == 0


def test_an_unheld_stream_flows_past_its_window(small: Network) -> None:
    data = block(5 * WINDOW)
    small.client.send_stream(0, data, True)
    small.run(10, until=lambda: small.server_end.has_fin(0))
    assert small.server_end.stream(0) == b"request" + data


def test_a_held_stream_stops_its_sender_at_the_window(small: Network) -> None:
    data = block(8 * WINDOW)
    before = small.client_end.sent_bytes
    small.server.hold(0)
    small.client.send_stream(0, data, True)
    small.run(20)
    sent = small.client_end.sent_bytes - before
    assert WINDOW * 0.4 < sent < WINDOW * 1.1 + SLACK
    assert small.client.backlog(0) >= len(data) - WINDOW
    assert not small.server_end.of(Terminated)
    small.server.release(0)
    small.collect()
    small.run(20, until=lambda: small.server_end.has_fin(0))
    assert small.server_end.stream(0) == b"request" + data


def test_other_traffic_of_the_connection_during_a_hold(small: Network) -> None:
    small.server.hold(0)
    small.client.send_stream(0, block(2 * WINDOW))
    small.run(2)
    small.client.send_stream(4, b"another request", True)
    small.client.send_datagrams(b"\x00", b"payload", 7)
    small.server.send_stream(0, block(40_000), True)
    small.run(2)
    arrived = small.server_end.stream(4) == b"another request"
    assert arrived is not small.server.holds_connection
    assert (small.server_end.datagrams == [b"\x00payload"]) is not small.server.holds_connection
    assert small.client_end.stream(0) == block(40_000), "our own sending goes on"
    small.server.release(0)
    small.collect()
    small.run(2)
    assert small.server_end.stream(4) == b"another request"
    assert small.server_end.has_fin(4)
    assert small.server_end.datagrams == [b"\x00payload"]
    assert small.server_end.stream(0) == b"request" + block(2 * WINDOW)


def test_all_held_streams_together_stay_within_the_connection_window(small: Network) -> None:
    before = small.client_end.sent_bytes
    streams = [4 * index for index in range(12)]
    for stream_id in streams:
        small.server.hold(stream_id)
        small.client.send_stream(stream_id, block(WINDOW))
    small.run(20)
    assert small.client_end.sent_bytes - before < LIMITS.connection_window * 1.1 + SLACK * 4
    for stream_id in streams:
        small.server.release(stream_id)
    small.collect()
    small.run(20)
    for stream_id in streams:
        assert small.server_end.stream(stream_id).endswith(block(WINDOW))


def test_holds_and_releases_may_repeat(small: Network) -> None:
    small.server.release(0)
    small.server.hold(0)
    small.server.hold(0)
    small.server.hold(4)
    small.client.send_stream(0, block(2 * WINDOW), True)
    small.run(2)
    for stream_id in (0, 0, 4):
        small.server.release(stream_id)
    small.collect()
    small.run(5)
    assert small.server_end.stream(0) == b"request" + block(2 * WINDOW)
    assert small.server_end.has_fin(0)


def test_datagrams_that_come_during_a_hold_cost_bounded_memory_and_later_ones_arrive(small: Network) -> None:
    small.server.hold(0)
    for _ in range(400):
        small.client.send_datagrams(b"", bytes(100 * 30), 100)
        small.step()
    small.server.release(0)
    small.collect()
    assert len(small.server_end.datagrams) <= 12_000
    small.run(5)
    small.server_end.datagrams.clear()
    small.client.send_datagrams(b"", b"afterwards", 10)
    small.run(2)
    assert small.server_end.datagrams == [b"afterwards"]
    assert not small.server_end.of(Terminated)


def test_a_close_is_noticed_during_a_hold(small: Network) -> None:
    small.server.hold(0)
    small.client.send_stream(0, block(WINDOW))
    small.run(1)
    small.client.close(0x10C)
    small.run(1)
    assert small.server_end.of(Terminated) == [Terminated(0x10C)]
    small.run(5)
    assert small.server.is_over


def test_an_idle_timeout_is_noticed_during_a_hold(pki: Pki, client_name: EngineName, server_name: EngineName) -> None:
    network = Network.of_engines(pki, client_name, server_name, server_limits=TransportLimits(idle=5.0))
    network.establish()
    network.client.send_stream(0, b"request")
    network.run(0.2)
    network.server.hold(0)
    network.loses = lambda payload: True
    network.run(20)
    assert len(network.server_end.of(Terminated)) == 1
    assert network.server.is_over


@pytest.mark.slow
def test_fifty_megabytes_to_a_held_stream(pki: Pki, client_name: EngineName, server_name: EngineName) -> None:
    """A fast sender and a slow target: what is in memory on our side is a window, not the upload."""
    size = (50 if client_name is server_name is EngineName.QH3 else 10) << 20
    limits = TransportLimits(stream_window=1 << 20, connection_window=8 << 20)
    network = Network.of_engines(pki, client_name, server_name, server_limits=limits)
    network.establish()
    network.client.send_stream(0, b"request")
    network.run(0.2)
    before = network.client_end.sent_bytes
    network.client_end.keeps_sent = False
    network.server.hold(0)
    piece = block(1 << 20)
    for _ in range(size >> 20):
        network.client.send_stream(0, piece)
        network.run(0.05)
    network.client.send_stream(0, b"", True)
    network.run(30)
    assert network.client_end.sent_bytes - before < (1 << 20) * 1.1 + SLACK
    assert network.client.backlog(0) > size - (1 << 20)
    network.server.release(0)
    network.collect()
    network.run(60, until=lambda: network.server_end.has_fin(0))
    digest = hashlib.sha256(b"request" + piece * (size >> 20)).digest()
    assert hashlib.sha256(network.server_end.stream(0)).digest() == digest
