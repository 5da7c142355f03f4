"""Packets outside connections: against the RFC's vector and against both libraries' parsers."""

from __future__ import annotations

import ipaddress

import pytest
from aioquic._buffer import Buffer
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from hypothesis import given
from hypothesis import strategies as st

from relay.quic.engine import Address, EngineName, Terminated, TransportLimits, load_factory
from relay.quic.packet import (
    MIN_INITIAL_SIZE,
    VERSION_1,
    LongHeader,
    RetryTokens,
    encode_retry,
    encode_stateless_reset,
    encode_version_negotiation,
    parse_long_header,
    reset_token,
)
from tests.relay.quic.network import SERVER, Network, Pki, library_client

RFC_9001_A4 = bytes.fromhex("ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba")
"RFC 9001 Appendix A.4: the Retry for a client whose first destination id was 8394c8f03e515708."
VERSION_2 = 0x6B3343CF
"QUIC version 2 (RFC 9369), which the libraries know and we do not offer."
CLIENT_V4: Address = ("192.0.2.1", 50000)
CLIENT_V6: Address = ("2001:db8::1", 50000, 0, 0)
IDS = st.binary(max_size=20)


def initial(destination_id: bytes, source_id: bytes, token: bytes = b"", version: int = VERSION_1) -> bytes:
    """An Initial packet's bytes up to its length field, padded."""
    header = b"".join(
        (
            b"\xc0",
            version.to_bytes(4, "big"),
            bytes((len(destination_id),)),
            destination_id,
            bytes((len(source_id),)),
            source_id,
            (0x4000 | len(token)).to_bytes(2, "big"),
            token,
        )
    )
    return header + b"\x44\xb0" + bytes(MIN_INITIAL_SIZE)


def test_retry_is_the_packet_of_the_rfc() -> None:
    header = LongHeader(VERSION_1, bytes.fromhex("8394c8f03e515708"), b"", True, b"")
    # Four bits of the first byte are random; the vector has all four set.
    packets = {encode_retry(header, bytes.fromhex("f067a5502a4262b5"), b"token") for _ in range(400)}
    assert RFC_9001_A4 in packets
    assert {packet[0] & 0xF0 for packet in packets} == {0xF0}
    assert len({packet[:1] for packet in packets}) > 1


@given(destination_id=IDS, source_id=IDS, retry_id=IDS, token=st.binary(min_size=1, max_size=100))
def test_retry_is_read_back(destination_id: bytes, source_id: bytes, retry_id: bytes, token: bytes) -> None:
    header = LongHeader(VERSION_1, destination_id, source_id, True, b"")
    packet = encode_retry(header, retry_id, token)
    parsed = pull_quic_header(Buffer(data=packet), host_cid_length=8)
    assert parsed.packet_type is QuicPacketType.RETRY
    assert parsed.destination_cid == source_id
    assert parsed.source_cid == retry_id
    assert parsed.token == token


@given(destination_id=st.binary(max_size=255), source_id=st.binary(max_size=255))
def test_version_negotiation_has_the_invariant_layout(destination_id: bytes, source_id: bytes) -> None:
    """RFC 8999 §6: ids are swapped, and may be longer than version 1 allows."""
    packet = encode_version_negotiation(LongHeader(0x1A2A3A4A, destination_id, source_id, False, b""))
    assert packet[0] & 0x80
    assert packet[1:5] == bytes(4)
    end = 6 + packet[5]
    assert packet[6:end] == source_id
    assert packet[end + 1 : end + 1 + packet[end]] == destination_id
    versions = packet[end + 1 + packet[end] :]
    assert versions[:4] == b"\x00\x00\x00\x01"
    assert len(versions) == 8
    assert all(byte & 0x0F == 0x0A for byte in versions[4:]), "one reserved version (RFC 9000 §15)"
    assert parse_long_header(packet) == LongHeader(0, source_id, destination_id, False, b"")


@pytest.mark.parametrize("name", list(EngineName))
def test_a_client_with_version_1_in_reserve_starts_again_with_it(name: EngineName) -> None:
    client = library_client(name, original_version=VERSION_2, supported_versions=[VERSION_2, VERSION_1])
    first = parse_long_header(client.transmit(Network.START)[0][0][0])
    assert first is not None
    assert first.version == VERSION_2
    answer = encode_version_negotiation(first)
    client.receive(answer, len(answer), SERVER, Network.START)
    second = parse_long_header(client.transmit(Network.START)[0][0][0])
    assert second is not None
    assert second.version == VERSION_1
    assert second.is_initial


@pytest.mark.parametrize("name", list(EngineName))
def test_a_client_without_version_1_gives_up(name: EngineName) -> None:
    client = library_client(name, original_version=VERSION_2, supported_versions=[VERSION_2])
    first = parse_long_header(client.transmit(Network.START)[0][0][0])
    assert first is not None
    answer = encode_version_negotiation(first)
    client.receive(answer, len(answer), SERVER, Network.START)
    client.take_events()
    assert [type(event).__name__ for event in client.events] == ["ConnectionTerminated"]


def test_the_first_packet_of_each_library_is_read(pki: Pki) -> None:
    for name in EngineName:
        client = library_client(name)
        packet = client.transmit(Network.START)[0][0][0]
        header = parse_long_header(packet)
        assert header is not None
        assert header.version == VERSION_1
        assert header.is_initial
        assert header.token == b""
        assert len(header.destination_id) == 8
        assert header.source_id == client.connection.host_cid
        assert len(packet) >= MIN_INITIAL_SIZE


@given(destination_id=IDS, source_id=IDS, token=st.binary(max_size=200))
def test_initials_are_read(destination_id: bytes, source_id: bytes, token: bytes) -> None:
    header = parse_long_header(initial(destination_id, source_id, token))
    assert header == LongHeader(VERSION_1, destination_id, source_id, True, token)


def test_every_prefix_gives_none_or_the_ids() -> None:
    packet = initial(b"destined", b"sourced!", b"token")
    complete = len(packet) - MIN_INITIAL_SIZE - 2
    for end in range(complete):
        assert parse_long_header(packet[:end]) is None
    for end in range(complete, complete + 20):
        assert parse_long_header(packet[:end]) == LongHeader(VERSION_1, b"destined", b"sourced!", True, b"token")


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (b"\x40" + initial(b"destined", b"")[1:], "short header"),
        (b"\x80" + initial(b"destined", b"")[1:], "fixed bit clear (RFC 9000 §17.2)"),
        (initial(bytes(21), b""), "destination id over 20 bytes"),
        (initial(b"destined", bytes(21)), "source id over 20 bytes"),
        (initial(b"destined", b"")[:15] + b"\xff" * 8 + bytes(1200), "token longer than the packet"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_version_1_forbids_is_none(packet: bytes, why: str) -> None:
    assert parse_long_header(packet) is None


def test_an_unknown_version_may_have_long_ids() -> None:
    """RFC 9000 §17.2.1: they must still get Version Negotiation."""
    packet = initial(bytes(200), bytes(255), version=0x0A0A0A0A)
    assert parse_long_header(packet) == LongHeader(0x0A0A0A0A, bytes(200), bytes(255), False, b"")


@pytest.mark.parametrize("kind", [1, 2, 3], ids=["0-RTT", "Handshake", "Retry"])
def test_other_long_packets_show_their_ids_alone(kind: int) -> None:
    packet = bytes((0xC0 | kind << 4,)) + initial(b"destined", b"sourced!")[1:]
    assert parse_long_header(packet) == LongHeader(VERSION_1, b"destined", b"sourced!", False, b"")


@given(data=st.binary(max_size=1500))
def test_garbage_never_raises(data: bytes) -> None:
    parse_long_header(data)


@given(data=st.binary(max_size=60))
def test_garbage_behind_a_version_1_header_never_raises(data: bytes) -> None:
    header = parse_long_header(b"\xc0\x00\x00\x00\x01" + data)
    assert header is None or len(header.destination_id) <= 20


class TestRetryTokens:
    """RFC 9000 §8.1.2 and §8.1.4."""

    @pytest.mark.parametrize("address", [CLIENT_V4, CLIENT_V6, ("fe80::1%eth0", 1, 0, 2)], ids=str)
    def test_a_token_gives_the_first_id_back(self, address: Address) -> None:
        tokens = RetryTokens(lifetime=10.0)
        token = tokens.make(address, b"original", b"retry-id", 100.0)
        assert tokens.check(token, address, b"retry-id", 109.9) == b"original"

    def test_the_same_client_gets_a_new_token_each_time(self) -> None:
        tokens = RetryTokens(lifetime=10.0)
        assert len({tokens.make(CLIENT_V4, b"original", b"retry-id", 1.0) for _ in range(10)}) == 10

    @pytest.mark.parametrize(
        "other", [("192.0.2.2", 50000), ("192.0.2.1", 50001), ("2001:db8::1", 50000, 0, 0)], ids=str
    )
    def test_another_address_is_refused(self, other: Address) -> None:
        tokens = RetryTokens(lifetime=10.0)
        token = tokens.make(CLIENT_V4, b"original", b"retry-id", 100.0)
        assert tokens.check(token, other, b"retry-id", 100.0) is None

    def test_another_destination_is_refused(self) -> None:
        tokens = RetryTokens(lifetime=10.0)
        token = tokens.make(CLIENT_V4, b"original", b"retry-id", 100.0)
        assert tokens.check(token, CLIENT_V4, b"retry-iD", 100.0) is None

    def test_an_expired_token_is_refused(self) -> None:
        tokens = RetryTokens(lifetime=10.0)
        token = tokens.make(CLIENT_V4, b"original", b"retry-id", 100.0)
        assert tokens.check(token, CLIENT_V4, b"retry-id", 110.1) is None

    def test_a_token_of_another_key_is_refused(self) -> None:
        token = RetryTokens(lifetime=10.0).make(CLIENT_V4, b"original", b"retry-id", 100.0)
        assert RetryTokens(lifetime=10.0).check(token, CLIENT_V4, b"retry-id", 100.0) is None

    def test_a_tampered_or_cut_token_is_refused(self) -> None:
        tokens = RetryTokens(lifetime=10.0)
        token = tokens.make(CLIENT_V4, b"original", b"retry-id", 100.0)
        for position in range(len(token)):
            damaged = bytearray(token)
            damaged[position] ^= 1
            assert tokens.check(bytes(damaged), CLIENT_V4, b"retry-id", 100.0) is None
            assert tokens.check(token[:position], CLIENT_V4, b"retry-id", 100.0) is None

    @given(token=st.binary(max_size=100))
    def test_garbage_is_refused(self, token: bytes) -> None:
        assert RetryTokens(lifetime=10.0).check(token, CLIENT_V4, b"retry-id", 100.0) is None

    def test_a_token_does_not_show_the_address(self) -> None:
        token = RetryTokens(lifetime=10.0).make(CLIENT_V4, b"original", b"retry-id", 100.0)
        assert ipaddress.ip_address(CLIENT_V4[0]).packed not in token
        assert b"original" not in token


class TestStatelessReset:
    """RFC 9000 §10.3."""

    def test_a_token_needs_the_key_and_the_id(self) -> None:
        token = reset_token(b"key", b"our-id-1")
        assert len(token) == 16
        assert reset_token(b"key", b"our-id-1") == token
        assert len({token, reset_token(b"key", b"our-id-2"), reset_token(b"yek", b"our-id-1")}) == 3

    @pytest.mark.parametrize("received", [22, 23, 43, 100, 1200, 65_000])
    def test_a_reset_looks_like_a_packet_and_is_shorter(self, received: int) -> None:
        token = reset_token(b"key", b"our-id-1")
        packet = encode_stateless_reset(received, token)
        assert packet is not None
        assert 21 <= len(packet) < received
        assert packet.endswith(token)
        assert packet[0] & 0xC0 == 0x40
        assert packet != encode_stateless_reset(received, token), "the rest is noise"

    @pytest.mark.parametrize("received", [0, 1, 20, 21])
    def test_short_packets_get_none(self, received: int) -> None:
        """Two ends that reset each other must come to an end (RFC 9000 §10.3.3)."""
        assert encode_stateless_reset(received, bytes(16)) is None


@pytest.mark.parametrize("server_name", list(EngineName))
@pytest.mark.parametrize("client_name", list(EngineName))
def test_both_engines_connect_through_our_retry(pki: Pki, client_name: EngineName, server_name: EngineName) -> None:
    factory = load_factory(server_name, TransportLimits(), pki.certificate)
    network = Network.of_engines(pki, client_name, server_name)
    first = network.client.transmit(network.now)[0][0][0]
    header = parse_long_header(first)
    assert header is not None
    tokens = RetryTokens(lifetime=10.0)
    token = tokens.make(CLIENT_V4, header.destination_id, b"retry-id", network.now)
    retry = encode_retry(header, b"retry-id", token)
    network.client.receive(retry, len(retry), SERVER, network.now)
    second = network.client.transmit(network.now)[0][0][0]
    again = parse_long_header(second)
    assert again == LongHeader(VERSION_1, b"retry-id", header.source_id, True, token)
    original = tokens.check(again.token, CLIENT_V4, again.destination_id, network.now)
    assert original == header.destination_id
    network.serve(factory.server(original, again.source_id, b"retry-id", network.now), second)
    network.establish()
    assert not network.client_end.of(Terminated)
