"""relay.source: sockets get the address and the ports that they are told to, TCP and UDP, both families."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from ipaddress import ip_address

import pytest

from relay import source as binding
from relay.settings import PortSlice
from relay.source import bind_source, kernel_picks_from, system_ports

FAMILIES = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
KINDS = [socket.SOCK_STREAM, socket.SOCK_DGRAM]


def slice_of(size: int) -> PortSlice:
    """Ports that the kernel can pick from, and that nobody else is likely to use."""
    system = system_ports()
    assert system is not None
    return PortSlice(system.high - 800, system.high - 801 + size)


@pytest.fixture(params=["kernel", "tried"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Slices held to by the kernel, and by trying ports, as on kernels without the option."""
    name: str = request.param
    if name == "tried":
        monkeypatch.setattr(binding, "kernel_picks_from", lambda _: False)
    elif not kernel_picks_from(slice_of(2)):
        pytest.skip("this kernel has no IP_LOCAL_PORT_RANGE (Linux 6.3)")
    return name


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.mark.parametrize(("family", "host"), FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_ports_come_from_the_slice(
    family: socket.AddressFamily, host: str, kind: socket.SocketKind, way: str, stack: ExitStack
) -> None:
    ports = slice_of(40)
    target = stack.enter_context(closing(socket.socket(family, kind)))
    target.bind((host, 0))
    if kind == socket.SOCK_STREAM:
        target.listen()
    found = set()
    for _ in range(8):
        sock = stack.enter_context(socket.socket(family, kind))
        bind_source(sock, ip_address(host), ports)
        sock.connect(target.getsockname())
        assert sock.getsockname()[0] == host
        found.add(sock.getsockname()[1])
    assert len(found) == 8
    assert all(port in ports for port in found)


def test_tcp_to_different_targets_shares_ports_and_udp_does_not(way: str, stack: ExitStack) -> None:
    """From an address that nobody else on this machine is likely to leave from."""
    ports, source = slice_of(4), ip_address("127.1.2.3")
    listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
    for listener in listeners:
        connected: set[int] = set()
        for _ in range(200):
            sock = stack.enter_context(socket.socket())
            bind_source(sock, source, ports)
            if sock.connect_ex(listener.getsockname()) == 0:
                connected.add(sock.getsockname()[1])
            else:
                assert way == "tried"  # this port serves that target already
            if len(connected) == 4:
                break
        assert connected == set(range(ports.low, ports.high + 1))
    for _ in range(4):
        bind_source(stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)), source, ports)
    with pytest.raises(OSError, match=r"\[Errno \d+\]") as caught:
        bind_source(stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)), source, ports)
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("kind", KINDS)
def test_an_address_of_nobody_cannot_be_bound(kind: socket.SocketKind) -> None:
    for host, family in (("198.51.100.7", socket.AF_INET), ("2001:db8::7", socket.AF_INET6)):
        with socket.socket(family, kind) as sock, pytest.raises(OSError, match=r"\[Errno \d+\]") as caught:
            bind_source(sock, ip_address(host))
        assert caught.value.errno == errno.EADDRNOTAVAIL
        with socket.socket(family, kind) as sock:
            bind_source(sock, ip_address(host), is_free=True)
            assert sock.getsockname()[0] == host


def test_a_slice_outside_of_the_systems_range_is_not_left_to_the_kernel() -> None:
    system = system_ports()
    assert system is not None
    assert not kernel_picks_from(PortSlice(system.low - 1, system.low + 5))
    assert not kernel_picks_from(PortSlice(system.high - 5, system.high + 1))
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        bind_source(sock, ip_address("127.0.0.1"), PortSlice(system.low - 40, system.low - 1))
        assert system.low - 40 <= sock.getsockname()[1] < system.low
