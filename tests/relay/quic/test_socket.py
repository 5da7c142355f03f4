"""Batched UDP on real loopback sockets: what goes in comes out, whatever the sizes and the kernel's abilities."""

from __future__ import annotations

import errno
import select
import socket
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.quic.engine import Address
from relay.quic.socket import UdpSocket, bind_udp, connect_udp

BUFFER = 4 << 20
SO_NO_CHECK = 11
"Linux: no UDP checksums; the kernel then refuses UDP_SEGMENT with EINVAL."

Opens = Callable[[str], UdpSocket]


@pytest.fixture
def bound() -> Iterator[Opens]:
    """Opens bound sockets that are closed afterwards."""
    opened: list[UdpSocket] = []

    def open_one(host: str) -> UdpSocket:
        opened.append(bind_udp(host, 0, BUFFER, BUFFER))
        return opened[-1]

    yield open_one
    for sock in opened:
        sock.close()


@pytest.fixture(params=["127.0.0.1", "::1"])
def host(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def drain(sock: UdpSocket, count: int) -> tuple[list[bytes], int, set[Address]]:
    """Receive `count` datagrams: the datagrams, the system calls that had any, and who sent them."""
    datagrams: list[bytes] = []
    senders: set[Address] = set()
    calls = 0
    while len(datagrams) < count:
        readable, _, _ = select.select([sock], [], [], 2)
        assert readable, f"{len(datagrams)} of {count} datagrams came"
        while (found := sock.receive()) is not None:
            data, segment, sender = found
            calls += 1
            senders.add(sender)
            datagrams += [data[at : at + segment] for at in range(0, len(data), segment)] if data else [b""]
    assert sock.receive() is None
    return datagrams, calls, senders


def exchange(sender: UdpSocket, receiver: UdpSocket, payloads: list[bytes]) -> int:
    """Send, receive and compare; returns the receiving system calls."""
    assert sender.send(payloads, receiver.address) == len(payloads)
    datagrams, calls, senders = drain(receiver, len(payloads))
    assert datagrams == payloads
    assert senders == ({sender.address} if payloads else set())
    return calls


def sized(*sizes: int) -> list[bytes]:
    """Payloads of these sizes, each with bytes of its own."""
    return [bytes((number % 251,)) * size for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    "payloads",
    [
        sized(1200),
        sized(*[1200] * 10),
        sized(*[1200] * 10, 7),
        sized(*[1200] * 5, 7, *[1200] * 5),
        sized(1, 2, 3, 4, 5),
        sized(5, 4, 3, 2, 1),
        sized(0),
        sized(0, 0, 0),
        sized(1200, 1200, 0, 1200),
        sized(0, 1200, 1200),
        sized(*[100] * 64),
        sized(*[100] * 65),
        sized(*[1] * 200),
        sized(*[1350] * 130, 20),
        sized(30_000, 30_000, 30_000),
        sized(40_000, 40_000),
    ],
    ids=lambda payloads: f"{len(payloads)}x{max(map(len, payloads))}",
)
def test_every_mix_of_sizes_arrives_as_sent(bound: Opens, host: str, payloads: list[bytes]) -> None:
    exchange(bound(host), bound(host), payloads)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    sizes=st.lists(st.sampled_from([0, 1, 40, 1200, 1350, 9000]), max_size=40),
    host=st.sampled_from(["127.0.0.1", "::1"]),
)
def test_any_mix_of_sizes_arrives_as_sent(bound: Opens, sizes: list[int], host: str) -> None:
    exchange(bound(host), bound(host), sized(*sizes))


def test_without_gso_the_same_datagrams_arrive(bound: Opens, host: str) -> None:
    sender = bound(host)
    sender.has_gso = False
    exchange(sender, bound(host), sized(*[1200] * 70, 3, 0, 1200))


@pytest.mark.skipif(sys.platform != "linux", reason="GSO and GRO are Linux's")
def test_equal_payloads_are_one_system_call(bound: Opens, host: str) -> None:
    sender, receiver = bound(host), bound(host)
    assert sender.has_gso
    assert receiver.has_gro
    assert exchange(sender, receiver, sized(*[1200] * 40, 9)) <= 2
    sender.has_gso = False
    exchange(sender, receiver, sized(*[1200] * 40, 9))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has UDP_SEGMENT to refuse")
def test_a_kernel_that_refuses_gso_is_asked_a_few_times(bound: Opens) -> None:
    raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
    raw.bind(("127.0.0.1", 0))
    sender = UdpSocket(raw)
    try:
        for _ in range(16):
            assert sender.has_gso
            exchange(sender, bound("127.0.0.1"), sized(*[1200] * 10))
        assert not sender.has_gso
        exchange(sender, bound("127.0.0.1"), sized(*[1200] * 10))
    finally:
        sender.close()


def test_connected_sockets_exchange_both_ways(bound: Opens, host: str) -> None:
    server = bound(host)
    client = connect_udp(host, server.address[1])
    try:
        payloads = sized(*[500] * 20, 3)
        assert client.send(payloads) == len(payloads)
        datagrams, _, senders = drain(server, len(payloads))
        assert datagrams == payloads
        assert senders == {client.address}
        assert server.send(payloads, client.address) == len(payloads)
        assert drain(client, len(payloads))[0] == payloads
    finally:
        client.close()


def test_a_connected_socket_hears_its_peer_alone(bound: Opens) -> None:
    server, stranger = bound("127.0.0.1"), bound("127.0.0.1")
    client = connect_udp("127.0.0.1", server.address[1], source="127.0.0.1")
    try:
        stranger.send([b"forged"], client.address)
        server.send([b"true"], client.address)
        assert drain(client, 1)[0] == [b"true"]
    finally:
        client.close()


def test_a_connected_socket_reports_that_nobody_listens(bound: Opens, host: str) -> None:
    gone = bind_udp(host, 0, BUFFER, BUFFER)
    port = gone.address[1]
    gone.close()
    client = connect_udp(host, port)
    try:
        client.send([b"anyone?"])
        assert select.select([client], [], [], 2)[0]
        with pytest.raises(ConnectionRefusedError):
            client.receive()
        assert client.receive() is None, "and goes on after it"
    finally:
        client.close()


def test_a_full_send_buffer_gives_a_short_count() -> None:
    """A Unix socket whose reader sleeps has the same EAGAIN that a full UDP send buffer has."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with far:
        sender = UdpSocket(near)
        try:
            sender.has_gso = False
            payloads = sized(*[1000] * 10_000)
            sent = sender.send(payloads)
            assert 0 < sent < len(payloads)
            assert sender.send(payloads[sent:]) == 0
            assert [far.recv(2000) for _ in range(sent)] == payloads[:sent]
            assert sender.send(payloads[sent : sent + 1]) == 1
        finally:
            sender.close()


def test_a_payload_no_datagram_can_carry_is_an_error_of_its_own(bound: Opens) -> None:
    sender, receiver = bound("127.0.0.1"), bound("127.0.0.1")
    payloads = [b"before", bytes(70_000), b"after"]
    assert sender.send(payloads, receiver.address) == 1
    with pytest.raises(OSError, match="too long") as caught:
        sender.send(payloads[1:], receiver.address)
    assert caught.value.errno == errno.EMSGSIZE
    assert sender.has_gso is (sys.platform == "linux")
    assert sender.send(payloads[2:], receiver.address) == 1
    assert drain(receiver, 2)[0] == [b"before", b"after"]


def test_nothing_to_send_and_nothing_to_receive(bound: Opens) -> None:
    sock = bound("127.0.0.1")
    assert sock.send([], sock.address) == 0
    assert sock.receive() is None


def test_addresses_and_families(bound: Opens) -> None:
    assert bound("127.0.0.1").family is socket.AF_INET
    assert bound("127.0.0.1").address[0] == "127.0.0.1"
    assert bound("::1").family is socket.AF_INET6
    assert bound("::1").address[0] == "::1"


def test_the_wildcard_of_ipv6_takes_ipv4_too(bound: Opens) -> None:
    server = bound("::")
    client = bound("127.0.0.1")
    assert client.send([b"over IPv4"], ("127.0.0.1", server.address[1])) == 1
    datagrams, _, senders = drain(server, 1)
    assert datagrams == [b"over IPv4"]
    assert {sender[0] for sender in senders} == {"::ffff:127.0.0.1"}


def test_an_address_in_use_leaves_no_socket_open(bound: Opens) -> None:
    taken = bound("127.0.0.1")
    with pytest.raises(OSError, match="in use"):
        bind_udp("127.0.0.1", taken.address[1], BUFFER, BUFFER)
    with pytest.raises(OSError, match="assign"):
        connect_udp("127.0.0.1", 9, source="192.0.2.1")
