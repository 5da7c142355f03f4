"""One query to one authoritative server: UDP from a port of its own, TCP when the answer was cut.

The query does not ask for recursion. A response whose source, id or question is another's is no response at all
(RFC 5452 §9). A server that cannot take EDNS is asked again without (RFC 6891 §7).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace

import anyio
import dns.exception
import dns.flags
import dns.message
import dns.rcode
from anyio.streams.buffered import BufferedByteReceiveStream

from masque.target import IPAddress
from relay.resolver.upstream import Question

__all__ = ["ask_server"]

_UDP_PAYLOAD = 1232
"The largest response over UDP: what passes IPv6's smallest MTU in one piece."
_MAX_MESSAGE = 16_384
"Bytes of a response over TCP; parsing a longer one would stop the loop for long."
_MISMATCHES = 8
"Datagrams that fit nothing before a server counts as silent: a guesser gets few guesses."
_NO_EDNS = frozenset({dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS})


class _Truncated(Exception):
    """A response was cut."""


async def ask_server(
    address: IPAddress, port: int, question: Question, before_retry: Callable[[], None], *, has_edns: bool
) -> tuple[dns.message.Message, bool]:
    """Ask a server once.

    Args:
        address: the server.
        port: its port.
        question: what to ask.
        before_retry: called before the question goes out once more, over TCP or without EDNS.
        has_edns: whether to use EDNS; without, no signatures come.

    Returns:
        The response, and whether the server took EDNS.

    Raises:
        OSError: the server cannot be reached.
        dns.exception.DNSException: the response is malformed or too long.
        anyio.EndOfStream, anyio.IncompleteRead: it closed too early.
    """
    query = dns.message.make_query(question.name, question.rdtype, flags=0)
    if has_edns:
        query.use_edns(0, ednsflags=dns.flags.DO if question.do else 0, payload=_UDP_PAYLOAD)
    try:
        response = await _over_udp(query, address, port)
    except _Truncated:
        before_retry()
        response = await _over_tcp(query, address, port)
    if has_edns and response.rcode() in _NO_EDNS:
        before_retry()
        plain = replace(question, do=False)
        return (await ask_server(address, port, plain, before_retry, has_edns=False))[0], False
    return response, has_edns


async def _over_udp(query: dns.message.Message, address: IPAddress, port: int) -> dns.message.Message:
    """Send a datagram and wait for one that fits it.

    Raises:
        _Truncated: the response was cut.
    """
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((str(address), port))  # the kernel then checks the source, and tells of refusals
        sock.send(query.to_wire())
        for _ in range(_MISMATCHES):
            data = await loop.sock_recv(sock, 65535)
            try:
                response = dns.message.from_wire(data, ignore_trailing=True)
            except (dns.exception.DNSException, ValueError):
                if _is_cut(data, query):
                    raise _Truncated from None
                continue
            if query.is_response(response):
                if response.flags & dns.flags.TC:
                    raise _Truncated
                return response
    raise dns.exception.FormError


def _is_cut(data: bytes, query: dns.message.Message) -> bool:
    """Say whether bytes that cannot be parsed are a response that was cut in the middle of a record."""
    return data[:2] == query.id.to_bytes(2, "big") and len(data) > 2 and data[2] & 0x82 == 0x82


async def _over_tcp(query: dns.message.Message, address: IPAddress, port: int) -> dns.message.Message:
    """Ask over a connection of its own (RFC 7766)."""
    async with await anyio.connect_tcp(str(address), port) as stream:
        wire = query.to_wire()
        await stream.send(len(wire).to_bytes(2, "big") + wire)
        received = BufferedByteReceiveStream(stream)
        size = int.from_bytes(await received.receive_exactly(2), "big")
        if size > _MAX_MESSAGE:
            raise dns.exception.TooBig
        try:
            response = dns.message.from_wire(await received.receive_exactly(size))
        except ValueError:
            raise dns.exception.FormError from None
    if not query.is_response(response) or response.flags & dns.flags.TC:
        raise dns.exception.FormError
    return response
