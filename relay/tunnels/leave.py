"""One attempt to reach one address: choose a source, bind it, connect; and choose again when the source refuses.

An address can have left this machine, or have no port left towards the target. Whoever chose it is told, and may
name another (`EgressBinding.refused`); the target's own answers are never a reason for that.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from functools import partial

from masque.target import IPAddress
from relay.hooks import EgressBinding
from relay.quic.socket import UdpSocket, connect_udp
from relay.source import bind_source

__all__ = ["ChooseBinding", "connect_tcp", "open_udp"]

ChooseBinding = Callable[[IPAddress], Awaitable[EgressBinding]]
"Chooses the egress for one address; raises RelayError to skip it."

_NO_PORT = frozenset({errno.EADDRNOTAVAIL, errno.EADDRINUSE})


async def connect_tcp(address: IPAddress, port: int, choose: ChooseBinding) -> socket.socket:
    """Connect to one address, from the source that is chosen for it.

    Args:
        address: of the target.
        port: its TCP port.
        choose: asked once, and again after each refusal.

    Returns:
        A connected, non-blocking socket with Nagle's delay off. The caller owns it.

    Raises:
        OSError: the target cannot be reached, or no source could be used.
        RelayError: from `choose`.
    """
    while True:
        binding = await choose(address)
        sock = socket.socket(
            socket.AF_INET6 if address.version == 6 else socket.AF_INET,
            socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
        )
        is_bound = False
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _bind(binding, sock)
            is_bound = True
            await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
            return sock
        except OSError as error:
            sock.close()
            if not _may_choose_again(binding, error, is_bound=is_bound):
                raise
        except BaseException:
            sock.close()
            raise


async def open_udp(address: IPAddress, port: int, choose: ChooseBinding) -> UdpSocket:
    """Make a UDP socket connected to one address, bound to the source that is chosen for it.

    Args:
        address: of the target.
        port: its UDP port.
        choose: asked once, and again after each refusal.

    Raises:
        OSError: no route, or no source could be used.
        RelayError: from `choose`.
    """
    while True:
        binding = await choose(address)
        try:
            return connect_udp(str(address), port, bind=partial(_bind, binding))
        except OSError as error:
            if not _may_choose_again(binding, error, is_bound=False):
                raise


def _bind(binding: EgressBinding, sock: socket.socket) -> None:
    if binding.source is not None:
        bind_source(sock, binding.source, binding.ports, is_free=binding.is_free)


def _may_choose_again(binding: EgressBinding, error: OSError, *, is_bound: bool) -> bool:
    """Tell the chooser of a refusal of its source.

    EADDRNOTAVAIL means before the bind that the address is gone, and after it that no port is free; EADDRINUSE
    always means the second.
    """
    if binding.refused is None or error.errno not in _NO_PORT:
        return False
    return binding.refused(error.errno == errno.EADDRNOTAVAIL and not is_bound)
