"""The composition root of one worker: makes every part from the settings and joins them.

Nothing else builds two rooms together. A server starts, serves until it is told to drain, and ends with nothing
left open.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from masque.h3 import H3Limits
from masque.template import Template
from relay.auth import TokenGate, TokenParts, auth_hooks, certificate_hooks, prepare_tokens
from relay.egress import Egress, StatusSocket, bind_status, describe_plan, serving_status
from relay.exchange import EarlyLimits, Exchange
from relay.hooks import Application, ConnectionContext, HookChain, Hooks
from relay.ingress import Drain, H3Ingress
from relay.pipeline import Pipeline, PipelineLimits
from relay.policy import OwnAddresses, PolicyGate, Rule, RuleSet, probe_local_routes, read_rules
from relay.poller import Poller
from relay.quic.certificate import check_certificate
from relay.quic.endpoint import ServerEndpoint
from relay.quic.engine import (
    Address,
    Certificate,
    ClientCheck,
    EngineFactory,
    EngineName,
    TransportLimits,
    load_factory,
)
from relay.quic.link import Link, LinkHandler
from relay.quic.socket import UdpSocket, bind_udp
from relay.quota import quota_hooks
from relay.resolver import Resolver, check_resolver_files, require_trust, resolver_hooks
from relay.settings import (
    PolicySettings,
    Settings,
    SettingsError,
    Upstream,
    require_certificate,
    resolver_routes,
    resolver_upstreams,
)
from relay.telemetry import Metrics, get_logger
from relay.tunnels import Dialer, TunnelLimits

__all__ = ["Server", "Startup", "own_addresses", "prepare"]

_log = get_logger()

_RESET_KEY_SIZE = 32
"Bytes of a key for stateless reset tokens, at least."


@dataclass(frozen=True, slots=True)
class Startup:
    """What can fail before anything serves: the socket and the certificate, ready."""

    settings: Settings
    "The effective settings."
    socket: UdpSocket
    "Bound to the listening address."
    certificate: Certificate
    "Readable, and of one kind with its key."
    clients: ClientCheck | None
    "How clients' certificates are checked; None does not ask for them."
    transport: TransportLimits
    "What QUIC connections announce and keep."
    factory: EngineFactory
    "Makes connections with the certificate."
    upstreams: tuple[Upstream, ...]
    "The resolvers to ask; none when the relay asks the authoritative servers itself."
    routes: Mapping[str, tuple[Upstream, ...]]
    "Those to ask for names below a suffix, by suffix."
    rules: tuple[Rule, ...]
    "The policy's rules."
    egress: Egress
    "The addresses to leave from."
    tokens: TokenParts | None = None
    "What clients are admitted by tokens with; None when no issuer is set."
    status: StatusSocket | None = None
    "Where the operator may ask about egress addresses."


def prepare(settings: Settings) -> Startup:
    """Check the certificate, read keys and bind the socket.

    Raises:
        relay.settings.SettingsError: a certificate or key is not set, no resolver is known, or the key of stateless
            resets, a resolver's files, the policy's rules, the egress pools or something that tokens need cannot be
            used.
        relay.quic.engine.EngineError: the certificate, its key or the clients' authorities cannot be used.
        OSError: the address cannot be bound.
    """
    certificate = Certificate(*require_certificate(settings))
    check_certificate(certificate)
    transport = transport_limits(settings, _reset_key(settings.quic.reset_key))
    clients = client_check(settings)
    factory = load_factory(EngineName(settings.quic.engine), transport, certificate, clients)
    upstreams, routes = resolver_upstreams(settings), resolver_routes(settings)
    for upstream in (*upstreams, *chain(*routes.values())):
        require_trust(upstream)
    check_resolver_files(settings.resolver)
    rules = read_rules(settings.policy)
    if settings.auth.open and settings.tokens.issuers:
        raise SettingsError("auth.open, tokens.issuers: the first admits everybody without a token; set one of them")
    tokens = prepare_tokens(settings.tokens, time.time)  # noqa: TID251 - contexts and keys go by the calendar
    egress = Egress(settings.egress, tells_subnet=settings.resolver.client_subnet)
    quic = settings.quic
    sock = bind_udp(settings.listen.host, settings.listen.port, quic.receive_buffer, quic.send_buffer)
    try:
        status = None if settings.egress.status is None else bind_status(settings.egress.status)
    except SettingsError:
        sock.close()
        raise
    return Startup(
        settings, sock, certificate, clients, transport, factory, upstreams, routes, rules, egress, tokens, status
    )


def client_check(settings: Settings) -> ClientCheck | None:
    """How clients' certificates are checked; None does not ask for them."""
    tls = settings.tls
    if tls.client_certificates == "off" or tls.client_ca is None:
        return None
    return ClientCheck(tls.client_ca, is_required=tls.client_certificates == "required")


def transport_limits(settings: Settings, reset_key: bytes | None) -> TransportLimits:
    """What QUIC connections announce and keep; without a reset key, one that lives as long as this process."""
    return TransportLimits(
        max_datagram_size=settings.quic.max_datagram_size,
        idle=settings.limits.idle.total_seconds(),
        streams=settings.limits.streams,
        datagram_queue=settings.limits.datagram_queue,
        reset_key=reset_key or os.urandom(_RESET_KEY_SIZE),
    )


def _reset_key(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        key = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"quic.reset_key: cannot read {path}: {error.strerror}") from error
    if len(key) < _RESET_KEY_SIZE:
        raise SettingsError(f"quic.reset_key: {path} must hold at least {_RESET_KEY_SIZE} random bytes")
    return key


def own_addresses(settings: Settings, address: Address, egress: Egress | None = None) -> OwnAddresses:
    """What tunnels may not lead back to, of a relay that listens at an address and leaves from some.

    Nothing at all when `policy.allow_own` is set. Without `egress`, the pools are read.

    Raises:
        relay.settings.SettingsError: the pools cannot be used.
    """
    if settings.policy.allow_own:
        return OwnAddresses()
    listener = ipaddress.ip_address(address[0].partition("%")[0])
    is_local = probe_local_routes()
    if is_local is None:
        _log.warning("own_addresses_unknown")
    networks = list((egress or Egress(settings.egress)).own_addresses())
    if not listener.is_unspecified:
        networks.append(ipaddress.ip_network(listener))
    return OwnAddresses(networks, (listener, address[1]), is_local)


def pipeline_limits(settings: Settings) -> PipelineLimits:
    """What the phases and tunnels keep."""
    limits = settings.limits

    def tunnel(idle: float) -> TunnelLimits:
        return TunnelLimits(
            idle=idle,
            buffer=limits.tunnel_buffer,
            backlog=max(64 << 10, limits.tunnel_buffer // 8),
            write_stall=limits.write_stall.total_seconds(),
            capsule=limits.capsule,
        )

    return PipelineLimits(
        decide=limits.decide.total_seconds(),
        connect=limits.connect.total_seconds(),
        tcp=tunnel(limits.tcp_idle.total_seconds()),
        udp=tunnel(limits.udp_idle.total_seconds()),
    )


class Server:
    """One worker: serves `Startup.socket` on the running loop."""

    def __init__(self, startup: Startup, metrics: Metrics, applications: Sequence[Application] = ()) -> None:
        """Keep what is needed; `run` starts.

        Args:
            startup: from `prepare`.
            metrics: where counts go.
            applications: asked for their hooks, in order, before the built-in ones.
        """
        self.settings = startup.settings
        self.metrics = metrics
        self._certificate = startup.certificate
        self._clients = startup.clients
        self._socket = startup.socket
        self._transport = startup.transport
        self._factory = startup.factory
        self._upstreams = startup.upstreams
        self._status = startup.status
        self.egress = startup.egress
        self.egress.metrics = metrics
        self._own = own_addresses(startup.settings, startup.socket.address, self.egress)
        self._routes = startup.routes
        self._policy = PolicyGate(RuleSet(startup.rules, self._own))
        self._applications = applications
        self._tokens = None if startup.tokens is None else TokenGate(startup.tokens, metrics)
        self._stop = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._endpoint: ServerEndpoint | None = None
        self._ingress: H3Ingress | None = None
        self.is_ready = asyncio.Event()
        "Set when packets are being received."

    @property
    def address(self) -> Address:
        """Where the relay listens."""
        return self._socket.address

    @property
    def connections(self) -> int:
        """Connections now."""
        return 0 if self._endpoint is None else self._endpoint.connections

    @property
    def exchanges(self) -> int:
        """Exchanges now, tunnels included."""
        return 0 if self._ingress is None else self._ingress.exchanges

    def stop(self) -> None:
        """Drain: no new connections, GOAWAY, tunnels get their time; `run` then returns."""
        self._stop.set()

    def reload_certificate(self) -> None:
        """Read the certificate, its key and the clients' authorities again, for connections from now on; the old ones
        stay on error.

        Raises:
            relay.quic.engine.EngineError: the new ones cannot be used.
        """
        check_certificate(self._certificate)
        engine = EngineName(self.settings.quic.engine)
        factory = load_factory(engine, self._transport, self._certificate, self._clients)
        self._factory = factory
        if self._endpoint is not None:
            self._endpoint.factory = factory

    async def reload_keys(self) -> bool:
        """Read the files of issuers' keys again, and fetch their directories; on error the keys so far stay.

        Returns:
            Whether there is an issuer.

        Raises:
            relay.settings.SettingsError: a file cannot be used.
        """
        if self._tokens is not None:
            await self._tokens.reload()
        return self._tokens is not None

    async def reload_egress(self) -> None:
        """Read the file of `egress.file` again; the pools and the quarantine so far stay on error.

        Raises:
            relay.settings.SettingsError: the file cannot be used.
        """
        async with self._reloading:
            await self.egress.reload()
            self._own = own_addresses(self.settings, self.address, self.egress)
            rules = self._policy.rules.rules
            self._policy.rules = await asyncio.to_thread(RuleSet, rules, self._own)

    async def reload_policy(self, settings: PolicySettings) -> int:
        """Hold exchanges to other rules from now on; tunnels that run stay. The rules in force stay on error.

        Args:
            settings: the policy's branch; its `allow_own` is not looked at again.

        Returns:
            How many rules are in force now.

        Raises:
            SettingsError: the rules cannot be used.
        """
        async with self._reloading:
            rules = await asyncio.to_thread(lambda: RuleSet(read_rules(settings), self._own))
            self._policy.rules = rules
        return len(rules.rules)

    async def run(self) -> None:
        """Serve until `stop`, then drain and return."""
        async with Resolver(self.settings.resolver, self._upstreams, self._routes, metrics=self.metrics) as resolver:
            await self._serve(resolver)

    async def _serve(self, resolver: Resolver) -> None:
        settings = self.settings
        loop = asyncio.get_running_loop()
        hooks = await self._hooks(resolver)
        poller = Poller(loop)
        try:
            async with (
                serving_status(self._status, lambda: describe_plan(self.egress.plan)),
                asyncio.TaskGroup() as tasks,
            ):
                pipeline = Pipeline(
                    HookChain(hooks, self.metrics),
                    [Template(text) for text in settings.templates.udp],
                    settings.identity,
                    pipeline_limits(settings),
                    Dialer.of(settings.dial, loop.time),
                    poller,
                    tasks,
                    self.metrics,
                )

                def start(exchange: Exchange, connection: ConnectionContext) -> None:
                    if connection.get(Resolver) is None:
                        connection.put(resolver)  # hooks may look up more than the target's addresses
                    pipeline.start(exchange, connection)

                ingress = self._ingress = H3Ingress(
                    start,
                    H3Limits(field_section=settings.limits.field_section),
                    EarlyLimits(settings.limits.early_data, settings.limits.early_datagrams),
                    settings.limits.connection_buffer,
                    settings.limits.strangers,
                    self.metrics,
                )
                gate = None if self._tokens is None else tasks.create_task(self._tokens.run())
                endpoint = self._listen(ingress, poller, loop)
                self.is_ready.set()
                await self._stop.wait()
                endpoint.is_accepting = False
                await Drain(ingress, settings.limits.drain.total_seconds(), self.metrics).run()
                await endpoint.quiet()
                if gate is not None:
                    gate.cancel()
        finally:
            if self._endpoint is not None:
                self._endpoint.close()
            poller.close()

    def _listen(self, ingress: H3Ingress, poller: Poller, loop: asyncio.AbstractEventLoop) -> ServerEndpoint:
        settings = self.settings

        def accept(link: Link, address: Address) -> LinkHandler:
            return ingress.accept(link, ipaddress.ip_address(address[0].partition("%")[0]), poller.now)

        self._endpoint = ServerEndpoint(
            self._socket,
            self._factory,
            accept,
            poller,
            loop,
            self.metrics,
            max_connections=settings.limits.connections,
            retry_threshold=settings.quic.retry_threshold,
            handshake=settings.limits.handshake.total_seconds(),
            reset_key=self._transport.reset_key,
        )
        return self._endpoint

    async def _hooks(self, resolver: Resolver) -> list[Hooks]:
        """Applications first, then the built-in rooms; each is asked in this order in every phase."""
        settings = self.settings
        hooks = [await start(settings) for start in self._applications]
        return [
            *hooks,
            auth_hooks(settings.auth),
            *([] if self._tokens is None else [self._tokens.hooks]),
            certificate_hooks(settings.tls),
            self._policy.hooks,
            quota_hooks(settings.quotas, self.metrics),
            resolver_hooks(resolver),
            self.egress.hooks,
        ]
