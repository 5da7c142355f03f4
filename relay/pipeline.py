"""One exchange's life, phase by phase: the only caller of hooks, and the only place that decides its outcome.

Parse the request, then authenticate, authorize, resolve, check addresses, choose egress and connect, answer, and
run the tunnel until it is over. Each exchange is one task and has exactly one outcome: a refusal (an HTTP status)
or a tunnel's end. What a phase raises that it should not is a PROXY_INTERNAL_ERROR of this exchange alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import TypeVar

from masque.connect import ConnectRequest
from masque.connect_udp import connect_udp_response_fields
from masque.errors import ErrorCode, RequestRejected
from masque.head import Fields, ResponseHead
from masque.request import TunnelRequest, parse_request
from masque.template import Template
from relay.errors import Failure, FailureKind, RelayError, Side
from relay.exchange import Exchange
from relay.hooks import (
    ConnectionContext,
    EgressBinding,
    ExchangeContext,
    HookChain,
    IPAddress,
    Reject,
    TunnelKind,
)
from relay.outcome import Outcome, accepted_fields, http_status, metric_label, response_fields
from relay.poller import Poller
from relay.telemetry import LimitName, Metric, Metrics, get_logger
from relay.tunnels import Dialer, TcpSplice, Tunnel, TunnelLimits, UdpRelay

__all__ = ["Pipeline", "PipelineLimits"]

T = TypeVar("T")

_log = get_logger()


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """Bounds of the phases and of the tunnels they lead to."""

    decide: float
    "Seconds for authentication, policy and resolving."
    connect: float
    "Seconds for connecting, over all addresses."
    tcp: TunnelLimits
    "Bounds of TCP tunnels."
    udp: TunnelLimits
    "Bounds of UDP tunnels."


class Pipeline:
    """Runs exchanges. One pipeline serves all connections of a worker."""

    def __init__(
        self,
        chain: HookChain,
        templates: Sequence[Template],
        identity: str,
        limits: PipelineLimits,
        dialer: Dialer,
        poller: Poller,
        tasks: asyncio.TaskGroup,
        metrics: Metrics,
    ) -> None:
        """Make a pipeline.

        Args:
            chain: all hooks, in order.
            templates: where CONNECT-UDP is served.
            identity: the relay's name in Proxy-Status.
            limits: bounds.
            dialer: connects to targets.
            poller: of the loop that runs the tasks.
            tasks: owns the exchanges' tasks.
            metrics: where outcomes are counted.
        """
        self._chain = chain
        self._templates = templates
        self._identity = identity
        self._limits = limits
        self._dialer = dialer
        self._poller = poller
        self._tasks = tasks
        self._metrics = metrics

    def start(self, exchange: Exchange, connection: ConnectionContext) -> None:
        """Take over a client's exchange."""
        self._tasks.create_task(self._run(exchange, connection))

    async def _run(self, exchange: Exchange, connection: ConnectionContext) -> None:
        """One exchange, from its head to its one outcome."""
        context: ExchangeContext | None = None
        try:
            if exchange.is_aborted:
                raise RelayError(Failure(FailureKind.CLIENT_ABORTED, Side.CLIENT))
            # Not before: a task cancelled before its first step never gets to clean up.
            exchange.on_abort = partial(_cancel, asyncio.current_task())
            request = parse_request(exchange.head, self._templates)
            kind = TunnelKind.TCP if isinstance(request, ConnectRequest) else TunnelKind.UDP
            context = ExchangeContext(connection=connection, kind=kind, head=exchange.head, target=request.target)
            tunnel = await self._open(exchange, context, request)
        except RequestRejected as error:
            self._refuse(exchange, Failure(FailureKind.HTTP_REQUEST_ERROR, Side.CLIENT, status=error.status))
        except RelayError as error:
            self._refuse(exchange, error.failure, _aliases(context))
        except asyncio.CancelledError:
            if not exchange.is_aborted:
                raise  # the relay stops; connections are closed by whoever cancels
            self._refuse(exchange, Failure(FailureKind.CLIENT_ABORTED, Side.CLIENT))
        except Exception as exc:  # noqa: BLE001 - a fault here costs this exchange only
            _log.error("exchange_failed", exception_type=type(exc).__name__)
            self._refuse(exchange, Failure(FailureKind.PROXY_INTERNAL_ERROR, Side.RELAY, cause=exc))
        else:
            await self._follow(tunnel, context)
        finally:
            if context is not None:
                self._chain.exchange_ended(context)

    async def _open(self, exchange: Exchange, context: ExchangeContext, request: TunnelRequest) -> Tunnel:
        """All phases up to the answer.

        Raises:
            RelayError: the exchange is refused.
        """
        try:
            async with asyncio.timeout(self._limits.decide):
                addresses = await self._decide(context)
        except TimeoutError:
            self._metrics.count(Metric.LIMITS_HIT, 1, LimitName.DECIDE)
            raise RelayError(Failure(FailureKind.PROXY_INTERNAL_ERROR, Side.RELAY, context="decide")) from None
        if context.kind is TunnelKind.TCP:
            return await self._open_tcp(exchange, context, addresses)
        return await self._open_udp(exchange, context, addresses)

    async def _decide(self, context: ExchangeContext) -> tuple[IPAddress, ...]:
        """The deciding phases: may it be, and where does it go?"""
        chain = self._chain
        _unless_rejected(await chain.authenticate(context))
        context.connection.is_known = True
        _unless_rejected(await chain.authorize(context))
        resolution = _unless_rejected(await chain.resolve(context))
        return _unless_rejected(await chain.check_addresses(context, resolution.addresses))

    async def _open_tcp(
        self, exchange: Exchange, context: ExchangeContext, addresses: tuple[IPAddress, ...]
    ) -> Tunnel:
        """Connect, answer, splice (RFC 9110 §9.3.6: the 2xx says that the connection exists)."""

        turn = asyncio.Lock()
        chosen: dict[IPAddress, EgressBinding] = {}

        async def choose(address: IPAddress) -> EgressBinding:
            async with turn:  # attempts run side by side, and hooks see the choice so far in the one context
                chosen[address] = _unless_rejected(await self._chain.choose_egress(context, address))
                return chosen[address]

        sock = await self._dialer.connect(addresses, context.target.port, choose, self._limits.connect)
        try:
            context.egress = chosen.get(ip_address(sock.getpeername()[0]))
        except OSError:
            pass  # the target has reset already; the tunnel will find out
        if exchange.is_aborted:
            sock.close()
            raise RelayError(Failure(FailureKind.CLIENT_ABORTED, Side.CLIENT))
        self._accept(exchange, context, ())
        return TcpSplice(exchange, sock, self._poller, self._limits.tcp, self._metrics)

    async def _open_udp(
        self, exchange: Exchange, context: ExchangeContext, addresses: tuple[IPAddress, ...]
    ) -> Tunnel:
        """Make a connected socket to the first address that has a route, and answer (RFC 9298 §3.1)."""

        async def choose(address: IPAddress) -> EgressBinding:
            return _unless_rejected(await self._chain.choose_egress(context, address))

        try:
            async with asyncio.timeout(self._limits.connect):
                sock = await self._dialer.open(addresses, context.target.port, choose)
        except TimeoutError:
            raise RelayError(Failure(FailureKind.PROXY_INTERNAL_ERROR, Side.RELAY, context="choose_egress")) from None
        if exchange.is_aborted:
            sock.close()
            raise RelayError(Failure(FailureKind.CLIENT_ABORTED, Side.CLIENT))
        self._accept(exchange, context, connect_udp_response_fields())
        return UdpRelay(exchange, sock, self._poller, self._limits.udp, self._metrics)

    def _accept(self, exchange: Exchange, context: ExchangeContext, fields: Fields) -> None:
        """Answer 200. From here on the tunnel, and not this task, learns of an abort."""
        exchange.on_abort = None
        remark = None if context.egress is None else context.egress.remark
        told = accepted_fields(self._identity, _aliases(context), remark)
        exchange.respond(ResponseHead(200, (*fields, *told)))

    def _refuse(self, exchange: Exchange, failure: Failure, aliases: tuple[str, ...] = ()) -> None:
        """Answer with the failure's status, or nothing when the client is gone."""
        exchange.on_abort = None
        try:
            self._answer(exchange, failure, aliases)
        except Exception as exc:  # noqa: BLE001 - an application's failure that no response can carry
            _log.error("exchange_failed", exception_type=type(exc).__name__)
            exchange.abort(ErrorCode.H3_INTERNAL_ERROR)

    def _answer(self, exchange: Exchange, failure: Failure, aliases: tuple[str, ...]) -> None:
        label = metric_label(Outcome(failure))
        self._metrics.count(Metric.REQUESTS_REFUSED, 1, label)
        if failure.kind is FailureKind.CONNECTION_TIMEOUT:
            self._metrics.count(Metric.LIMITS_HIT, 1, LimitName.CONNECT)
        _log.debug("exchange_refused", outcome=label.value)
        if exchange.is_over:
            return
        if failure.kind is FailureKind.CLIENT_ABORTED or exchange.is_answered or exchange.is_aborted:
            exchange.abort(ErrorCode.H3_REQUEST_CANCELLED)
            return
        fields = response_fields(failure, self._identity, aliases)
        exchange.respond(ResponseHead(http_status(failure), fields), fin=True)

    async def _follow(self, tunnel: Tunnel, context: ExchangeContext) -> None:
        """The tunnel's life: hooks hear of both ends, metrics count both."""
        self._metrics.count(Metric.TUNNELS_OPENED, 1, tunnel.kind)
        self._metrics.count(Metric.TUNNELS_ACTIVE, 1, tunnel.kind)
        context.tunnel = tunnel
        self._chain.tunnel_opened(context)
        try:
            await asyncio.shield(tunnel.closed)
        finally:
            tunnel.close(Outcome.failed(FailureKind.RELAY_DRAINING, Side.RELAY))  # only when cancelled; else it is
            outcome = tunnel.closed.result()
            self._metrics.count(Metric.TUNNELS_ACTIVE, -1, tunnel.kind)
            self._metrics.count(Metric.TUNNELS_CLOSED, 1, tunnel.kind, metric_label(outcome))
            _log.debug("tunnel_closed", kind=tunnel.kind.value, outcome=metric_label(outcome).value)
            self._chain.tunnel_closed(context, outcome)


def _aliases(context: ExchangeContext | None) -> tuple[str, ...]:
    """The names that the target's name is an alias of, as far as it was resolved."""
    return () if context is None or context.resolution is None else context.resolution.aliases


def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()


def _unless_rejected(verdict: T | Reject) -> T:
    """The value that a chain answered with. Raises RelayError for a rejection."""
    if isinstance(verdict, Reject):
        raise RelayError(verdict.failure)
    return verdict
