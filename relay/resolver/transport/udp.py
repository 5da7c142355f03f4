"""DNS over UDP: a socket and a source port for each query, and TCP for what does not fit or looks wrong.

The socket is connected, so the kernel checks the source; the port is the kernel's random choice, the id is ours
(RFC 5452 §9). What does not fit the query is ignored, within a bound: a guesser gets few guesses.
"""

from __future__ import annotations

import asyncio
import secrets
import socket

import dns.exception
import dns.message
import dns.rcode

from relay.resolver.query import CookieJar, Mismatch, Query, Truncated, make_query
from relay.resolver.transport.shared import SharedConnection
from relay.resolver.upstream import Question
from relay.settings import Upstream

__all__ = ["UdpTransport", "connected_socket"]

_LARGEST = 65535
_MISMATCHES = 8
"Datagrams that fit nothing before the question is asked again by TCP."


class UdpTransport:
    """Asks one upstream by datagrams."""

    def __init__(
        self, upstream: Upstream, tcp: SharedConnection, cookies: CookieJar | None, *, is_mixed: bool
    ) -> None:
        """Keep what is needed.

        Args:
            upstream: whom to ask.
            tcp: for answers that do not fit.
            cookies: of this upstream, or None for none.
            is_mixed: ask with letters of random case.
        """
        self._upstream = upstream
        self._tcp = tcp
        self._cookies = cookies
        self._is_mixed = is_mixed

    async def ask(self, question: Question, *, has_edns: bool) -> dns.message.Message:
        """Ask once.

        Raises:
            OSError: the upstream cannot be reached.
            dns.exception.DNSException: the response is malformed or too long.
        """
        cookies = self._cookies if has_edns else None
        for _ in range(2):  # once more with the cookie that came with BADCOOKIE (RFC 7873 §5.3)
            query = make_query(question, has_edns=has_edns, cookies=cookies, is_mixed=self._is_mixed)
            try:
                message = await self._exchange(query, cookies)
            except (Truncated, Mismatch):
                break
            if message.rcode() != dns.rcode.BADCOOKIE:
                return message
        message = await self._tcp.ask(make_query(question, has_edns=has_edns, cookies=cookies))
        if cookies is not None:
            cookies.check(message, is_tcp=True)
        return message

    async def _exchange(self, query: Query, cookies: CookieJar | None) -> dns.message.Message:
        """Send, and receive until something fits.

        Raises:
            Truncated: the response was cut.
            Mismatch: too much came that does not fit, or a response without the cookie that it should have.
        """
        loop = asyncio.get_running_loop()
        ident = secrets.randbelow(1 << 16)
        with connected_socket(self._upstream) as sock:
            sock.send(query.with_id(ident))
            for _ in range(_MISMATCHES):
                data = await loop.sock_recv(sock, _LARGEST)
                try:
                    message = query.read(data, ident)
                except (Mismatch, dns.exception.FormError):
                    continue
                if cookies is not None and message.rcode() != dns.rcode.FORMERR:
                    cookies.check(message, is_tcp=False)
                return message
        raise Mismatch


def connected_socket(upstream: Upstream) -> socket.socket:
    """Make a UDP socket to an upstream, with a source port of its own.

    Raises:
        OSError: there is no route, or no port is left.
    """
    family = socket.AF_INET6 if upstream.address.version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.connect((str(upstream.address), upstream.port))
    except BaseException:
        sock.close()
        raise
    return sock
