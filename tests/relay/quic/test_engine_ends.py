"""How connections of `relay.quic.engine.Engine` end: closed by either side, in time, or idle."""

from __future__ import annotations

from relay.quic.engine import (
    EngineName,
    Terminated,
    TransportLimits,
)
from tests.relay.quic.network import Network, Pki


def test_close_terminates_both_sides_at_once_and_is_over_later(network: Network) -> None:
    network.client.close(0x10C, "going away")
    network.collect()
    assert network.client_end.of(Terminated) == [Terminated(0x10C)]
    start = network.now
    network.run(0.1, until=lambda: bool(network.server_end.of(Terminated)))
    assert network.now - start < 0.05
    network.run(10)
    assert network.client_end.of(Terminated) == [Terminated(0x10C)]
    assert network.server_end.of(Terminated) == [Terminated(0x10C)]
    assert network.client.is_over
    assert network.server.is_over
    assert network.client.deadline() is None
    assert network.server.deadline() is None


def test_the_server_may_close_too(network: Network) -> None:
    network.server.close(0x100)
    network.run(10)
    assert network.client_end.of(Terminated) == [Terminated(0x100)]
    assert network.client.is_over
    assert network.server.is_over


def test_close_is_noticed_when_its_first_packet_is_lost(network: Network) -> None:
    lost: list[bytes] = []

    def first(payload: bytes) -> bool:
        lost.append(payload)
        return len(lost) == 1

    network.loses = first
    network.client.close(7)
    network.step()
    assert not network.server_end.of(Terminated)
    network.server.send_stream(1, b"the server knows nothing yet")
    network.run(10)
    assert network.server_end.of(Terminated) == [Terminated(7)]


def test_a_connection_may_be_closed_before_its_handshake_ends(
    pki: Pki, client_name: EngineName, server_name: EngineName
) -> None:
    network = Network.of_engines(pki, client_name, server_name)
    network.step()
    network.server.close(0x100, "not now")
    network.client.close(0x100, "nor now")
    network.run(20)
    assert len(network.client_end.of(Terminated)) == 1
    assert network.client.is_over
    assert network.server.is_over


def test_calls_after_close_are_harmless(network: Network) -> None:
    network.client.close(7)
    for _ in range(2):
        network.client.send_stream(0, b"late", True)
        network.client.send_stream(4, b"later")
        network.client.send_datagrams(b"\x00", b"late", 4)
        network.client.reset_stream(0, 1)
        network.client.stop_sending(0, 1)
        network.client.hold(0)
        network.client.release(0)
        network.client.close(8)
        assert network.client.backlog(0) >= 0
        network.run(10)
    assert network.client_end.of(Terminated) == [Terminated(7)]
    assert network.client.is_over


def test_idle_timeout_ends_both_sides(pki: Pki, client_name: EngineName, server_name: EngineName) -> None:
    limits = TransportLimits(idle=5.0)
    network = Network.of_engines(pki, client_name, server_name, client_limits=limits, server_limits=limits)
    network.establish()
    start = network.now
    deadlines = [engine.deadline() for engine in (network.client, network.server)]
    assert all(deadline is not None and deadline <= start + 5.0 for deadline in deadlines)
    network.run(4.0)
    assert not network.client_end.of(Terminated)
    network.run(3.0)
    for side, engine in ((network.client_end, network.client), (network.server_end, network.server)):
        assert len(side.of(Terminated)) == 1
        assert engine.is_over
        assert engine.deadline() is None


def test_a_handshake_that_nobody_answers_keeps_a_deadline_and_ends(pki: Pki, client_name: EngineName) -> None:
    network = Network.of_engines(pki, client_name, EngineName.QH3, client_limits=TransportLimits(idle=3.0))
    network.loses = lambda payload: True
    network.run(0.05)
    assert network.client.deadline() is not None
    network.run(30, until=lambda: network.client.is_over)
    assert len(network.client_end.of(Terminated)) == 1
    assert len(network.client_end.sent) >= 2, "the first packet is sent again"
