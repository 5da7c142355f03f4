"""From an upstream's settings to the transport that speaks to it."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, assert_never

import anyio.abc
import dns.message

from relay.resolver.query import CookieJar, make_query
from relay.resolver.transport.connection import Connection
from relay.resolver.transport.https import connect_https
from relay.resolver.transport.quic import connect_quic
from relay.resolver.transport.shared import SharedConnection
from relay.resolver.transport.stream import connect_stream
from relay.resolver.transport.udp import UdpTransport
from relay.resolver.upstream import Question
from relay.settings import ResolverSettings, SettingsError, Upstream, UpstreamTransport

__all__ = ["Transport", "make_transport", "require_trust"]


class Transport(Protocol):
    """Asks one upstream."""

    async def ask(self, question: Question, *, has_edns: bool) -> dns.message.Message:
        """Ask once, and wait for as long as nobody cancels it.

        Raises:
            OSError: the upstream cannot be reached, or breaks its transport's rules.
            dns.exception.DNSException: the response is malformed or too long.
        """
        ...


class _StreamTransport:
    """Asks over a connection that is kept."""

    def __init__(self, connection: SharedConnection, cookies: CookieJar | None, *, is_padded: bool) -> None:
        self._connection = connection
        self._cookies = cookies
        self._is_padded = is_padded

    async def ask(self, question: Question, *, has_edns: bool) -> dns.message.Message:
        """Ask once."""
        cookies = self._cookies if has_edns else None
        query = make_query(question, has_edns=has_edns, is_padded=self._is_padded, cookies=cookies)
        message = await self._connection.ask(query)
        if cookies is not None:
            cookies.check(message, is_tcp=True)
        return message


def make_transport(upstream: Upstream, settings: ResolverSettings, tasks: anyio.abc.TaskGroup) -> Transport:
    """Make the transport of an upstream. It connects when the first question is asked.

    Args:
        upstream: whom to ask.
        settings: how.
        tasks: owns the tasks that receive.

    Raises:
        SettingsError: the certificates that the upstream's must lead to cannot be used.
    """
    idle = settings.connection_idle.total_seconds()
    cookies = CookieJar() if settings.cookies and not upstream.transport.is_encrypted else None
    connection = SharedConnection(_connector(upstream, idle), tasks)
    if upstream.transport is UpstreamTransport.UDP:
        return UdpTransport(upstream, connection, cookies, is_mixed=settings.mixed_case)
    return _StreamTransport(connection, cookies, is_padded=upstream.transport.is_encrypted)


def _connector(upstream: Upstream, idle: float) -> Callable[[], Awaitable[Connection]]:
    match upstream.transport:
        case UpstreamTransport.UDP | UpstreamTransport.TCP:
            return partial(connect_stream, upstream, None, idle)
        case UpstreamTransport.TLS:
            return partial(connect_stream, upstream, _context(upstream, "dot"), idle)
        case UpstreamTransport.HTTPS:
            return partial(connect_https, upstream, _context(upstream, "h2"), idle)
        case UpstreamTransport.QUIC:
            require_trust(upstream)
            return partial(connect_quic, upstream, idle)
        case _:
            assert_never(upstream.transport)


def require_trust(upstream: Upstream) -> None:
    """Check that an upstream's certificate can be checked.

    Raises:
        SettingsError: its file of certificates cannot be read, or holds none.
    """
    if upstream.transport.is_encrypted:
        _context(upstream, "dot")


def _context(upstream: Upstream, protocol: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=upstream.ca_file)
    except ssl.SSLError:
        raise SettingsError(f"resolver: {upstream.ca_file} holds no certificate in PEM") from None
    except OSError as error:
        raise SettingsError(f"resolver: cannot read {upstream.ca_file}: {error.strerror}") from None
    context.set_alpn_protocols([protocol])
    return context
