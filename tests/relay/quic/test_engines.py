"""The contract of `relay.quic.engine.Engine` for handshakes, certificates, ids and addresses, across both engines."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

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
    Terminated,
    TransportLimits,
    cut,
    load_factory,
)
from tests.relay.quic.network import SERVER, Network, Pki, library_client

BODY = bytes(range(256)) * 1200


def test_handshake_establishes_both_sides_once(network: Network) -> None:
    assert network.client_end.of(Established) == [Established("h3")]
    assert network.server_end.of(Established) == [Established("h3")]
    assert not network.client.is_over
    assert not network.server.is_over


def test_stop_sending_reaches_the_peer(network: Network) -> None:
    network.client.send_stream(0, b"request")
    network.run(0.1)
    network.server.stop_sending(0, 0x100)
    network.run(0.1)
    assert network.client_end.of(StopSending) == [StopSending(0, 0x100)]


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


def test_a_client_with_an_empty_id_is_served(pki: Pki, server_name: EngineName) -> None:
    """RFC 9000 §5.1 allows it, and quic-go's clients do it by default."""
    peer = library_client(EngineName.AIOQUIC, connection_id_length=0)
    peer.connection._replenish_connection_ids = lambda: None  # the library would announce more empty ids
    network = Network(peer, load_factory(server_name, TransportLimits(), pki.certificate))
    network.run()
    assert network.server_end.of(Established) == [Established("h3")]
    network.server.send_stream(1, b"to a client without an id")
    peer.connection.send_stream_data(0, b"from a client without an id")
    network.run()
    assert network.server_end.stream(0) == b"from a client without an id"
    assert b"".join(event.data for event in peer.events if type(event).__name__ == "StreamDataReceived") == (
        b"to a client without an id"
    )


@pytest.mark.parametrize(
    ("host", "sent"), [("localhost", "localhost"), ("127.0.0.1", None), ("::1", None), ("2001:db8::1", None)]
)
def test_an_address_is_no_server_name(
    client_name: EngineName, host: str, sent: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 6066 §3. The certificate is still checked for it: all tests of sockets here connect to an address."""
    tls: Any = importlib.import_module(f"{client_name.value}.tls")
    names: list[str | None] = []
    push = tls.push_client_hello

    def spy(buffer: Any, hello: Any) -> None:
        names.append(hello.server_name)
        push(buffer, hello)

    monkeypatch.setattr(tls, "push_client_hello", spy)
    engine = load_factory(client_name, TransportLimits(), None).client(ClientOptions(host), SERVER, Network.START)
    assert engine.transmit(Network.START)
    assert names == [sent]
