"""Hostile packets: `Engine.receive` never raises, and nobody without the keys can end a connection."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.quic.engine import (
    Engine,
    EngineName,
    Established,
    IdIssued,
    Terminated,
    TransportLimits,
    load_factory,
)
from tests.relay.quic.network import CLIENT, SERVER, Network, Pki

ANY_ENGINE = pytest.mark.parametrize("name", list(EngineName))
REUSES_FIXTURES = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def established(pki: Pki, name: EngineName) -> Network:
    """Two engines of one library, handshake complete."""
    network = Network.of_engines(pki, name, name)
    network.establish()
    return network


def assert_alive(network: Network) -> None:
    """The connection carries data both ways."""
    network.collect()
    network.client.send_stream(40, b"still", True)
    network.server.send_stream(41, b"alive", True)
    network.run(2)
    assert network.server_end.stream(40) == b"still"
    assert network.client_end.stream(41) == b"alive"
    assert not network.client_end.of(Terminated)
    assert not network.server_end.of(Terminated)


@ANY_ENGINE
@REUSES_FIXTURES
@given(payloads=st.lists(st.binary(min_size=1, max_size=1500), max_size=8), first=st.integers(0, 255))
def test_garbage_does_not_harm_an_established_connection(
    pki: Pki, name: EngineName, payloads: list[bytes], first: int
) -> None:
    network = established(pki, name)
    for payload in payloads:
        for garbage in (payload, bytes((first,)) + network.server.connection_id + payload):
            network.server.receive(garbage, len(garbage), CLIENT, network.now)
            network.client.receive(garbage, len(garbage), SERVER, network.now)
    assert_alive(network)


@ANY_ENGINE
@REUSES_FIXTURES
@given(data=st.binary(min_size=1, max_size=3000), segment=st.integers(1, 1500))
def test_garbage_in_one_buffer_does_not_harm(pki: Pki, name: EngineName, data: bytes, segment: int) -> None:
    network = established(pki, name)
    network.server.receive(data, segment, CLIENT, network.now)
    network.client.receive(data, segment, SERVER, network.now)
    assert_alive(network)


@ANY_ENGINE
def test_every_prefix_of_real_packets_is_ignored(pki: Pki, name: EngineName) -> None:
    network = established(pki, name)
    network.client.send_stream(0, b"x" * 100, True)
    network.step()
    packets = [packet for packet in network.client_end.sent if packet[0] & 0x80][:2] + network.client_end.sent[-1:]
    for packet in packets:
        for end in range(1, len(packet)):
            network.server.receive(packet[:end], end, CLIENT, network.now)
    assert_alive(network)
    assert network.server_end.stream(0) == b"x" * 100


@ANY_ENGINE
def test_packets_that_come_again_count_once(pki: Pki, name: EngineName) -> None:
    network = established(pki, name)
    network.client.send_stream(0, b"once", True)
    network.client.send_datagrams(b"", b"once", 4)
    network.step()
    for packet in network.client_end.sent:
        network.server.receive(packet, len(packet), CLIENT, network.now)
    network.run(1)
    assert network.server_end.stream(0) == b"once"
    assert network.server_end.datagrams == [b"once"]
    assert_alive(network)


@ANY_ENGINE
def test_damaged_packets_are_ignored(pki: Pki, name: EngineName) -> None:
    network = established(pki, name)
    network.loses = lambda payload: True
    network.client.send_stream(0, b"y" * 100, True)
    network.step()
    packet = network.client_end.sent[-1]
    for position in range(len(packet)):
        damaged = bytearray(packet)
        damaged[position] ^= 0x11
        network.server.receive(bytes(damaged), len(packet), CLIENT, network.now)
    network.collect()
    assert network.server_end.stream(0) == b""
    network.loses = lambda payload: False
    network.run(3)
    assert network.server_end.stream(0) == b"y" * 100
    assert_alive(network)


@ANY_ENGINE
@REUSES_FIXTURES
@given(payload=st.binary(min_size=1200, max_size=1500))
def test_a_server_takes_any_first_packet(pki: Pki, name: EngineName, payload: bytes) -> None:
    engine = load_factory(name, TransportLimits(), pki.certificate).server(b"12345678", b"abcdefgh", None, 1000.0)
    exercise(engine, b"\xc0\x00\x00\x00\x01\x0812345678\x08abcdefgh\x00\x44\xd0" + payload)
    assert not any(isinstance(event, Established) for event in engine.take_events())


@ANY_ENGINE
def test_a_server_takes_every_prefix_of_a_first_packet(pki: Pki, name: EngineName) -> None:
    network = Network.of_engines(pki, name, name)
    network.step()
    (packet, *_) = network.client_end.sent
    factory = load_factory(name, TransportLimits(), pki.certificate)
    for end in [*range(1, 60), *range(60, len(packet), 37)]:
        engine = factory.server(packet[6:14], b"abcdefgh", None, 1000.0)
        exercise(engine, packet[:end])


@ANY_ENGINE
def test_garbage_during_the_handshake_does_not_stop_it(pki: Pki, name: EngineName) -> None:
    network = Network.of_engines(pki, name, name)
    for round_number in range(4):
        network.step()
        if network.server_end.of(Established):
            break
        for garbage in (b"\x40" * 50, b"\xc3\x00\x00\x00\x01" + bytes(1300), bytes(1200), b"\xe0" * 1200):
            damaged = bytes((garbage[0] ^ round_number,)) + garbage[1:]
            network.server.receive(damaged, len(damaged), CLIENT, network.now)
            network.client.receive(damaged, len(damaged), SERVER, network.now)
    network.run(2)
    assert_alive(network)


@ANY_ENGINE
def test_a_forged_version_negotiation_or_retry_does_not_end_an_established_connection(
    pki: Pki, name: EngineName
) -> None:
    network = established(pki, name)
    client_id = network.client.connection_id
    negotiation = b"\x80\x00\x00\x00\x00\x08" + client_id + b"\x0812345678" + b"\x1a\x2a\x3a\x4a"
    retry = b"\xf0\x00\x00\x00\x01\x08" + client_id + b"\x0812345678" + b"token" + bytes(16)
    for forged in (negotiation, retry):
        network.client.receive(forged, len(forged), SERVER, network.now)
    assert_alive(network)


@ANY_ENGINE
def test_packets_after_the_end_are_ignored(pki: Pki, name: EngineName) -> None:
    network = established(pki, name)
    network.client.send_stream(0, b"late")
    (late, *_) = network.client.transmit(network.now)[0][0]
    network.server.close(1)
    network.server.transmit(network.now)
    exercise(network.server, late)
    network.run(10)
    assert network.server.is_over
    exercise(network.server, late)
    exercise(network.server, b"\x40" * 60)
    assert network.server.take_datagrams() == []


def exercise(engine: Engine, packet: bytes) -> None:
    """What an endpoint does with a packet; must not raise."""
    engine.receive(packet, len(packet), CLIENT, 1000.0)
    for event in engine.take_events():
        assert isinstance(event, IdIssued | Terminated)
    engine.take_datagrams()
    engine.transmit(1000.0)
    due = engine.deadline()
    if due is not None:
        engine.on_deadline(due)
        engine.transmit(due)
