"""Upstreams whose streams hold anything but what was asked for: each costs its connection, and no more."""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import anyio
import anyio.lowlevel
import dns.message
import pytest

from relay.errors import FailureKind
from relay.resolver import Resolver
from relay.settings import ResolverSettings, Upstream, UpstreamTransport
from tests.relay.dns_server import records, running_server
from tests.relay.resolver.lab import failure_of
from tests.relay.resolver.listener import Serve, running

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient")]


def sending(data: bytes) -> Serve:
    """Send these bytes when a question came, then end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(data)
        await writer.drain()
        writer.close()

    return serve


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one question that nobody asked, without end."""
    query = dns.message.make_query("other.test", "A")
    reply = records("other.test. 60 IN A 192.0.2.66")(query)
    assert reply is not None
    wire = reply.to_wire()
    try:
        while not writer.is_closing():
            writer.write((len(wire).to_bytes(2, "big") + wire) * 20)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


async def refused(upstream: Upstream) -> None:
    """Ask an upstream, and see that it is an upstream's error within moments."""
    with anyio.fail_after(5):
        async with Resolver(ResolverSettings(), [upstream]) as resolver:
            found = await failure_of(resolver, "www.test")
    assert (found.kind, found.rcode) == (FailureKind.DNS_ERROR, None)


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\0\5abc", b"\0\0", b"\xff\xff" + bytes(100), b"\0\4abcd" * 100, os.urandom(3000)]
)
async def test_tcp_streams_of_nonsense(data: bytes) -> None:
    async with running(sending(data)) as port:
        await refused(Upstream(ip_address("127.0.0.1"), port, UpstreamTransport.TCP))


async def test_answers_without_end_that_nobody_asked_for() -> None:
    async with running(flood) as port:
        await refused(Upstream(ip_address("127.0.0.1"), port, UpstreamTransport.TCP))


@pytest.mark.parametrize("transport", [UpstreamTransport.TLS, UpstreamTransport.HTTPS], ids=str)
async def test_a_server_without_tls(transport: UpstreamTransport, folder: Path) -> None:
    async with running(sending(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        await refused(Upstream(ip_address("127.0.0.1"), port, transport, "localhost", ca_file=folder / "ca.pem"))


@pytest.mark.parametrize("protocols", [["h2"], ["http/1.1"], []])
async def test_https_without_http2(protocols: list[str], folder: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    if protocols:
        context.set_alpn_protocols(protocols)
    async with running(sending(b"HTTP/1.1 200 OK\r\n\r\n"), context) as port:
        upstream = Upstream(ip_address("127.0.0.1"), port, UpstreamTransport.HTTPS, "localhost")
        await refused(replace(upstream, ca_file=folder / "ca.pem"))


async def test_quic_where_somebody_else_answers(folder: Path) -> None:
    """What is no QUIC is dropped, so this is silence; and another upstream has the answer."""
    async with running_server() as server:
        server.answer("www.test", records("www.test. 60 IN A 192.0.2.1"))
        odd = Upstream(ip_address("127.0.0.1"), 0, UpstreamTransport.QUIC, "localhost", ca_file=folder / "ca.pem")

        class Nonsense(asyncio.DatagramProtocol):
            transport: asyncio.DatagramTransport

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport = cast(asyncio.DatagramTransport, transport)

            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                for answer in (b"", b"\0", data[::-1], os.urandom(1200), data):
                    self.transport.sendto(answer, addr)

        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            Nonsense, local_addr=("127.0.0.1", 0)
        )
        try:
            odd = replace(odd, port=transport.get_extra_info("sockname")[1])
            async with Resolver(ResolverSettings(), [odd, server.upstream]) as resolver:
                assert (await resolver.resolve("www.test")).addresses == (ip_address("192.0.2.1"),)
        finally:
            transport.close()


async def test_nothing_is_left_open() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async with running_server() as server:
        server.answer("www.test", records("www.test. 60 IN A 192.0.2.1"))
        await anyio.wait_all_tasks_blocked()
        before = descriptors()
        for transport in (UpstreamTransport.UDP, UpstreamTransport.TCP):
            async with Resolver(ResolverSettings(), [replace(server.upstream, transport=transport)]) as resolver:
                await resolver.resolve("www.test")
        with anyio.fail_after(5):
            while descriptors() > before:
                await anyio.lowlevel.checkpoint()
