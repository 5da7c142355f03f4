"""The origins' pages: what they answer, and that nothing of them is left after their end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import HandshakeCompleted

from relay.conformance.driver import pattern
from relay.conformance.pages import PAGE, answer_path, serve_pages

pytestmark = pytest.mark.anyio


def test_paths() -> None:
    assert answer_path("/page") == (200, "text/html; charset=utf-8", PAGE)
    assert answer_path("/bytes/1000") == (200, "application/octet-stream", pattern(1000))
    for path in ("/", "/bytes/", "/bytes/x", "/bytes/-1", "/bytes/999999999", "bytes/1"):
        assert answer_path(path)[0] == 404, path


async def test_a_client_that_vanished_costs_no_fault_after_the_end(tmp_path: Path) -> None:
    """Its connection still has timers when the server's socket is gone."""
    loop = asyncio.get_running_loop()
    faults: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    configuration = QuicConfiguration(alpn_protocols=["h3"], server_name="localhost", verify_mode=ssl.CERT_NONE)
    client = QuicConnection(configuration=configuration)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        async with serve_pages("127.0.0.1", tmp_path, ("localhost",)) as pages:
            address = ("127.0.0.1", pages.udp)
            client.connect(address, now=loop.time())
            is_done = False
            async with asyncio.timeout(5):
                while not is_done:
                    for payload, _ in client.datagrams_to_send(now=loop.time()):
                        sock.sendto(payload, address)
                    client.receive_datagram(await loop.sock_recv(sock, 65535), address, now=loop.time())
                    while (event := client.next_event()) is not None:
                        is_done = is_done or isinstance(event, HandshakeCompleted)
        await asyncio.sleep(1.0)  # longer than the server's first probe timeouts for what was never acknowledged
    assert not faults
