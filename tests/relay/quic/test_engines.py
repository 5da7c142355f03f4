"""The contract of `relay.quic.engine.Engine`, for both engines and across them: connections and streams."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from relay.quic.engine import (
    CONNECTION_ID_LENGTH,
    Address,
    Certificate,
    ClientOptions,
    EngineError,
    EngineName,
    Established,
    IdIssued,
    IdRetired,
    StopSending,
    StreamData,
    StreamReset,
    Terminated,
    TransportLimits,
    cut,
    load_factory,
)
from tests.relay.quic.network import CLIENT, SERVER, Network, Pki, library_client

BODY = bytes(range(256)) * 1200


def test_handshake_establishes_both_sides_once(network: Network) -> None:
    assert network.client_end.of(Established) == [Established("h3")]
    assert network.server_end.of(Established) == [Established("h3")]
    assert not network.client.is_over
    assert not network.server.is_over


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


def test_stop_sending_reaches_the_peer(network: Network) -> None:
    network.client.send_stream(0, b"request")
    network.run(0.1)
    network.server.stop_sending(0, 0x100)
    network.run(0.1)
    assert network.client_end.of(StopSending) == [StopSending(0, 0x100)]


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


def test_ids_issued_are_of_our_length_and_distinct(network: Network) -> None:
    for side, engine in ((network.client_end, network.client), (network.server_end, network.server)):
        ids = [event.connection_id for event in side.of(IdIssued)]
        assert ids, "later ids are announced"
        assert {len(connection_id) for connection_id in [*ids, engine.connection_id]} == {CONNECTION_ID_LENGTH}
        assert len({*ids, engine.connection_id}) == len(ids) + 1


def test_the_server_answers_with_ids_it_announced(network: Network) -> None:
    network.client.send_stream(0, BODY, True)
    network.run()
    known = {network.server.connection_id, *(event.connection_id for event in network.server_end.of(IdIssued))}
    short = [payload for payload in network.client_end.sent if not payload[0] & 0x80]
    assert short
    assert all(payload[1 : 1 + CONNECTION_ID_LENGTH] in known for payload in short)


@pytest.mark.parametrize("client", list(EngineName))
def test_a_retired_id_is_reported_and_replaced(pki: Pki, server_name: EngineName, client: EngineName) -> None:
    peer = library_client(client)
    network = Network(peer, load_factory(server_name, TransportLimits(), pki.certificate))
    network.run()
    before = {network.server.connection_id, *(event.connection_id for event in network.server_end.of(IdIssued))}
    peer.connection.change_connection_id()
    network.run()
    retired = network.server_end.of(IdRetired)
    assert [event.connection_id for event in retired] == [network.server.connection_id]
    after = {event.connection_id for event in network.server_end.of(IdIssued)} - before
    assert len(after) == 1
    network.server.send_stream(1, b"still here")
    peer.connection.send_stream_data(0, b"and here")
    network.run()
    assert network.server_end.stream(0) == b"and here"


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


@pytest.mark.parametrize("client", list(EngineName))
def test_a_peer_may_choose_ids_of_twenty_bytes(pki: Pki, server_name: EngineName, client: EngineName) -> None:
    peer = library_client(client, connection_id_length=20, max_datagram_frame_size=65535)
    network = Network(peer, load_factory(server_name, TransportLimits(), pki.certificate))
    network.run()
    largest = network.server.max_datagram_payload
    assert largest == 1320 - 12
    assert network.server.send_datagrams(b"", bytes(largest), largest) == 1
    assert network.server.send_datagrams(b"", bytes(largest + 1), largest + 1) == 0
    network.server.send_stream(1, BODY, True)
    network.run()
    assert network.client_end.datagrams == [bytes(largest)]
    assert b"".join(e.data for e in peer.events if type(e).__name__ == "StreamDataReceived") == BODY


def test_a_client_refuses_a_certificate_it_does_not_trust(
    pki: Pki, other_pki: Pki, client_name: EngineName, server_name: EngineName
) -> None:
    options = ClientOptions("localhost", ca_file=other_pki.ca_file)
    network = Network.of_engines(pki, client_name, server_name, options=options)
    network.run(20)
    assert not network.client_end.of(Established)
    assert len(network.client_end.of(Terminated)) == 1
    assert not network.server_end.of(Established)


def test_a_client_refuses_a_certificate_for_another_name(
    pki: Pki, client_name: EngineName, server_name: EngineName
) -> None:
    options = ClientOptions("relay.example", ca_file=pki.ca_file)
    network = Network.of_engines(pki, client_name, server_name, options=options)
    network.run(20)
    assert not network.client_end.of(Established)
    assert len(network.client_end.of(Terminated)) == 1


@pytest.mark.parametrize(
    "options",
    [ClientOptions("relay.example", is_verified=False), ClientOptions("127.0.0.1"), ClientOptions("::1")],
    ids=["unverified", "ipv4", "ipv6"],
)
def test_a_client_takes_what_its_options_allow(
    pki: Pki, client_name: EngineName, server_name: EngineName, options: ClientOptions
) -> None:
    network = Network.of_engines(pki, client_name, server_name, options=replace(options, ca_file=pki.ca_file))
    network.establish()
    assert network.client_end.of(Established) == [Established("h3")]


def test_a_client_without_h3_is_refused(pki: Pki, client_name: EngineName, server_name: EngineName) -> None:
    options = ClientOptions("localhost", ca_file=pki.ca_file, alpn=("hq-interop",))
    network = Network.of_engines(pki, client_name, server_name, options=options)
    network.run(20)
    assert not network.server_end.of(Established)
    assert len(network.client_end.of(Terminated)) == 1
    assert len(network.server_end.of(Terminated)) == 1


def test_bad_files_are_engine_errors(pki: Pki, server_name: EngineName) -> None:
    with pytest.raises(EngineError):
        load_factory(server_name, TransportLimits(), Certificate(pki.ca_file, pki.folder / "missing.key"))
    factory = load_factory(server_name, TransportLimits(), None)
    for ca_file in (pki.folder / "missing.pem", pki.folder / "server.key"):
        with pytest.raises(EngineError, match="trusted authorities"):
            factory.client(ClientOptions("localhost", ca_file=ca_file), SERVER, Network.START)


def test_a_server_answers_an_address_that_proved_nothing_with_three_times_its_bytes_at_most(
    pki: Pki, client_name: EngineName, server_name: EngineName
) -> None:
    """RFC 9000 §8.1: a spoofed address must not be flooded, retransmissions included."""
    network = Network.of_engines(pki, client_name, server_name)
    network.step()
    received = network.client_end.sent_bytes
    network.loses = lambda payload: True
    network.client_end.connection.transmit(network.now)
    for _ in range(8):
        network.server_end.sent += [p for payloads, _ in network.server.transmit(network.now) for p in payloads]
        due = network.server.deadline()
        if due is None:
            break
        network.now = max(network.now, due)
        network.server.on_deadline(network.now)
    assert sum(map(len, network.server_end.sent)) <= 3 * received


def test_a_client_that_moves_is_answered_at_its_new_address(network: Network) -> None:
    moved: Address = ("192.0.2.77", 61000)
    network.client_end.address = moved
    network.client.send_stream(0, b"from elsewhere", True)
    network.run()
    assert network.server_end.stream(0) == b"from elsewhere"
    network.server.send_stream(1, b"to elsewhere", True)
    bursts = network.server.transmit(network.now)
    assert {address for _, address in bursts} == {moved}


def test_cut_measures_each_piece() -> None:
    assert cut(b"p", b"", 0, 1) == [b"p"]
    assert cut(b"p", b"", 0, 0) == []
    assert cut(b"p", b"aabbc", 2, 3) == [b"paa", b"pbb", b"pc"]
    assert cut(b"p", b"aabbc", 2, 2) == [b"pc"]
    assert cut(b"p", b"aabb", 2, 2) == []
    assert cut(b"p", b"aa", 10, 3) == [b"paa"]
