"""Finds out what this machine's kernel can do, by trying it on loopback sockets.

The data path runs without each of these, only slower: the answers choose between ways, they never fail.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass

__all__ = ["Capabilities", "probe_capabilities"]

UDP_SEGMENT = 103
"Linux's socket option and control message for segmentation offload (GSO) on sending; `linux/udp.h`."
UDP_GRO = 104
"Linux's socket option for joined datagrams (GRO) on receiving; `linux/udp.h`."

_SEGMENT = 500


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What sockets of this machine can do."""

    gso: bool
    "One send call can carry several datagrams of one size."
    gro: bool
    "One receive call can take several datagrams of one size."
    ipv6: bool
    "IPv6 sockets exist, and the loopback address can be bound."
    reuseport: bool
    "Several sockets can share one port."


def probe_capabilities() -> Capabilities:
    """Try each capability once and return what worked. Takes a few milliseconds, waits for nothing."""
    return Capabilities(gso=_try_gso(), gro=_try_gro(), ipv6=_try_ipv6(), reuseport=_try_reuseport())


def _udp_pair(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    receiver = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(0.2)
    sender.connect(receiver.getsockname())
    return sender, receiver


def _try_gso() -> bool:
    """Send two and a half segments in one call and see three datagrams arrive."""
    with contextlib.ExitStack() as stack:
        try:
            sender, receiver = _udp_pair(stack)
            payload = bytes(_SEGMENT * 2 + _SEGMENT // 2)
            sender.sendmsg([payload], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", _SEGMENT))])
            return [len(receiver.recv(65535)) for _ in range(3)] == [_SEGMENT, _SEGMENT, _SEGMENT // 2]
        except OSError:
            return False


def _try_gro() -> bool:
    """Switch joining on and see that a datagram still arrives."""
    with contextlib.ExitStack() as stack:
        try:
            sender, receiver = _udp_pair(stack)
            receiver.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
            sender.send(bytes(_SEGMENT))
            return len(receiver.recvmsg(65535, socket.CMSG_SPACE(8))[0]) == _SEGMENT
        except OSError:
            return False


def _try_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as trial:
            trial.bind(("::1", 0))
    except OSError:
        return False
    return True


def _try_reuseport() -> bool:
    option = getattr(socket, "SO_REUSEPORT", None)
    if option is None:
        return False
    with contextlib.ExitStack() as stack:
        try:
            first, second = (stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2))
            for trial in (first, second):
                trial.setsockopt(socket.SOL_SOCKET, option, 1)
            first.bind(("127.0.0.1", 0))
            second.bind(first.getsockname())
        except OSError:
            return False
    return True
