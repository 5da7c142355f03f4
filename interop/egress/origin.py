"""An origin that tells everybody the address it sees: `python -m interop.egress.origin`.

Over TCP at once, then it waits for the other side to end; over UDP to every datagram. It says `ready` and ends with
its standard input.
"""

from __future__ import annotations

import asyncio
import socket
import sys

__all__ = ["TCP_PORT", "UDP_PORT", "main"]

TCP_PORT, UDP_PORT = 9001, 9002
_BACKLOG = 4096
_BUFFER = 8 << 20


async def _tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(f"{writer.get_extra_info('peername')[0]}\n".encode())
    try:
        while await reader.read(4096):
            pass
    except OSError:
        pass
    finally:
        writer.close()


def _answer(sock: socket.socket) -> None:
    try:
        while True:
            _, sender = sock.recvfrom(2048)
            sock.sendto(f"{sender[0]}\n".encode(), sender)
    except BlockingIOError:
        pass


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    servers = [
        await asyncio.start_server(_tell, host, TCP_PORT, family=family, backlog=_BACKLOG)
        for host, family in (("0.0.0.0", socket.AF_INET), ("::", socket.AF_INET6))
    ]
    for host, family in (("0.0.0.0", socket.AF_INET), ("::", socket.AF_INET6)):
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, UDP_PORT))
        loop.add_reader(sock, _answer, sock)
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    for server in servers:
        server.close()


def main() -> None:
    """Serve until standard input ends."""
    asyncio.run(_serve())


if __name__ == "__main__":
    main()
