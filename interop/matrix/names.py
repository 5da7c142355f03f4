"""A DNS server on loopback that knows one name, the origins' (RFC 1035): our relay resolves with its own resolver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

__all__ = ["MISSING_NAME", "ORIGIN_NAME", "answer_query", "serve_names"]

ORIGIN_NAME = "origin.test"
"The origins' name; the top-level name is for tests (RFC 6761 §6.2)."
MISSING_NAME = "missing.test"
"A name that the server says does not exist."


def answer_query(query: bytes, address: str) -> bytes | None:
    """Answer one question: the origins' IPv4 address, no other record of that name, and no other name.

    Args:
        query: a DNS message.
        address: the origins' address.

    Returns:
        The response, or None to what is no question.
    """
    try:
        message = dns.message.from_wire(query)
    except dns.exception.DNSException:
        return None
    if message.flags & dns.flags.QR or len(message.question) != 1:
        return None
    question = message.question[0]
    response = dns.message.make_response(message, recursion_available=True)
    if question.name.to_text(omit_final_dot=True).lower() != ORIGIN_NAME:
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif question.rdtype == dns.rdatatype.A:
        response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", address))
    return response.to_wire()


class _Names(asyncio.DatagramProtocol):
    """The server's socket."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer."""
        response = answer_query(data, self._address)
        if response is not None and self._transport is not None:
            self._transport.sendto(response, addr)


@asynccontextmanager
async def serve_names(address: str) -> AsyncIterator[str]:
    """Serve for the time of the context.

    Args:
        address: where the origins are.

    Yields:
        Where the server listens, as `address:port`.
    """
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Names(address), local_addr=("127.0.0.1", 0))
    try:
        host, port = transport.get_extra_info("sockname")[:2]
        yield f"{host}:{port}"
    finally:
        transport.close()
