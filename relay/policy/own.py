"""The relay's own addresses: what a tunnel may not lead back to.

A tunnel to an address of this machine would loop through the relay, or reach services that a firewall keeps from
everybody else. Which addresses are this machine's is asked of the kernel's routing tables, address by address, over
rtnetlink (netlink(7), rtnetlink(7)): the answer covers every interface, whole prefixes that are routed locally, and
what is added later. Loopback is left to the rules: one that names it can mean nothing else than this machine.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address

from masque.target import IPAddress
from relay.policy.prefixes import PrefixTable

__all__ = ["OwnAddresses", "is_routed_locally", "probe_local_routes"]

_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_GET_ROUTE = 26
_NEW_ROUTE = 24
_REQUEST = 1
_DESTINATION = 1
_OURS = frozenset({2, 3, 4})
"Route types of what is delivered here: local, broadcast, anycast."
_REPLY_SIZE = 8192


class OwnAddresses:
    """What the relay must not reach."""

    def __init__(
        self,
        networks: Iterable[IPv4Network | IPv6Network] = (),
        listener: tuple[IPAddress, int] | None = None,
        is_local: Callable[[IPAddress], bool] | None = None,
    ) -> None:
        """Keep what is known beforehand.

        Args:
            networks: addresses that are the relay's wherever they are routed.
            listener: where it listens, over UDP; an unspecified address is all of this machine's.
            is_local: asks the kernel; None when it cannot be asked.
        """
        self._networks: PrefixTable[None] = PrefixTable()
        for network in networks:
            self._networks.add(network, None)
        self._listener = listener
        self._is_local = is_local

    def holds(self, address: IPAddress) -> bool:
        """Say whether an address is the relay's or its machine's, loopback aside.

        Raises:
            OSError: the kernel cannot be asked just now.
        """
        if address.is_loopback:
            return False
        if self._networks.longest(address) is not None:
            return True
        return self._is_local is not None and self._is_local(address)

    def listens(self, address: IPAddress, port: int) -> bool:
        """Say whether the relay itself would get what is sent there: the rest of the question, for loopback."""
        if self._listener is None or port != self._listener[1]:
            return False
        host = self._listener[0]
        return address == host or (host.is_unspecified and (address.is_loopback or address.is_unspecified))


def probe_local_routes() -> Callable[[IPAddress], bool] | None:
    """Return `is_routed_locally` if this system answers it, else None."""
    try:
        return is_routed_locally if is_routed_locally(ip_address("127.0.0.1")) else None
    except (OSError, AttributeError):  # no netlink sockets: another system, or a service that may not have them
        return None


def is_routed_locally(address: IPAddress) -> bool:
    """Ask the kernel whether a packet to an address would be delivered on this machine. Sends no packet.

    Raises:
        OSError: no netlink socket can be had.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    packed = address.packed
    body = _ROUTE.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0)
    body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(packed), _DESTINATION) + packed
    request = _HEADER.pack(_HEADER.size + len(body), _GET_ROUTE, _REQUEST, 1, 0) + body
    flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_NETLINK, flags, socket.NETLINK_ROUTE) as sock:
        sock.sendto(request, (0, 0))  # the kernel answers before this returns
        reply = sock.recv(_REPLY_SIZE)
    if len(reply) < _HEADER.size + _ROUTE.size or _HEADER.unpack_from(reply)[1] != _NEW_ROUTE:
        return False  # there is no route at all
    return _ROUTE.unpack_from(reply, _HEADER.size)[7] in _OURS
