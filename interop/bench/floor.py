"""The floor: what the kernel alone costs for a datagram in and out, with no QUIC between.

    python -m interop.bench.floor TARGET_PORT

A UDP forwarder with GRO and GSO in both directions. It is written in Python; the interpreter's cost is paid once
per system call, so it is spread over the datagrams of a batch. What a datagram costs here depends on the batch
almost alone: with fifty it is mostly the copying, with one it is nothing but system calls. It prints its port
and serves until its standard input ends.
"""

from __future__ import annotations

import selectors
import socket
import sys

from interop.bench.batches import Address, open_socket, receive_batch, send_segments

__all__ = ["serve"]

_READS = 64


def serve(target: Address) -> None:
    """Forward datagrams between one client and a target until standard input ends. Prints the port first.

    Args:
        target: where the client's datagrams go.

    Raises:
        OSError: the kernel refuses a socket.
    """
    inside, outside = open_socket(), open_socket(peer=target)
    print(inside.getsockname()[1], flush=True)
    client: Address | None = None
    with selectors.DefaultSelector() as selector:
        selector.register(inside, selectors.EVENT_READ)
        selector.register(outside, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is inside:
                    client = _forward(inside, outside, None) or client
                elif client is not None:
                    _forward(outside, inside, client)


def _forward(source: socket.socket, sink: socket.socket, peer: Address | None) -> Address | None:
    """Move what waits in one socket to the other; return its last sender."""
    sender = None
    for _ in range(_READS):
        try:
            batch = receive_batch(source)
            if batch is None:
                break
            payload, segment, sender = batch
            send_segments(sink, payload, segment, peer)
        except OSError:
            continue
    return sender


if __name__ == "__main__":
    serve(("127.0.0.1", int(sys.argv[1])))
