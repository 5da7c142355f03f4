"""A client whose address changes (RFC 9000 §9): found at once, within three times what came from there."""

from __future__ import annotations

from typing import Any

import pytest

from relay.quic.engine import Address, EngineName, Terminated
from relay.quic.qh3_paths import MAX_PATHS
from tests.relay.quic.network import CLIENT, Network, Pki

ELSEWHERE: Address = ("192.0.2.1", 50001)
BODY = bytes(range(256)) * 400


def moved(index: int) -> Address:
    return ("192.0.2.1", 50000 + index)


def connect(pki: Pki, client: EngineName, server: EngineName) -> Network:
    network = Network.of_engines(pki, client, server)
    network.establish()
    network.client.send_stream(0, b"here")
    network.run(0.2)
    return network


def move(network: Network, address: Address, *, alone: bool = True) -> None:
    """From now on the client is at `address`, and only there."""
    network.client_end.address = address
    network.arrivals.clear()
    if alone:
        network.reaches = lambda destination: destination == address


def test_everything_goes_to_the_newest_address_at_once(
    pki: Pki, client_name: EngineName, server_name: EngineName
) -> None:
    network = connect(pki, client_name, server_name)
    move(network, ELSEWHERE)
    network.client.send_stream(0, BODY)
    network.run(0.1, lambda: len(network.server_end.stream(0)) == 4 + len(BODY))
    network.server.send_stream(0, BODY)
    network.run(2.0, lambda: network.client_end.stream(0) == BODY)
    assert network.client_end.stream(0) == BODY
    assert CLIENT not in network.arrivals, "what was sent there reached nobody"


def test_a_download_goes_on_when_its_client_moves(pki: Pki, client_name: EngineName, server_name: EngineName) -> None:
    """All that the client sends then is acknowledgements."""
    network = connect(pki, client_name, server_name)
    network.server.send_stream(0, BODY * 20)
    network.run(0.02)
    assert len(network.client_end.stream(0)) < len(BODY) * 20, "the client moves while the download is under way"
    move(network, ELSEWHERE)
    network.run(20.0, lambda: len(network.client_end.stream(0)) == len(BODY) * 20)
    assert network.client_end.stream(0) == BODY * 20


def test_back_to_an_address_that_is_known(pki: Pki, server_name: EngineName) -> None:
    network = connect(pki, EngineName.QH3, server_name)
    for turn in range(10):
        move(network, ELSEWHERE if turn % 2 == 0 else CLIENT)
        network.client.send_stream(0, b"there")
        network.run(0.1)
        network.server.send_stream(0, BODY)
        network.run(2.0, lambda turn=turn: len(network.client_end.stream(0)) == (turn + 1) * len(BODY))  # type: ignore[misc]
        assert len(network.client_end.stream(0)) == (turn + 1) * len(BODY), turn


def test_no_more_than_three_times_what_came_from_an_address_that_is_not_validated(
    pki: Pki, server_name: EngineName
) -> None:
    """RFC 9000 §8: somebody may have forged the address. Here nobody answers there."""
    network = connect(pki, EngineName.QH3, server_name)
    move(network, ELSEWHERE, alone=False)
    network.reaches = lambda destination: destination != ELSEWHERE
    network.client.send_stream(0, b"hello")
    before = network.client_end.sent_bytes
    network.step()
    sent = network.client_end.sent_bytes - before
    network.client_end.address = CLIENT
    network.server.send_stream(0, BODY)
    network.run(5.0, lambda: network.client_end.stream(0) == BODY)
    assert 0 < sent < 200
    assert network.arrivals.get(ELSEWHERE, 0) <= 3 * sent
    assert network.client_end.stream(0) == BODY, "the client itself is served on"


def test_an_address_where_nobody_answers_stops_nothing_later(pki: Pki) -> None:
    """The core alone would send nothing more to anybody once that address has no room left."""
    network = connect(pki, EngineName.QH3, EngineName.QH3)
    network.reaches = lambda destination: destination == CLIENT
    network.client_end.address = ELSEWHERE
    network.client.send_stream(0, b"hello")
    network.step()
    network.client_end.address = CLIENT
    for turn in range(1, 40):
        network.server.send_stream(0, b"x" * 1000)
        network.client.send_stream(0, b"y")
        network.run(1.0)
        assert len(network.client_end.stream(0)) == turn * 1000


@pytest.mark.parametrize("size", [21, 40, 1200])
def test_what_is_not_authentic_moves_nobody(pki: Pki, server_name: EngineName, size: int) -> None:
    network = connect(pki, EngineName.QH3, server_name)
    header = bytes([0x40]) + network.server.connection_id
    for index in range(10):
        forged = header + bytes([index]) * (size - len(header))
        network.server.receive(forged, len(forged), moved(10 + index), network.now)
    for replayed in network.client_end.sent[-3:]:
        network.server.receive(replayed, len(replayed), ELSEWHERE, network.now)
    network.arrivals.clear()
    network.server.send_stream(0, BODY)
    network.run(2.0, lambda: network.client_end.stream(0) == BODY)
    assert set(network.arrivals) == {CLIENT}


def test_the_fifth_address_ends_the_connection(pki: Pki) -> None:
    """The core takes four. A client that is told comes again at once; else it waits for its idle time-out."""
    network = connect(pki, EngineName.QH3, EngineName.QH3)
    for index in range(1, 5):
        move(network, moved(index))
        for _ in range(10):
            network.client.send_stream(0, b"moved")
            network.run(0.1)
        assert [event.code for event in network.client_end.of(Terminated)] == ([0x10] if index == 4 else [])


def test_copies_that_somebody_sends_from_elsewhere_end_nothing(pki: Pki) -> None:
    """RFC 9000 §9.3.3: who sees packets can send copies from anywhere, ahead of the packets themselves."""
    network = connect(pki, EngineName.QH3, EngineName.QH3)
    network.reaches = lambda destination: destination == CLIENT
    for turn in range(1, 30):
        network.client_end.address = moved(turn)
        network.client.send_stream(0, b"copied")
        network.step()
        network.client_end.address = CLIENT
        network.client.send_stream(0, b"itself")
        network.server.send_stream(0, BODY)
        network.run(3.0, lambda turn=turn: len(network.client_end.stream(0)) == turn * len(BODY))  # type: ignore[misc]
        assert len(network.client_end.stream(0)) == turn * len(BODY), turn


def test_a_client_of_many_addresses_costs_little_memory(pki: Pki) -> None:
    """Authentic packets that only probe, or that move on each time, from as many addresses as a client has."""
    network = connect(pki, EngineName.QH3, EngineName.QH3)
    network.reaches = lambda destination: destination == CLIENT
    for turn in range(500):
        network.client_end.address = moved(turn) if turn % 2 else CLIENT
        network.client.send_stream(0, b"x")
        network.step()
    paths: Any = network.server
    assert len(paths._paths._room) <= MAX_PATHS
    assert len(paths._paths._labels) <= MAX_PATHS
