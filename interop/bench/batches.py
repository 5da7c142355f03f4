"""UDP sockets in batches: many datagrams per system call, by UDP_GRO and UDP_SEGMENT (udp(7), Linux)."""

from __future__ import annotations

import socket
from collections.abc import Sequence

__all__ = ["Address", "open_socket", "receive_batch", "send_batch", "send_segments"]

Address = tuple[str, int]
"IPv4 address and port."

_UDP_SEGMENT = 103
_UDP_GRO = 104
_MAX_SEGMENTS = 64
_MAX_BYTES = 65_507
_BUFFER_BYTES = 4 << 20
_CONTROL_SPACE = 64

_buffer = bytearray(65_536)
_view = memoryview(_buffer)


def open_socket(bound: Address = ("127.0.0.1", 0), peer: Address | None = None) -> socket.socket:
    """Open a non-blocking UDP socket that takes and gives batches.

    Args:
        bound: the local address; port 0 lets the kernel choose.
        peer: the address to connect to, or None.

    Returns:
        The socket; the caller closes it.

    Raises:
        OSError: the kernel refuses the address or knows no UDP_GRO.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
        sock.bind(bound)
        if peer is not None:
            sock.connect(peer)
    except OSError:
        sock.close()
        raise
    return sock


def receive_batch(sock: socket.socket) -> tuple[memoryview, int, Address] | None:
    """Receive datagrams of one sender that the kernel has joined.

    Args:
        sock: a socket of `open_socket`.

    Returns:
        The joined payloads, the size of each but the last, and the sender; None when nothing waits.
        The payloads are overwritten by the next call.

    Raises:
        OSError: the kernel reports an error on the socket.
    """
    try:
        size, control, _, sender = sock.recvmsg_into([_buffer], _CONTROL_SPACE)
    except BlockingIOError:
        return None
    segment = size
    for level, kind, value in control:
        if level == socket.IPPROTO_UDP and kind == _UDP_GRO:
            segment = int.from_bytes(value[:4], "little") or size
    return _view[:size], max(segment, 1), sender


def send_segments(
    sock: socket.socket, payload: bytes | memoryview, segment: int, peer: Address | None = None
) -> None:
    """Send one buffer as datagrams of equal size; the last may be shorter.

    Args:
        sock: a socket of `open_socket`.
        payload: at most 64 datagrams and 65,507 bytes.
        segment: the size of each datagram.
        peer: where to, or None on a connected socket.

    Raises:
        OSError: the kernel refuses; a full buffer (BlockingIOError) too.
    """
    control = []
    if len(payload) > segment:
        control.append((socket.IPPROTO_UDP, _UDP_SEGMENT, segment.to_bytes(2, "little")))
    if peer is None:
        sock.sendmsg([payload], control)
    else:
        sock.sendmsg([payload], control, 0, peer)


def send_batch(sock: socket.socket, packets: Sequence[bytes]) -> None:
    """Send packets in order on a connected socket, in as few calls as their sizes allow.

    Packets that the kernel refuses are lost, as any UDP packet may be.

    Args:
        sock: a connected socket of `open_socket`.
        packets: what to send.
    """
    start = 0
    count = len(packets)
    while start < count:
        segment = len(packets[start])
        limit = min(count, start + _MAX_SEGMENTS, start + max(1, _MAX_BYTES // max(segment, 1)))
        end = start + 1
        while end < limit and len(packets[end]) == segment:
            end += 1
        if end < limit and len(packets[end]) < segment:
            end += 1
        try:
            send_segments(sock, b"".join(packets[start:end]), segment)
        except OSError:
            pass
        start = end
