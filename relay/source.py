"""Binds a socket to an egress address: shared ports, slices of ports, addresses that no interface has.

Linux options are used where the kernel has them. `IP_BIND_ADDRESS_NO_PORT` leaves a TCP socket's port to connect(),
which needs only the four-tuple to be unused: tunnels to different targets share a port. A slice of ports goes to the
kernel as `IP_LOCAL_PORT_RANGE` (Linux 6.3). It silently ignores what lies outside of the system's own range, so a
slice that is not wholly inside is held to here, by trying ports of it. A connected UDP socket has its port alone:
two that shared address and port would take each other's datagrams.
"""

from __future__ import annotations

import errno
import secrets
import socket
import struct
from functools import cache
from pathlib import Path
from typing import Final

from masque.target import IPAddress
from relay.settings import PortSlice

__all__ = ["bind_source", "kernel_picks_from", "system_ports"]

IP_FREEBIND: Final = 15
"Linux: bind an address that no interface has (`linux/in.h`)."
IP_BIND_ADDRESS_NO_PORT: Final = 24
"Linux 4.2: bind an address now, its port with connect() (`linux/in.h`)."
IP_LOCAL_PORT_RANGE: Final = 51
"Linux 6.3: the ports that the kernel picks from for this socket (`linux/in.h`)."
IPV6_FREEBIND: Final = 78
"Linux: as IP_FREEBIND (`linux/in6.h`)."

_SYSTEM_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES: Final = 64
"Ports of a slice that are tried where the kernel does not pick: after so many the address counts as full."


def bind_source(
    sock: socket.socket, source: IPAddress, ports: PortSlice | None = None, *, is_free: bool = False
) -> None:
    """Bind a fresh socket to a source address, before it is connected.

    Args:
        sock: a TCP or UDP socket of the address's family.
        source: the address to leave from.
        ports: the ports that may be used; None for what the system allows.
        is_free: bind although no interface has the address: it is one of a network that is routed here.

    Raises:
        OSError: EADDRNOTAVAIL when the address is not this machine's, EADDRINUSE when no port is free.
    """
    if is_free:
        level, option = (
            (socket.IPPROTO_IPV6, IPV6_FREEBIND) if source.version == 6 else (socket.IPPROTO_IP, IP_FREEBIND)
        )
        sock.setsockopt(level, option, 1)
    if ports is not None and not kernel_picks_from(ports):
        _bind_one_of(sock, str(source), ports)
        return
    if ports is not None:
        sock.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("=I", ports.high << 16 | ports.low))
    if sock.type == socket.SOCK_STREAM:
        try:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        except OSError:
            pass  # an old kernel: each tunnel takes a port of its own
    sock.bind((str(source), 0))


def _bind_one_of(sock: socket.socket, source: str, ports: PortSlice) -> None:
    """Try ports of a slice from a random one on; for TCP free ones first, then ones that other targets may share."""
    size = ports.high - ports.low + 1
    may_share = sock.type == socket.SOCK_STREAM
    for is_sharing in (False, True) if may_share else (False,):
        if is_sharing:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        start = secrets.randbelow(size)
        for step in range(min(size, _TRIES)):
            try:
                sock.bind((source, ports.low + (start + step) % size))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                if may_share:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # both who share must have it
                return
    raise OSError(errno.EADDRINUSE, "no free port")


def kernel_picks_from(ports: PortSlice) -> bool:
    """Tell whether the kernel itself can hold a socket to a slice of ports."""
    system = system_ports()
    return _has_port_option() and system is not None and system.low <= ports.low and ports.high <= system.high


@cache
def system_ports() -> PortSlice | None:
    """Return the system's range of local ports (`net.ipv4.ip_local_port_range`), read once, or None."""
    try:
        low, high = _SYSTEM_RANGE.read_text(encoding="ascii").split()
        return PortSlice(int(low), int(high))
    except (OSError, ValueError):
        return None


@cache
def _has_port_option() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
        try:
            trial.getsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE)
        except OSError:
            return False
    return True
