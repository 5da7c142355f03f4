"""Is a QUIC server there? Asked without a connection: a version that nobody has is answered by a list of versions."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable

__all__ = ["wait_for_quic"]

_PADDED = 1200
_UNKNOWN_VERSION = bytes.fromhex("1a2a3a4a")
"Of the pattern 0x?a?a?a?a, which forces version negotiation (RFC 9000 §15)."
_ASK_SECONDS = 0.1


async def wait_for_quic(host: str, port: int, seconds: float, is_gone: Callable[[], bool]) -> bool:
    """Wait until a QUIC server answers (RFC 9000 §6.1).

    Args:
        host: its IPv4 address.
        port: its UDP port.
        seconds: how long to wait.
        is_gone: asked again and again; true when nobody will ever answer.

    Returns:
        False when none answered in time.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((host, port))
        while loop.time() < deadline and not is_gone():
            if await _is_answered(sock):
                return True
    return False


async def _is_answered(sock: socket.socket) -> bool:
    """Ask once. A refusal, while nobody listens, takes as long as silence."""
    loop = asyncio.get_running_loop()
    ours, theirs = secrets.token_bytes(8), secrets.token_bytes(8)
    head = b"\xc0" + _UNKNOWN_VERSION + bytes([len(theirs)]) + theirs + bytes([len(ours)]) + ours
    until = loop.time() + _ASK_SECONDS
    try:
        await loop.sock_sendall(sock, head.ljust(_PADDED, b"\0"))
        async with asyncio.timeout_at(until):
            while True:
                data = await loop.sock_recv(sock, 65535)
                if len(data) > 5 and data[0] & 0x80 and data[1:5] == bytes(4) and ours in data[5:30]:
                    return True
    except TimeoutError:
        return False
    except OSError:
        await asyncio.sleep(max(0.0, until - loop.time()))
        return False
