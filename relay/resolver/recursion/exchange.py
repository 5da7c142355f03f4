"""One query to one authoritative server: UDP from a port of its own, TCP when the answer was cut.

The query does not ask for recursion. A response whose source, id or question is another's is no response at all
(RFC 5452 §9). A server that cannot take EDNS is asked again without (RFC 6891 §7).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

import dns.exception
import dns.message
import dns.rcode

from relay.resolver.query import Mismatch, Query, Truncated, make_query
from relay.resolver.transport.stream import open_stream
from relay.resolver.transport.udp import connected_socket
from relay.resolver.upstream import Question
from relay.settings import Upstream

__all__ = ["ask_server"]

_LARGEST = 65535
_MISMATCHES = 8
"Datagrams that fit nothing before a server counts as silent: a guesser gets few guesses."
_FINAL = frozenset({dns.rcode.NOERROR, dns.rcode.NXDOMAIN})
_NO_EDNS = frozenset({dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS})


async def ask_server(
    server: Upstream, question: Question, before_retry: Callable[[], None], *, has_edns: bool
) -> tuple[dns.message.Message, bool]:
    """Ask a server once.

    Args:
        server: whom to ask.
        question: what to ask.
        before_retry: called before the question goes out once more, over TCP or without EDNS.
        has_edns: whether to use EDNS; without, no signatures come.

    Returns:
        The response, and whether the server took EDNS. One that refused it and then answered did not.

    Raises:
        OSError: the server cannot be reached.
        EOFError: it closed too early.
        dns.exception.DNSException: the response is malformed or too long.
    """
    query = make_query(question, has_edns=has_edns, is_recursive=False)
    try:
        response = await _over_udp(query, server)
    except Truncated:
        before_retry()
        response = await _over_tcp(query, server)
    if has_edns and response.edns < 0 and response.rcode() in _NO_EDNS:
        before_retry()
        plain, _ = await ask_server(server, question, before_retry, has_edns=False)
        return plain, plain.rcode() not in _FINAL  # an error both times is not about EDNS
    return response, has_edns


async def _over_udp(query: Query, server: Upstream) -> dns.message.Message:
    """Send a datagram and wait for one that fits it.

    Raises:
        Truncated: the response was cut.
    """
    loop = asyncio.get_running_loop()
    ident = secrets.randbelow(1 << 16)
    with connected_socket(server) as sock:
        sock.send(query.with_id(ident))
        for _ in range(_MISMATCHES):
            data = await loop.sock_recv(sock, _LARGEST)
            try:
                return query.read(data, ident)
            except (Mismatch, dns.exception.FormError):
                continue
    raise Mismatch


async def _over_tcp(query: Query, server: Upstream) -> dns.message.Message:
    """Ask over a connection of its own (RFC 7766)."""
    ident = secrets.randbelow(1 << 16)
    reader, writer = await open_stream(server, None)
    try:
        wire = query.with_id(ident)
        writer.write(len(wire).to_bytes(2, "big") + wire)
        size = int.from_bytes(await reader.readexactly(2), "big")
        return query.read(await reader.readexactly(size), ident)
    finally:
        writer.transport.abort()
