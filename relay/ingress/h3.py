"""HTTP/3 clients: a session for each connection, and every request handed on as an exchange."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from masque.errors import ErrorCode
from masque.h3 import H3Connection, H3Limits
from masque.head import ResponseHead
from relay.exchange import EarlyLimits, Exchange
from relay.hooks import ConnectionContext, IPAddress
from relay.session import Session, Transport
from relay.telemetry import LimitName, Metric, Metrics

__all__ = ["ClientTransport", "H3Ingress", "OnExchange"]

OnExchange = Callable[[Exchange, ConnectionContext], None]
"Takes over a client's exchange; must answer it exactly once and not raise."


class ClientTransport(Transport, Protocol):
    """A client's QUIC connection."""

    @property
    def peer_certificate(self) -> bytes | None:
        """SHA-256 of the certificate that the client proved to own, once the handshake is complete."""


class H3Ingress:
    """The server side of HTTP/3."""

    def __init__(
        self,
        on_exchange: OnExchange,
        limits: H3Limits,
        early: EarlyLimits,
        buffer_limit: int,
        max_strangers: int,
        metrics: Metrics,
    ) -> None:
        """Hand every exchange to `on_exchange`.

        Args:
            on_exchange: takes over each exchange.
            limits: of each connection's HTTP/3.
            early: of each exchange before its answer.
            buffer_limit: bytes that the exchanges of a connection may buffer together.
            max_strangers: connections on which nobody was authenticated yet.
            metrics: where counts go.
        """
        self._on_exchange = on_exchange
        self._limits = limits
        self._early = early
        self._buffer_limit = buffer_limit
        self._metrics = metrics
        self._sessions: dict[Session, ConnectionContext] = {}
        self._strangers: dict[Session, ConnectionContext] = {}
        self._transports: dict[Session, ClientTransport] = {}
        self._max_strangers = max_strangers
        self._is_draining = False
        self.on_empty: Callable[[], None] | None = None
        "Called while draining, when the last session has ended."
        self.on_unused: Callable[[Session], None] | None = None
        "Called while draining, when the last exchange of a session has ended."

    @property
    def sessions(self) -> list[Session]:
        """The sessions now."""
        return list(self._sessions)

    @property
    def exchanges(self) -> int:
        """Exchanges now, over all sessions."""
        return sum(len(session.exchanges) for session in self._sessions)

    def accept(self, transport: ClientTransport, client: IPAddress, now: float) -> Session:
        """A new connection: make its session, which queues SETTINGS at once (RFC 9114 §3.2)."""
        machine = H3Connection(is_client=False, limits=self._limits)
        session = Session(transport, machine, self, self._early, self._buffer_limit, self._metrics)
        context = ConnectionContext(opened_at=now, client_address=client)
        self._sessions[session] = self._strangers[session] = context
        self._transports[session] = transport
        self._bound_strangers()
        return session

    def goaway(self, *, final: bool) -> None:
        """Tell all clients that the relay takes nothing new, or soon will not (RFC 9114 §5.2)."""
        self._is_draining = True
        for session in self.sessions:
            session.goaway(final=final)

    def close(self) -> None:
        """Close all connections; tunnels that are left end now."""
        for session in self.sessions:
            session.close(ErrorCode.H3_NO_ERROR)

    def exchange_ended(self, session: Session) -> None:
        """While draining, tell of a connection that has no exchange left."""
        if self._is_draining and not session.exchanges and not session.is_closed and self.on_unused is not None:
            self.on_unused(session)

    def _bound_strangers(self) -> None:
        """Close the oldest connection on which nobody was authenticated, when there are too many of them."""
        if len(self._strangers) <= self._max_strangers:
            return
        self._strangers = {session: context for session, context in self._strangers.items() if not context.is_known}
        if len(self._strangers) > self._max_strangers:
            oldest = next((session for session in self._strangers if session.is_established), None)
            if oldest is not None:
                del self._strangers[oldest]
                self._metrics.count(Metric.LIMITS_HIT, 1, LimitName.STRANGERS)
                oldest.close(ErrorCode.H3_EXCESSIVE_LOAD)

    # What sessions call.

    def request_received(self, session: Session, exchange: Exchange) -> None:
        """A client asks for something."""
        context = self._sessions.get(session)
        if context is not None:
            context.certificate = self._transports[session].peer_certificate
            exchange.on_end = lambda: self.exchange_ended(session)
            self._on_exchange(exchange, context)

    def response_received(self, session: Session, exchange: Exchange, head: ResponseHead) -> None:
        """A server gets no responses."""

    def session_ready(self, session: Session) -> None:
        """The client's SETTINGS arrived; nothing waits for them."""

    def session_draining(self, session: Session) -> None:
        """A client's GOAWAY concerns pushes, which we do not send (RFC 9114 §5.2)."""

    def session_closed(self, session: Session, code: int) -> None:
        """The connection is over."""
        self._sessions.pop(session, None)
        self._transports.pop(session, None)
        self._strangers.pop(session, None)
        if self._is_draining and not self._sessions and self.on_empty is not None:
            self.on_empty()
