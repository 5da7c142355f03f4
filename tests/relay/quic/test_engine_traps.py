"""What the engines rely on in their libraries, private names included, and why they do what they do.

A failure here after an upgrade is no fault of ours: each docstring says what to look at. Where a trap is gone, the
engine's remedy for it can go too; where a name is gone, the engine needs another way before the upgrade.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from qh3 import tls as qh3_tls
from qh3.quic.configuration import QuicConfiguration as Qh3Configuration

from relay.quic.client_check import ClientVerifier
from relay.quic.engine import ClientCheck, ClientOptions, EngineName, Terminated, TransportLimits, load_factory
from tests.relay.quic.authority import Issued
from tests.relay.quic.network import SERVER, Network, Pki, library_client

AIOQUIC_CONNECTION = [
    "_local_max_data",
    "_local_max_streams_bidi",
    "_local_max_streams_uni",
    "_remote_max_datagram_frame_size",
    "_max_datagram_size",
    "_peer_cid",
    "_host_cids",
    "_datagrams_pending",
    "_streams",
    "_network_paths",
    "_close_event",
    "_state",
    "_write_stream_limits",
    "_write_connection_limits",
    "_unblock_streams",
    "_on_connection_limit_delivery",
    "_on_max_stream_data_delivery",
    "_initialize",
    "tls",
]
AIOQUIC_STREAM = [
    "max_stream_data_local",
    "max_stream_data_local_sent",
    "is_blocked",
    "receiver",
    "sender",
    "stream_id",
]
AIOQUIC_TLS = [
    "_request_client_certificate",
    "_peer_certificate",
    "_peer_certificate_chain",
    "_receive_buffer",
    "_server_handle_certificate",
    "_set_peer_certificate",
]
QH3_CONNECTION = [
    "_create_core",
    "_create_tls",
    "_drain_core",
    "_core",
    "_tls",
    "_close_event",
    "_state",
    "_handshake_complete",
    "_version",
    "_set_version",
    "_remote_max_datagram_frame_size",
    "_pre_handshake_state_replayed",
    "_retry_source_connection_id",
    "_original_destination_connection_id",
]
QH3_CORE = [
    "receive_gro_buffer",
    "next_event",
    "poll_transmit",
    "get_timer",
    "send_stream",
    "send_datagram",
    "get_send_buffer_size",
    "stream_limits",
    "congestion_window",
    "bytes_in_flight",
    "smoothed_rtt",
    "active_path",
    "state",
]


def engines(pki: Pki, name: EngineName) -> Network:
    """Two engines of one library, handshake complete."""
    network = Network.of_engines(pki, name, name)
    network.establish()
    return network


def library_and_engine(pki: Pki, name: EngineName, **options: Any) -> tuple[Any, Network]:
    """A bare client of a library and a server engine on it, handshake complete."""
    peer = library_client(name, max_datagram_frame_size=65535, **options)
    network = Network(peer, load_factory(name, TransportLimits(), pki.certificate))
    network.establish()
    return peer.connection, network


class TestAioquic:
    """aioquic 1.7."""

    def test_private_names(self, pki: Pki) -> None:
        """Look for each missing name in `relay.quic.aioquic_engine` and for its successor in aioquic."""
        network = engines(pki, EngineName.AIOQUIC)
        network.client.send_stream(0, b"x")
        connection: Any = network.client._connection
        stream = connection._streams[0]
        assert [name for name in AIOQUIC_CONNECTION if not hasattr(connection, name)] == []
        assert [name for name in AIOQUIC_STREAM if not hasattr(stream, name)] == []
        assert [name for name in AIOQUIC_TLS if not hasattr(connection.tls, name)] == []
        assert stream.sender._buffer_stop == 1
        assert stream.sender.highest_offset == 0
        assert stream.receiver.starting_offset() == 0
        assert stream.receiver.is_finished is False

    def test_one_datagram_that_does_not_fit_blocks_all_later_ones(self, pki: Pki) -> None:
        """If the others arrive, aioquic drops what does not fit: `send_datagrams` still has to say so."""
        connection, network = library_and_engine(pki, EngineName.AIOQUIC)
        for payload in (b"first", bytes(1400), b"never", b"never"):
            connection.send_datagram_frame(payload)
        network.run(5)
        assert network.server_end.datagrams == [b"first"]

    def test_its_datagram_queue_has_no_bound(self, pki: Pki) -> None:
        """If it has one now, see whether it drops the oldest, and counts."""
        connection, _ = library_and_engine(pki, EngineName.AIOQUIC)
        for _ in range(10_000):
            connection.send_datagram_frame(b"x")
        assert len(connection._datagrams_pending) == 10_000

    def test_it_credits_what_nobody_read(self, pki: Pki) -> None:
        """If the data stops, aioquic has backpressure of its own: `_write_stream_limits` may not be needed."""
        connection, network = library_and_engine(pki, EngineName.AIOQUIC, max_stream_data=50_000, max_data=50_000)
        network.client.take_events = list
        network.server.send_stream(1, bytes(500_000), True)
        network.run(5)
        assert network.server.backlog(1) == 0
        assert connection._local_max_data.value > 50_000

    def test_it_says_connection_close_once(self, pki: Pki) -> None:
        """If it repeats itself, the engine's `_last_words` can go (RFC 9000 §10.2.1)."""
        connection, network = library_and_engine(pki, EngineName.AIOQUIC)
        connection.close(7)
        assert len(connection.datagrams_to_send(network.now)) == 1
        network.server.send_stream(1, b"not heard yet")
        ((packet,), _) = network.server.transmit(network.now)[0]
        connection.receive_datagram(packet, SERVER, network.now)
        assert connection.datagrams_to_send(network.now) == []

    def test_a_reset_breaks_the_stream_limit(self, pki: Pki) -> None:
        """If the connection lives, aioquic holds the reset back itself: the engine's `end_stream` can go."""
        peer = library_client(EngineName.AIOQUIC)
        network = Network(peer, load_factory(EngineName.AIOQUIC, TransportLimits(streams=1), pki.certificate))
        network.establish()
        peer.connection.send_stream_data(0, b"x")
        peer.connection.send_stream_data(4, b"x")
        network.run(0.1)
        assert not network.server_end.of(Terminated)
        peer.connection.reset_stream(4, 1)
        network.run(0.1)
        assert network.server_end.of(Terminated) == [Terminated(4)], "STREAM_LIMIT_ERROR"

    def test_it_believes_any_certificate_of_a_client(self, pki: Pki, tmp_path: Path, monkeypatch: Any) -> None:
        """If the handshake fails, aioquic looks at who signed it: `ServerContext` may leave that to it."""
        stranger = Issued.root("stranger").issue().write(tmp_path, "stranger")
        monkeypatch.setattr(ClientVerifier, "verify", lambda _self, _chain: None)
        servers = load_factory(
            EngineName.AIOQUIC, TransportLimits(), pki.certificate, ClientCheck(pki.ca_file, is_required=True)
        )
        options = ClientOptions("localhost", ca_file=pki.ca_file, certificate=stranger)
        clients = load_factory(EngineName.AIOQUIC, TransportLimits(), None)
        network = Network(clients.client(options, SERVER, Network.START), servers)
        network.establish()
        assert network.server.peer_certificate is not None

    def test_it_issues_no_tickets_unasked(self, pki: Pki) -> None:
        """A resumed session has no certificate: with tickets, `ServerContext` would have to refuse them."""
        network = engines(pki, EngineName.AIOQUIC)
        context = network.server._connection.tls  # type: ignore[attr-defined]
        assert context.get_session_ticket_cb is None
        assert context.new_session_ticket_cb is None
        assert not context.session_resumed


class TestQh3:
    """qh3 2.1."""

    def test_private_names(self, pki: Pki) -> None:
        """Look for each missing name in `relay.quic.qh3_engine` and for its successor in qh3."""
        network = engines(pki, EngineName.QH3)
        connection: Any = network.client._connection
        core = connection.tap.core
        assert [name for name in QH3_CONNECTION if not hasattr(connection, name)] == []
        assert [name for name in QH3_CORE if not hasattr(core, name)] == []
        assert core.active_path[5] >= 1200, "the path's packet size"
        assert core.stream_limits[:2] == (100, 16), "what the peer allows: bidirectional, unidirectional"
        assert core.get_timer()[0] == "idle"

    def test_a_datagram_that_does_not_fit_makes_sending_raise(self, pki: Pki) -> None:
        """If it does not raise, qh3 drops or cuts it: `send_datagrams` still has to say so."""
        core: Any = engines(pki, EngineName.QH3).client._connection.tap.core
        core.send_datagram(bytes(5000))
        for _ in range(2):
            with pytest.raises((ValueError, RuntimeError)):
                core.poll_transmit(Network.START + 2)

    def test_datagrams_leave_whatever_the_congestion_window_says(self, pki: Pki) -> None:
        """If they stay, qh3 keeps the window itself (RFC 9221 §5.4): the engine's `_hand_over` may not be needed."""
        network = engines(pki, EngineName.QH3)
        core: Any = network.client._connection.tap.core
        window = core.congestion_window
        for _ in range(200):
            core.send_datagram(bytes(1000))
        sent = 0
        while (packet := core.poll_transmit(network.now)) is not None:
            sent += len(packet[0])
        assert sent > 2 * window

    def test_credit_comes_when_an_event_is_taken(self, pki: Pki) -> None:
        """If data flows without that, `hold` stops nothing any more: backpressure needs another way."""
        limits = TransportLimits(stream_window=100_000, connection_window=100_000)
        network = Network.of_engines(pki, EngineName.QH3, EngineName.QH3, server_limits=limits)
        network.establish()
        tap: Any = network.server._connection.tap  # type: ignore[attr-defined]
        network.client.send_stream(0, bytes(400_000))
        tap.next_event = lambda: None
        network.run(5)
        assert network.client.backlog(0) == 300_000
        del tap.next_event
        network.server.on_deadline(network.now)
        network.run(5)
        assert network.client.backlog(0) == 0
        assert len(network.server_end.stream(0)) == 400_000

    def test_reports_count_the_events_that_wait(self, pki: Pki) -> None:
        """If not, the bound on what waits during a hold (`_HELD_EVENTS`) counts nothing."""
        network = engines(pki, EngineName.QH3)
        network.client.send_stream(0, b"x")
        network.client.send_datagrams(b"", b"y", 1)
        ((packets, _),) = network.client.transmit(network.now)
        core: Any = network.server._connection.tap.core  # type: ignore[attr-defined]
        size = len(packets[0])
        waiting = sum(core.receive_gro_buffer(packet, size, SERVER, network.now)[5] for packet in packets)
        assert waiting >= 2

    def test_streams_beyond_the_limit_are_refused(self, pki: Pki) -> None:
        """If they are queued, the engine's `_parked` can go."""
        network = engines(pki, EngineName.QH3)
        core: Any = network.client._connection.tap.core
        with pytest.raises(ValueError, match="limit"):
            core.send_stream(400, b"x", False)

    def test_a_close_counts_from_the_last_packet_received(self, pki: Pki) -> None:
        """If the deadline is in the future, the engine's `_linger` can go (RFC 9000 §10.2)."""
        network = engines(pki, EngineName.QH3)
        network.run(10)
        core: Any = network.client._connection.tap.core
        core.close(7, None, b"")
        core.poll_transmit(network.now)
        kind, due = core.get_timer()
        assert kind == "close"
        assert due < network.now

    def test_stream_limits_are_no_option(self) -> None:
        """If they are one now, use it instead of `_Bridge` and of building the core ourselves."""
        names = [field.name for field in dataclasses.fields(Qh3Configuration)]
        assert "max_data" in names
        assert not [name for name in names if "streams" in name]

    def test_its_server_has_no_place_for_a_clients_certificate(self) -> None:
        """If there is one now, `quic.engine` qh3 may be able to ask for certificates too."""
        states = {state.name for state in qh3_tls.State if state.name.startswith("SERVER_")}
        assert states == {"SERVER_EXPECT_CLIENT_HELLO", "SERVER_EXPECT_FINISHED", "SERVER_POST_HANDSHAKE"}
        assert not hasattr(qh3_tls, "push_certificate_request")
