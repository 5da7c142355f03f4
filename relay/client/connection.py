"""One HTTP/3 connection to a relay, and tunnels on it (RFC 9114 §4.4, RFC 9298).

    async with connect_relay(RelayOptions("https://relay.example", key="...")) as client:
        stream = await client.open_tcp("example.com", 80)
        await stream.send(b"GET / HTTP/1.0\\r\\n\\r\\n")

Works against any server that speaks CONNECT or CONNECT-UDP over HTTP/3. Names are sent to the relay as they are;
only the relay's own name is resolved here, by the system.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import anyio

from masque.connect import check_connect_response, connect_head
from masque.connect_udp import check_connect_udp_response, connect_udp_head
from masque.errors import ErrorCode, LocalMisuse, MasqueError
from masque.fields import get_field, get_fields
from masque.h3 import H3Connection, H3Limits
from masque.head import Fields, RequestHead, ResponseHead
from masque.template import DEFAULT_UDP_TEMPLATE, Template
from relay.client.failure import ClientError
from relay.client.flows import TunnelStream, UdpFlow
from relay.client.spending import Attempt, Spender
from relay.client.tokens import TokenSource
from relay.exchange import EarlyLimits, Exchange
from relay.poller import Poller
from relay.quic.endpoint import ClientEndpoint
from relay.quic.engine import (
    Address,
    Certificate,
    ClientOptions,
    EngineError,
    EngineName,
    TransportLimits,
    load_factory,
)
from relay.quic.socket import connect_udp
from relay.session import Session
from relay.telemetry import NoMetrics

__all__ = [
    "RelayClient",
    "RelayOptions",
    "connect_relay",
    "explain_no_connection",
    "relay_origin",
    "resolve_relay",
    "split_relay_url",
]


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """Which relay, and how."""

    url: str
    "`https://host[:port]`; the port is 443 by default."
    key: str | None = field(default=None, repr=False)
    "A key of the Preshared scheme."
    authorization: str | None = field(default=None, repr=False)
    "A whole Proxy-Authorization value, instead of `key`."
    tokens: TokenSource | None = field(default=None, repr=False)
    "Tokens to spend when the relay asks for them, instead of `key`."
    ca_file: Path | None = None
    "PEM file of trusted authorities; None trusts the system's."
    is_verified: bool = True
    "False accepts any certificate. Only for tests."
    certificate: Certificate | None = None
    "What to prove ourselves by when the relay asks for a certificate."
    engine: EngineName = EngineName.QH3
    "The QUIC library."
    udp_template: str = DEFAULT_UDP_TEMPLATE
    "The relay's template of CONNECT-UDP."
    timeout: float = 10.0
    "Seconds for connecting to the relay, and for each tunnel's answer."
    limits: TransportLimits = field(default_factory=TransportLimits)
    "What our side of the connection announces and keeps."
    wants_datagrams: bool = True
    "False does not announce H3_DATAGRAM: UDP payloads then travel in capsules."

    fields: Fields = field(default=(), repr=False)
    "Field lines that every request has besides, such as a location hint (`masque.geo`)."

    @property
    def credentials(self) -> Fields:
        """The field lines that authenticate."""
        if self.authorization is not None:
            return ((b"proxy-authorization", self.authorization.encode()),)
        if self.key is not None:
            return ((b"proxy-authorization", b"Preshared " + self.key.encode()),)
        return ()


class RelayClient:
    """A connection to a relay. Made by `connect_relay`."""

    def __init__(self, options: RelayOptions, authority: str, endpoint: ClientEndpoint, poller: Poller) -> None:
        """Put an HTTP/3 session on the endpoint's link."""
        self.options = options
        self.poller = poller
        self._authority = authority.encode()
        self._spender = None if options.tokens is None else Spender(options.tokens, relay_origin(options.url))
        self._template = Template(options.udp_template)
        self._endpoint = endpoint
        self._next_stream = 0
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers: dict[Exchange, asyncio.Future[ResponseHead]] = {}
        self.closed = asyncio.Event()
        "Set when the connection is over."
        self._end: str | None = None
        "Why the connection ended."
        self.is_draining = False
        "True once the relay takes no new tunnels on this connection."
        machine = H3Connection(is_client=True, limits=H3Limits(), enable_datagram=options.wants_datagrams)
        self.session = Session(endpoint.link, machine, self, EarlyLimits(1 << 20, 1024), 32 << 20, NoMetrics())
        endpoint.link.handler = self.session
        endpoint.link.touch()

    @property
    def is_usable(self) -> bool:
        """True while new tunnels can be opened."""
        return not self.session.is_closed and not self.is_draining

    async def ready(self) -> None:
        """Wait for the relay's SETTINGS. Raises ClientError when the connection ends first."""
        await asyncio.shield(self._ready)

    async def open_tcp(self, host: str, port: int) -> TunnelStream:
        """Open a TCP tunnel.

        Args:
            host: the target's name or address; the relay resolves names.
            port: the target's port.

        Raises:
            ClientError: the relay refused, did not answer in time, or is gone.
            masque.errors.LocalMisuse: the host or port is not valid.
        """
        return TunnelStream(await self.open_tcp_exchange(host, port))

    async def open_udp(self, host: str, port: int) -> UdpFlow:
        """Open a UDP tunnel; arguments and errors as `open_tcp`."""
        return UdpFlow(await self.open_udp_exchange(host, port))

    async def open_tcp_exchange(self, host: str, port: int) -> Exchange:
        """Open a TCP tunnel and return its exchange without a sink, for a splice of one's own."""

        async def attempt(fields: Fields) -> Exchange:
            return await self._open(connect_head(host, port, (*fields, *self.options.fields)), is_udp=False)

        return await self._admit(attempt)

    async def open_udp_exchange(self, host: str, port: int) -> Exchange:
        """Open a UDP tunnel and return its exchange without a sink."""

        async def attempt(fields: Fields) -> Exchange:
            head = connect_udp_head(self._template, self._authority, host, port, (*fields, *self.options.fields))
            return await self._open(head, is_udp=True)

        return await self._admit(attempt)

    def close(self) -> None:
        """Close the connection; open tunnels end."""
        self.session.close(ErrorCode.H3_NO_ERROR)

    async def _admit(self, attempt: Attempt) -> Exchange:
        """Ask for a tunnel with the credentials that the options have."""
        if self._spender is not None:
            return await self._spender.open(attempt)
        return await attempt(self.options.credentials)

    async def _open(self, head: RequestHead, *, is_udp: bool) -> Exchange:
        if self._end is not None:
            raise ClientError(self._end)
        if not self.is_usable:
            raise ClientError("the connection to the relay takes no new tunnels")
        settings = self.session.machine.peer_settings
        if is_udp and settings is not None and not settings.enable_connect_protocol:
            raise ClientError("the relay has no extended CONNECT (RFC 9220)")
        stream_id, self._next_stream = self._next_stream, self._next_stream + 4
        try:
            exchange = self.session.request(stream_id, head)
        except LocalMisuse as error:
            raise ClientError("the relay is going away") from error
        answer: asyncio.Future[ResponseHead] = asyncio.get_running_loop().create_future()
        self._answers[exchange] = answer
        exchange.on_abort = lambda: _fail(answer, ClientError("the relay ended the request"))
        try:
            async with asyncio.timeout(self.options.timeout):
                response = await answer
            (check_connect_udp_response if is_udp else check_connect_response)(response)
        except MasqueError as error:
            exchange.abort(ErrorCode.H3_REQUEST_CANCELLED)
            raise _refused(exchange.response, error) from None
        except TimeoutError:
            exchange.abort(ErrorCode.H3_REQUEST_CANCELLED)
            raise ClientError(f"no answer from the relay in {self.options.timeout:g} seconds") from None
        except BaseException:
            exchange.abort(ErrorCode.H3_REQUEST_CANCELLED)
            raise
        finally:
            self._answers.pop(exchange, None)
            exchange.on_abort = None
        return exchange

    # What the session calls.

    def request_received(self, session: Session, exchange: Exchange) -> None:
        """A client gets no requests."""

    def response_received(self, session: Session, exchange: Exchange, head: ResponseHead) -> None:
        """The relay answered; interim responses only show that it lives."""
        answer = self._answers.get(exchange)
        if answer is not None and head.status >= 200 and not answer.done():
            answer.set_result(head)

    def session_ready(self, session: Session) -> None:
        """The relay's SETTINGS arrived."""
        if not self._ready.done():
            self._ready.set_result(None)

    def session_draining(self, session: Session) -> None:
        """The relay sent GOAWAY: open tunnels go on, new ones need a new connection (RFC 9114 §5.2)."""
        self.is_draining = True

    def session_closed(self, session: Session, code: int) -> None:
        """The connection is over."""
        error = ClientError(f"the connection to the relay ended (code {code:#x})")
        if not self._ready.done() or _FIRST_ALERT <= code <= _LAST_ALERT:
            error = ClientError(explain_no_connection(code, has_certificate=self.options.certificate is not None))
        self._end = str(error)
        _fail(self._ready, error)
        for answer in self._answers.values():
            _fail(answer, error)
        self.closed.set()


_FIRST_ALERT, _LAST_ALERT = 0x128, 0x1FF
"The codes of TLS alerts that end a handshake (RFC 9001 §4.8), from handshake_failure on; HTTP/3 has none of these."
_CERTIFICATE_REQUIRED = 0x100 + 116


def explain_no_connection(code: int, *, has_certificate: bool = False) -> str:
    """Say what it means that a connection ended with this code before it was one.

    A relay looks at a client's certificate when the client's own handshake is complete already.

    Args:
        code: of the CONNECTION_CLOSE.
        has_certificate: whether we have sent a certificate of ours.
    """
    if code == 0:
        return "no relay answers at that address and UDP port"
    if code == _CERTIFICATE_REQUIRED:
        return "the relay wants a certificate of its clients"
    if has_certificate and _FIRST_ALERT <= code <= _LAST_ALERT:
        alert = code - 0x100
        return f"the TLS handshake with the relay failed (alert {alert}); are both sides' certificates trusted there?"
    if 0x100 <= code <= 0x1FF:
        return f"the TLS handshake with the relay failed (alert {code - 0x100}); is its certificate trusted here?"
    return f"the relay closed the connection at once (code {code:#x})"


def _fail(future: asyncio.Future[ResponseHead] | asyncio.Future[None], error: ClientError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # whoever waits sees it; nobody else has to


def _refused(response: ResponseHead | None, error: MasqueError) -> ClientError:
    if response is None:
        return ClientError(error.detail)
    value = get_field(response.fields, b"proxy-status")
    text = None if value is None else value.decode("ascii", "replace")
    return ClientError(
        f"the relay answered {response.status}",
        status=response.status,
        proxy_status=text,
        challenges=tuple(get_fields(response.fields, b"proxy-authenticate")),
    )


@contextlib.asynccontextmanager
async def connect_relay(options: RelayOptions, poller: Poller | None = None) -> AsyncIterator[RelayClient]:
    """Connect to a relay and wait for its SETTINGS; the connection closes with the context.

    Args:
        options: which relay, and how.
        poller: the loop's poller when there is one already; else one is made and closed.

    Raises:
        ClientError: the relay cannot be reached in time, or its certificate is not accepted.
    """
    loop = asyncio.get_running_loop()
    own = poller is None
    poller = poller or Poller(loop)
    try:
        client = await _connect(options, poller, loop)
        try:
            yield client
        finally:
            client.close()
            with anyio.move_on_after(1.0, shield=True):
                await client.closed.wait()
            poller.drain()
            client._endpoint.close()
    finally:
        if own:
            poller.close()


async def _connect(options: RelayOptions, poller: Poller, loop: asyncio.AbstractEventLoop) -> RelayClient:
    host, port, authority = split_relay_url(options.url)
    address = await resolve_relay(host, port)
    server_name = host
    try:
        factory = load_factory(options.engine, options.limits, None)
        engine = factory.client(
            ClientOptions(server_name, options.ca_file, options.is_verified, certificate=options.certificate),
            address,
            poller.refresh(),
        )
    except EngineError as error:
        raise ClientError(str(error)) from error
    try:
        sock = connect_udp(address[0], address[1])
    except OSError as error:
        raise ClientError(f"cannot reach the relay: {error.strerror}") from error
    endpoint = ClientEndpoint(sock, engine, poller, loop, NoMetrics())
    client = RelayClient(options, authority, endpoint, poller)
    try:
        async with asyncio.timeout(options.timeout):
            await client.ready()
    except TimeoutError:
        endpoint.link.abandon()
        raise ClientError(f"the relay did not answer in {options.timeout:g} seconds") from None
    except BaseException:
        endpoint.link.abandon()
        raise
    return client


def split_relay_url(text: str) -> tuple[str, int, str]:
    """Host, port and authority of the relay's URL. Raises ClientError."""
    try:
        url = urlsplit(text)
        if url.scheme == "https" and url.hostname:
            return url.hostname, url.port or 443, url.netloc.rpartition("@")[2]
    except ValueError:
        pass
    raise ClientError("the relay's URL must be https://host[:port]")


def relay_origin(text: str) -> str:
    """The relay's name as challenges have it: a host, with a port when it is not 443. Raises ClientError."""
    host, port, _ = split_relay_url(text)
    host = f"[{host}]" if ":" in host else host
    return host if port == 443 else f"{host}:{port}"


async def resolve_relay(host: str, port: int) -> Address:
    """The relay's address, by the system's resolver. Raises ClientError."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        try:
            found = await anyio.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise ClientError("the relay's name cannot be resolved") from error
        return found[0][4][0], port
    return host, port
