"""UDP sockets in batches: GRO in, GSO out, plain calls where the kernel lacks them.

`receive` gives one buffer of equal segments for one system call; `send` puts runs of equal payloads into one
system call (Linux UDP_SEGMENT: at most 64 segments and 65,507 bytes, the last segment may be shorter). One receive
buffer serves all sockets of a process, because a call copies what it found before the next call starts.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final

from relay.quic.engine import Address

__all__ = ["UdpSocket", "bind_udp", "connect_udp"]

_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_IP_MTU_DISCOVER: Final = 10
_IP_PMTUDISC_DO: Final = 2
_IPV6_MTU_DISCOVER: Final = 23
_IPV6_DONTFRAG: Final = 62
_MAX_SEGMENTS: Final = 64
_MAX_BURST: Final = 65_000
"Bytes in one GSO call: below 65,507 less room for IPv6 headers."
_BUFFER: Final = bytearray(1 << 16)
_VIEW: Final = memoryview(_BUFFER)
_ANCILLARY: Final = socket.CMSG_SPACE(4)
_pack_size: Final = struct.Struct("=H").pack
_GSO_REFUSED: Final = frozenset({errno.EIO, errno.EINVAL, errno.EOPNOTSUPP})
_GSO_PATIENCE: Final = 16
"Runs refused one after another, after which payloads are sent one by one."


class UdpSocket:
    """A non-blocking UDP socket that moves datagrams in batches.

    Not thread-safe. `family`, `fileno` and `close` are the socket's own.
    """

    def __init__(self, sock: socket.socket) -> None:
        """Take over `sock`; ask for GRO when the kernel has it."""
        sock.setblocking(False)
        self._socket = sock
        self._receive = sock.recvmsg_into
        self._refusals = 0
        self.has_gso = True
        try:
            sock.getsockopt(socket.SOL_UDP, _UDP_SEGMENT)
        except OSError:
            self.has_gso = False
        self.has_gro = True
        try:
            sock.setsockopt(socket.SOL_UDP, _UDP_GRO, 1)
        except OSError:
            self.has_gro = False

    @property
    def family(self) -> socket.AddressFamily:
        return self._socket.family

    @property
    def address(self) -> Address:
        """The local address, as bound."""
        name: Address = self._socket.getsockname()
        return name

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def receive(self) -> tuple[bytes, int, Address] | None:
        """One system call: (payloads, segment size, sender), or None when nothing is waiting.

        Payloads stand back to back, each of the segment size, the last one perhaps shorter. An empty datagram is
        (b"", 0, sender).

        Raises:
            OSError: what the kernel reports, such as ConnectionRefusedError after an ICMP message.
        """
        try:
            size, ancillary, _, address = self._receive((_BUFFER,), _ANCILLARY)
        except (BlockingIOError, InterruptedError):
            return None
        segment = size
        if ancillary:
            for level, kind, value in ancillary:
                if level == socket.SOL_UDP and kind == _UDP_GRO:
                    segment = min(size, int.from_bytes(value[:4], "little"))
        return bytes(_VIEW[:size]), segment, address

    def send(self, payloads: Sequence[bytes], address: Address | None = None) -> int:
        """Send payloads in order, runs of equal size in one call.

        Args:
            payloads: UDP payloads of any sizes, empty ones too.
            address: where to, or None on a connected socket.

        Returns:
            How many were taken. Fewer than all means that the send buffer is full, or that the next payload has
            an error, which the next call raises.

        Raises:
            OSError: what the kernel reports for the first payload.
        """
        sent = 0
        single = 0
        total = len(payloads)
        while sent < total:
            end = self._run_end(payloads, sent) if sent >= single else sent + 1
            try:
                if end - sent > 1:
                    self._send_run(payloads[sent:end], address)
                elif address is None:
                    self._socket.send(payloads[sent])
                else:
                    self._socket.sendto(payloads[sent], address)
            except (BlockingIOError, InterruptedError):
                return sent
            except OSError as exc:
                if end - sent > 1 and exc.errno in _GSO_REFUSED:
                    single = end
                    self._gso_refused(exc)
                    continue
                if sent:
                    return sent
                raise
            sent = end
        return sent

    def _run_end(self, payloads: Sequence[bytes], start: int) -> int:
        """Where the run of equal payloads from `start` ends, its one shorter last payload included."""
        size = len(payloads[start])
        end = start + 1
        if self.has_gso and size:
            limit = min(len(payloads), start + min(_MAX_SEGMENTS, max(1, _MAX_BURST // size)))
            while end < limit and len(payloads[end]) == size:
                end += 1
            if end < limit and 0 < len(payloads[end]) < size:
                end += 1
        return end

    def _gso_refused(self, exc: OSError) -> None:
        """EINVAL may mean a path too narrow for the segment, and others are not; again and again, it means us."""
        self._refusals += 1
        if exc.errno != errno.EINVAL or self._refusals >= _GSO_PATIENCE:
            self.has_gso = False

    def _send_run(self, payloads: Sequence[bytes], address: Address | None) -> None:
        message = ((socket.SOL_UDP, _UDP_SEGMENT, _pack_size(len(payloads[0]))),)
        if address is None:
            self._socket.sendmsg(payloads, message)
        else:
            self._socket.sendmsg(payloads, message, 0, address)
        self._refusals = 0


def bind_udp(host: str, port: int, receive_buffer: int, send_buffer: int) -> UdpSocket:
    """A socket listening on a literal address, don't-fragment set (RFC 9000 §14).

    Raises:
        OSError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        _forbid_fragments(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return UdpSocket(sock)


def connect_udp(
    host: str, port: int, source: str | None = None, bind: Callable[[socket.socket], None] | None = None
) -> UdpSocket:
    """A socket connected to one literal address, so the kernel checks every sender (RFC 9298 §5).

    Args:
        host: literal address of the target.
        port: its UDP port.
        source: literal address to leave from, or None for the kernel's choice.
        bind: binds the socket instead, where an address alone does not say enough.

    Raises:
        OSError: no route, the source cannot be bound, or what `bind` raises.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        _forbid_fragments(sock)
        if bind is not None:
            bind(sock)
        elif source is not None:
            sock.bind((source, 0))
        sock.connect((host, port))
    except OSError:
        sock.close()
        raise
    return UdpSocket(sock)


def _forbid_fragments(sock: socket.socket) -> None:
    """Set don't-fragment, as RFC 9298 §5 and RFC 9000 §14 demand; a kernel without the option is left alone."""
    options = [(socket.IPPROTO_IP, _IP_MTU_DISCOVER)]
    if sock.family == socket.AF_INET6:
        options += [(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER)]
    for level, option in options:
        try:
            sock.setsockopt(level, option, _IP_PMTUDISC_DO)
        except OSError:
            continue
    if sock.family == socket.AF_INET6:
        try:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)
        except OSError:
            return
