"""The contract of `relay.quic.engine.Engine` for streams, for both engines and across them."""

from __future__ import annotations

from collections import Counter

from relay.quic.engine import (
    EngineName,
    Established,
    StreamData,
    StreamReset,
    Terminated,
    TransportLimits,
)
from tests.relay.quic.network import CLIENT, SERVER, Network, Pki

BODY = bytes(range(256)) * 1200


def test_established_comes_before_the_stream_data_that_follows_it(
    pki: Pki, client_name: EngineName, server_name: EngineName
) -> None:
    network = Network.of_engines(pki, client_name, server_name)
    network.run(until=lambda: bool(network.client_end.of(Established)))
    network.client.send_stream(0, b"in the flight of the client's Finished")
    network.run()
    kinds = [type(event) for event in network.server_end.events if isinstance(event, Established | StreamData)]
    assert kinds == [Established, StreamData]


def test_stream_data_goes_both_ways_in_order_and_ends(network: Network) -> None:
    network.client.send_stream(0, BODY[:1000])
    network.run(0.1)
    network.client.send_stream(0, memoryview(BODY)[1000:], True)
    network.server.send_stream(1, BODY, True)
    network.run()
    network.server.send_stream(0, BODY[::-1], True)
    network.run()
    assert network.server_end.stream(0) == BODY
    assert network.server_end.has_fin(0)
    assert network.client_end.stream(0) == BODY[::-1]
    assert network.client_end.has_fin(0)
    assert network.client_end.stream(1) == BODY
    assert network.client_end.has_fin(1)


def test_data_queued_before_the_handshake_arrives(pki: Pki, client_name: EngineName, server_name: EngineName) -> None:
    network = Network.of_engines(pki, client_name, server_name)
    network.client.send_stream(2, b"\x00settings")
    network.client.send_stream(0, BODY, True)
    assert network.client.backlog(0) == len(BODY)
    network.run()
    assert network.server_end.stream(2) == b"\x00settings"
    assert network.server_end.stream(0) == BODY
    assert network.server_end.has_fin(0)


def test_a_fin_alone_ends_a_stream(network: Network) -> None:
    network.client.send_stream(0, b"x")
    network.run(0.1)
    network.client.send_stream(0, b"", True)
    network.run(0.1)
    assert network.server_end.of(StreamData)[-1] == StreamData(0, b"", True)


def test_lost_packets_are_sent_again(network: Network) -> None:
    lost: list[bool] = []

    def every_fifth(payload: bytes) -> bool:
        lost.append(len(lost) % 5 == 0)
        return lost[-1]

    network.loses = every_fifth
    network.client.send_stream(0, BODY, True)
    network.run(20, until=lambda: network.server_end.has_fin(0))
    assert sum(lost) > 10
    assert network.server_end.stream(0) == BODY


def test_one_buffer_may_hold_many_packets(network: Network) -> None:
    network.client.send_stream(0, BODY, True)
    ((payloads, address),) = network.client.transmit(network.now)
    assert address == SERVER
    size = Counter(map(len, payloads)).most_common(1)[0][0]
    full = [payload for payload in payloads if len(payload) == size]
    assert len(full) >= 3
    shorter = [payload for payload in payloads if len(payload) < size][:1]
    before = len(network.server_end.stream(0))
    network.server.receive(b"".join(full + shorter), size, CLIENT, network.now)
    network.collect()
    assert len(network.server_end.stream(0)) - before > (len(full) - 1) * (size - 100)


def test_reset_stream_reaches_the_peer(network: Network) -> None:
    network.client.send_stream(0, b"abandoned")
    network.run(0.1)
    network.client.reset_stream(0, 0x10C)
    network.run(0.1)
    assert network.server_end.of(StreamReset) == [StreamReset(0, 0x10C)]


def test_calls_on_streams_that_are_over_are_ignored(network: Network) -> None:
    network.client.send_stream(0, b"x", True)
    network.run(0.1)
    network.server.send_stream(0, b"y", True)
    network.run(0.5)
    for engine in (network.client, network.server):
        engine.send_stream(0, b"too late")
        engine.send_stream(0, b"", True)
        engine.reset_stream(0, 1)
        engine.stop_sending(0, 1)
        assert engine.backlog(0) == 0
    network.run(0.5)
    assert network.server_end.stream(0) == b"x"
    assert not network.client_end.of(Terminated)
    assert not network.server_end.of(Terminated)


def test_sending_after_a_reset_is_ignored(network: Network) -> None:
    network.client.send_stream(0, b"x")
    network.client.reset_stream(0, 1)
    network.run(0.5)
    network.client.send_stream(0, b"y", True)
    network.client.reset_stream(0, 2)
    network.run(0.5)
    assert network.server_end.of(StreamReset) == [StreamReset(0, 1)]


def test_announced_stream_limit_holds_and_moves_on(
    pki: Pki, client_name: EngineName, server_name: EngineName
) -> None:
    network = Network.of_engines(pki, client_name, server_name, server_limits=TransportLimits(streams=3))
    network.establish()
    ids = [4 * index for index in range(8)]
    for stream_id in ids:
        network.client.send_stream(stream_id, b"request", True)
    network.run(0.5)
    assert sorted({event.stream_id for event in network.server_end.of(StreamData)}) == ids[:3]
    for _ in range(6):
        for event in network.server_end.of(StreamData):
            network.server.send_stream(event.stream_id, b"", True)
        network.run(0.5)
    assert sorted({event.stream_id for event in network.server_end.of(StreamData)}) == ids
    assert not network.client_end.of(Terminated)


def test_a_stream_beyond_the_limit_can_be_given_up(
    pki: Pki, client_name: EngineName, server_name: EngineName
) -> None:
    """A client that cancels a tunnel the server had no room for must not lose its other tunnels."""
    network = Network.of_engines(pki, client_name, server_name, server_limits=TransportLimits(streams=1))
    network.establish()
    for stream_id in (0, 4, 8):
        network.client.send_stream(stream_id, b"request")
    network.run(0.2)
    assert network.client.backlog(4) == len(b"request")
    network.client.reset_stream(4, 0x10C)
    network.client.stop_sending(4, 0x10C)
    network.client.send_stream(8, b" goes on", True)
    network.run(0.2)
    for stream_id in (0, 4):
        network.client.send_stream(stream_id, b"", True)
        network.server.send_stream(stream_id, b"", True)
        network.server.reset_stream(stream_id, 0)
        network.run(0.5)
    assert network.server_end.stream(4) == b""
    assert network.server_end.of(StreamReset) == [StreamReset(4, 0x10C)]
    assert network.server_end.stream(8) == b"request goes on"
    assert not network.client_end.of(Terminated)
    assert not network.server_end.of(Terminated)
