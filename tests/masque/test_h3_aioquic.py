"""Our machine against aioquic's HTTP/3, over two real QUIC connections of aioquic in memory."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from aioquic.h3 import connection as peer_h3
from aioquic.h3 import events as peer_events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent, StopSendingReceived, StreamDataReceived, StreamReset
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from masque.errors import ErrorCode
from masque.h3 import (
    CloseConnection,
    DataReceived,
    H3Connection,
    RequestReceived,
    ResponseReceived,
    SettingsReceived,
    StreamStop,
    StreamWrite,
)
from masque.h3 import (
    StreamReset as ResetAction,
)
from masque.head import ResponseHead
from tests.masque.h3_wire import CONNECT, CONNECT_HEAD, GET, GET_HEAD, data, events, headers, ok_head

ADDRESS = ("127.0.0.1", 1)
TIMER_HORIZON = 1.0
"Seconds within which a timer is one of the transfer's, not of idleness."
Take = Callable[[QuicEvent], None]


def make_quic() -> tuple[QuicConnection, QuicConnection]:
    """A client and a server with a fresh certificate, not yet connected."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    server_configuration = QuicConfiguration(is_client=False, alpn_protocols=["h3"], max_datagram_frame_size=65536)
    server_configuration.certificate = certificate
    server_configuration.private_key = key
    client_configuration = QuicConfiguration(
        is_client=True, alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE, max_datagram_frame_size=65536
    )
    client = QuicConnection(configuration=client_configuration)
    client.connect(ADDRESS, now=0.0)
    server = QuicConnection(
        configuration=server_configuration,
        original_destination_connection_id=client.original_destination_connection_id,
    )
    return client, server


class Link:
    """Two QUIC connections, what takes their events, and a clock that only counts turns."""

    def __init__(self) -> None:
        self.client, self.server = make_quic()
        self.now = 0.0

    def run(self, take_client: Take, take_server: Take) -> None:
        """Carry packets and hand out events until both are quiet, past timers of acknowledgement and pacing."""
        is_moving = True
        while is_moving:
            is_moving = False
            for connection in (self.client, self.server):
                timer = connection.get_timer()
                if timer is not None and timer <= self.now + TIMER_HORIZON:
                    is_moving = True
                    self.now = max(self.now, timer)
                    connection.handle_timer(self.now)
            for sender, receiver in ((self.client, self.server), (self.server, self.client)):
                self.now += 0.001
                for packet, _ in sender.datagrams_to_send(self.now):
                    is_moving = True
                    receiver.receive_datagram(packet, ADDRESS, self.now)
            for connection, take in ((self.client, take_client), (self.server, take_server)):
                while (event := connection.next_event()) is not None:
                    is_moving = True
                    take(event)


def drive(machine: H3Connection, connection: QuicConnection) -> Take:
    """Make what feeds our machine from QUIC and carries out its actions."""

    def act() -> None:
        for action in machine.actions_to_send():
            match action:
                case StreamWrite(stream_id, payload, fin):
                    connection.send_stream_data(stream_id, payload, fin)
                case ResetAction(stream_id, code):
                    connection.reset_stream(stream_id, code)
                case StreamStop(stream_id, code):
                    connection.stop_stream(stream_id, code)
                case CloseConnection(code, detail):
                    connection.close(code, reason_phrase=detail)

    def take(event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived):
            machine.receive_stream_data(event.stream_id, event.data, event.end_stream)
        elif isinstance(event, StreamReset):
            machine.receive_reset(event.stream_id, event.error_code)
        elif isinstance(event, StopSendingReceived):
            machine.receive_stop_sending(event.stream_id, event.error_code)
        act()

    act()
    return take


def test_aioquics_client_with_our_server() -> None:
    link = Link()
    server = H3Connection(is_client=False)
    server.start()
    take_server = drive(server, link.server)
    client = peer_h3.H3Connection(link.client)
    found: list[peer_events.H3Event] = []

    def take_client(event: QuicEvent) -> None:
        found.extend(client.handle_event(event))

    stream_id = link.client.get_next_available_stream_id()
    client.send_headers(stream_id, CONNECT)
    client.send_data(stream_id, b"up" * 5000, end_stream=False)
    link.run(take_client, take_server)
    told = events(server)
    assert isinstance(told[0], SettingsReceived)
    assert told[1] == RequestReceived(0, CONNECT_HEAD, False)
    assert b"".join(event.data for event in told if isinstance(event, DataReceived)) == b"up" * 5000
    assert client.received_settings is not None
    assert client.received_settings[peer_h3.Setting.ENABLE_CONNECT_PROTOCOL] == 1

    server.send_response(0, ok_head((b"proxy-status", b"relay")))
    server.send_data(0, b"down" * 5000, fin=True)
    client.send_data(stream_id, b"", end_stream=True)
    drive(server, link.server)
    link.run(take_client, take_server)
    heads = [event.headers for event in found if isinstance(event, peer_events.HeadersReceived)]
    assert heads == [[(b":status", b"200"), (b"proxy-status", b"relay")]]
    content = [event for event in found if isinstance(event, peer_events.DataReceived)]
    assert b"".join(event.data for event in content) == b"down" * 5000
    assert content[-1].stream_ended
    assert server.open_requests == 0
    assert not server.is_closed


def test_our_client_with_aioquics_server() -> None:
    link = Link()
    client = H3Connection(is_client=True)
    client.start()
    take_client = drive(client, link.client)
    server = peer_h3.H3Connection(link.server)

    def take_server(event: QuicEvent) -> None:
        for told in server.handle_event(event):
            if isinstance(told, peer_events.HeadersReceived):
                assert told.headers == GET
                server.send_headers(told.stream_id, [(b":status", b"200"), (b"x", b"y")])
                server.send_data(told.stream_id, b"body", end_stream=True)

    client.send_request(0, GET_HEAD, fin=True)
    drive(client, link.client)
    link.run(take_client, take_server)
    told_client = [event for event in events(client) if not isinstance(event, SettingsReceived)]
    assert told_client[0] == ResponseReceived(0, ok_head((b"x", b"y")), False)
    assert b"".join(event.data for event in told_client if isinstance(event, DataReceived)) == b"body"
    assert client.open_requests == 0
    assert client.peer_settings is not None


@pytest.mark.parametrize("is_first", [True, False])
def test_a_malformed_request_costs_its_stream_alone(is_first: bool) -> None:
    link = Link()
    server = H3Connection(is_client=False)
    server.start()
    take_server = drive(server, link.server)
    found: list[QuicEvent] = []
    bad, good = (0, 4) if is_first else (4, 0)
    link.client.send_stream_data(2, b"\x00\x04\x00")
    link.client.send_stream_data(0, headers([(b":method", b"GET")] if is_first else CONNECT))
    link.client.send_stream_data(4, headers(CONNECT if is_first else [(b":method", b"GET")]))
    link.run(found.append, take_server)
    server.send_response(good, ResponseHead(200))
    server.send_data(good, b"alive")
    drive(server, link.server)
    link.run(found.append, take_server)
    resets = {(event.stream_id, event.error_code) for event in found if isinstance(event, StreamReset)}
    stops = {(event.stream_id, event.error_code) for event in found if isinstance(event, StopSendingReceived)}
    assert resets == stops == {(bad, ErrorCode.H3_MESSAGE_ERROR)}
    wire = b"".join(
        event.data for event in found if isinstance(event, StreamDataReceived) and event.stream_id == good
    )
    assert wire.endswith(data(b"alive"))
