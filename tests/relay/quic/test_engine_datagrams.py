"""The contract of `relay.quic.engine.Engine` for DATAGRAM frames (RFC 9221), for both engines and across them."""

from __future__ import annotations

import pytest

from relay.quic.engine import EngineName, Terminated, TransportLimits, load_factory
from tests.relay.quic.network import Network, Pki, library_client

PREFIX = b"\x04\x00"
"A quarter stream id and context id as CONNECT-UDP puts before each payload."


def test_datagrams_go_both_ways_in_order(network: Network) -> None:
    assert network.client.send_datagrams(PREFIX, b"aabbc", 2) == 3
    assert network.server.send_datagrams(b"", b"xyz", 3) == 1
    assert network.server.send_datagrams(PREFIX, b"", 0) == 1
    network.run(0.5)
    assert network.server_end.datagrams == [PREFIX + b"aa", PREFIX + b"bb", PREFIX + b"c"]
    assert network.client_end.datagrams == [b"xyz", PREFIX]


def test_the_largest_payload_arrives_and_a_larger_one_stalls_nothing(network: Network) -> None:
    """One frame that does not fit blocks aioquic's queue for ever and makes qh3 raise for ever."""
    for engine, end in ((network.client, network.server_end), (network.server, network.client_end)):
        largest = engine.max_datagram_payload
        assert engine.send_datagrams(b"", b"first", 5) == 1
        assert engine.send_datagrams(b"", bytes(largest + 1), largest + 1) == 0
        assert engine.send_datagrams(PREFIX, bytes(largest - 1), largest - 1) == 0
        assert engine.send_datagrams(b"", bytes(60_000), 60_000) == 0
        assert engine.send_datagrams(b"", bytes(largest), largest) == 1
        assert engine.send_datagrams(b"", b"last", 4) == 1
        network.run(1.0)
        assert end.datagrams == [b"first", bytes(largest), b"last"]
        assert engine.dropped_datagrams == 0


def test_only_the_pieces_that_fit_are_queued(network: Network) -> None:
    largest = network.client.max_datagram_payload
    pieces = bytes(largest + 1) + b"short"
    assert network.client.send_datagrams(b"", pieces, largest + 1) == 1
    network.run(0.5)
    assert network.server_end.datagrams == [b"short"]


def test_the_largest_payload_arrives_beside_a_busy_stream(network: Network) -> None:
    largest = network.client.max_datagram_payload
    network.client.send_stream(0, bytes(300_000), True)
    for _ in range(40):
        assert network.client.send_datagrams(b"", bytes(largest), largest) == 1
        network.step()
    network.run(5, until=lambda: network.server_end.has_fin(0))
    assert network.server_end.datagrams == [bytes(largest)] * 40
    assert len(network.server_end.stream(0)) == 300_000


def test_an_inner_initial_of_a_browser_fits(network: Network) -> None:
    """Firefox's first QUIC packet has 1252 bytes; a prefix is at most 8 + 1 long."""
    prefix = bytes(9)
    assert network.client.send_datagrams(prefix, bytes(1252), 1252) == 1
    assert network.server.send_datagrams(prefix, bytes(1252), 1252) == 1
    network.run(0.5)
    assert network.server_end.datagrams == [bytes(9 + 1252)]
    assert network.client_end.datagrams == [bytes(9 + 1252)]


def test_a_smaller_path_means_smaller_payloads(pki: Pki, client_name: EngineName, server_name: EngineName) -> None:
    limits = TransportLimits(max_datagram_size=1250)
    network = Network.of_engines(pki, client_name, server_name, client_limits=limits, server_limits=limits)
    network.establish()
    largest = network.client.max_datagram_payload
    assert largest == 1250 - 30
    assert network.client.send_datagrams(b"", bytes(largest), largest) == 1
    network.run(0.5)
    assert network.server_end.datagrams == [bytes(largest)]


def test_a_smaller_frame_limit_of_the_peer_is_kept(
    pki: Pki, client_name: EngineName, server_name: EngineName
) -> None:
    network = Network.of_engines(
        pki, client_name, server_name, server_limits=TransportLimits(max_datagram_frame_size=500)
    )
    network.establish()
    largest = network.client.max_datagram_payload
    assert largest == 497
    assert network.client.send_datagrams(b"", bytes(largest + 1), largest + 1) == 0
    assert network.client.send_datagrams(b"", bytes(largest), largest) == 1
    network.run(0.5)
    assert network.server_end.datagrams == [bytes(largest)]
    assert not network.client_end.of(Terminated)


@pytest.mark.parametrize("client", list(EngineName))
def test_a_peer_without_datagrams_gets_none(pki: Pki, server_name: EngineName, client: EngineName) -> None:
    peer = library_client(client, max_datagram_frame_size=None if client is EngineName.AIOQUIC else 0)
    network = Network(peer, load_factory(server_name, TransportLimits(), pki.certificate))
    network.establish()
    assert network.server.max_datagram_payload == 0
    assert network.server.send_datagrams(PREFIX, b"x", 1) == 0
    network.server.send_stream(1, b"streams work")
    network.run(0.5)
    assert any(getattr(event, "data", b"") == b"streams work" for event in peer.events)


def test_no_datagram_is_taken_before_the_handshake(
    pki: Pki, client_name: EngineName, server_name: EngineName
) -> None:
    network = Network.of_engines(pki, client_name, server_name)
    assert network.client.max_datagram_payload == 0
    assert network.client.send_datagrams(PREFIX, b"early", 5) == 0
    network.establish()
    assert network.server_end.datagrams == []


def test_a_full_queue_drops_the_oldest_and_counts(pki: Pki, client_name: EngineName, server_name: EngineName) -> None:
    limits = TransportLimits(datagram_queue=50)
    network = Network.of_engines(pki, client_name, server_name, client_limits=limits)
    network.establish()
    count = 2000
    for number in range(count):
        assert network.client.send_datagrams(b"", number.to_bytes(4, "big") + bytes(996), 1000) == 1
    network.run(5)
    arrived = [int.from_bytes(payload[:4], "big") for payload in network.server_end.datagrams]
    assert network.client.dropped_datagrams == count - len(arrived)
    assert network.client.dropped_datagrams > 1000
    assert arrived == sorted(arrived)
    assert arrived[-50:] == list(range(count - 50, count))


def test_one_call_with_more_than_the_queue_is_bounded_too(network: Network) -> None:
    assert network.client.send_datagrams(b"", bytes(1000 * 5000), 1000) == 5000
    network.run(5)
    assert len(network.server_end.datagrams) == 5000 - network.client.dropped_datagrams
    assert network.client.dropped_datagrams > 4000


def test_datagrams_wait_for_the_congestion_window(network: Network) -> None:
    """RFC 9221 §5.4: without acknowledgements only a window of them leaves."""
    network.loses = lambda payload: True
    before = network.client_end.sent_bytes
    for _ in range(20):
        network.client.send_datagrams(b"", bytes(1200 * 40), 1200)
        network.step()
    assert network.client_end.sent_bytes - before < 64_000


def test_lost_datagrams_are_not_sent_again_and_later_ones_arrive(network: Network) -> None:
    network.loses = lambda payload: True
    network.client.send_datagrams(b"", b"lost", 4)
    network.step()
    network.loses = lambda payload: False
    network.client.send_datagrams(b"", b"later", 5)
    network.run(2)
    assert network.server_end.datagrams == [b"later"]
