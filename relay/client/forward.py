"""Local forwarders: a TCP or UDP port here, a target behind the relay.

Any tool can use a relay this way. One connection to the relay serves all tunnels; when it is lost or the relay goes
away, the next tunnel makes a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from masque.tunnel import UdpTunnel
from relay.client.connection import RelayClient, RelayOptions, connect_relay
from relay.client.failure import ClientError
from relay.exchange import Exchange
from relay.hooks import TunnelKind
from relay.outcome import Outcome
from relay.poller import Poller
from relay.quic.engine import Address
from relay.quic.socket import UdpSocket, bind_udp
from relay.telemetry import LimitName, NoMetrics
from relay.tunnels import DatagramSink, TcpSplice, Tunnel, TunnelLimits

__all__ = ["TcpForwarder", "UdpForwarder"]

_TCP_LIMITS = TunnelLimits(idle=3600.0)
_UDP_LIMITS = TunnelLimits(idle=120.0)
_MAX_FLOWS = 4096
"Local UDP senders at once; each is a tunnel."
_ACCEPT_PAUSE = 0.1
"Seconds without accepting when the system has no descriptor left."
_EARLY = 64
"Payloads kept for a local UDP sender until its tunnel is open."

OnRefused = Callable[[ClientError], None]
"Told of each tunnel that could not be opened."


class _Relay:
    """The forwarder's connection to the relay, made when first needed and again after it was lost.

    Each connection lives in a task of its own until it is over, so one that drains keeps its tunnels.
    """

    def __init__(self, options: RelayOptions, poller: Poller, tasks: asyncio.TaskGroup) -> None:
        self._options = options
        self._poller = poller
        self._tasks = tasks
        self._lock = asyncio.Lock()
        self._client: RelayClient | None = None

    async def client(self) -> RelayClient:
        """A connection that takes new tunnels. Raises ClientError."""
        async with self._lock:
            if self._client is None or not self._client.is_usable:
                connected: asyncio.Future[RelayClient] = asyncio.get_running_loop().create_future()
                self._tasks.create_task(self._live(connected))
                self._client = await connected
            return self._client

    async def _live(self, connected: asyncio.Future[RelayClient]) -> None:
        try:
            async with connect_relay(self._options, self._poller) as client:
                if not connected.done():
                    connected.set_result(client)
                await client.closed.wait()
        except ClientError as error:
            if not connected.done():
                connected.set_exception(error)


class _Forwarder:
    """What both kinds share: the target, the connection, and a life."""

    def __init__(self, options: RelayOptions, host: str, port: int, on_refused: OnRefused) -> None:
        """Forward to `host`:`port` through the relay of `options`."""
        self._options = options
        self._host = host
        self._port = port
        self._on_refused = on_refused

    async def run(self, listen: tuple[str, int], on_ready: Callable[[Address], None]) -> None:
        """Forward until cancelled.

        Args:
            listen: literal address and port to listen on; port 0 takes any.
            on_ready: told the address once the relay answered and the port is open.

        Raises:
            ClientError: the relay cannot be reached at the start.
            OSError: the port cannot be opened.
        """
        poller = Poller(asyncio.get_running_loop())
        refused: ClientError | None = None
        try:
            with contextlib.ExitStack() as stack:
                address = self._open(listen)
                stack.callback(self._close)
                async with asyncio.TaskGroup() as tasks:
                    relay = _Relay(self._options, poller, tasks)
                    try:
                        await relay.client()
                    except ClientError as error:
                        refused = error  # raised outside the group, which would wrap it
                    else:
                        on_ready(address)
                        await self._serve(relay, poller, tasks)
        finally:
            poller.close()
        if refused is not None:
            raise refused

    def _open(self, listen: tuple[str, int]) -> Address:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError

    async def _serve(self, relay: _Relay, poller: Poller, tasks: asyncio.TaskGroup) -> None:
        raise NotImplementedError


class TcpForwarder(_Forwarder):
    """Each local TCP connection becomes a CONNECT tunnel."""

    _server: socket.socket

    def _open(self, listen: tuple[str, int]) -> Address:
        family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
        self._server = socket.create_server(listen, family=family, backlog=512)
        self._server.setblocking(False)
        address: Address = self._server.getsockname()
        return address

    def _close(self) -> None:
        self._server.close()

    async def _serve(self, relay: _Relay, poller: Poller, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._server)
            except OSError:
                await asyncio.sleep(_ACCEPT_PAUSE)  # out of descriptors: some tunnel has to end first
                continue
            sock.setblocking(False)
            tasks.create_task(self._tunnel(relay, poller, sock))

    async def _tunnel(self, relay: _Relay, poller: Poller, sock: socket.socket) -> None:
        try:
            client = await relay.client()
            exchange = await client.open_tcp_exchange(self._host, self._port)
        except ClientError as error:
            sock.close()
            self._on_refused(error)
            return
        except BaseException:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        splice = TcpSplice(exchange, sock, poller, _TCP_LIMITS, NoMetrics())
        try:
            await asyncio.shield(splice.closed)
        finally:
            splice.close(Outcome.closed())


class UdpForwarder(_Forwarder):
    """Each local sender's datagrams become a CONNECT-UDP tunnel."""

    _socket: UdpSocket

    def _open(self, listen: tuple[str, int]) -> Address:
        self._socket = bind_udp(listen[0], listen[1], 4 << 20, 4 << 20)
        return self._socket.address

    def _close(self) -> None:
        self._socket.close()

    async def _serve(self, relay: _Relay, poller: Poller, tasks: asyncio.TaskGroup) -> None:
        sock = self._socket
        flows: dict[Address, _LocalFlow] = {}

        def ready(events: int) -> None:
            found = sock.receive()
            if found is None:
                return
            data, segment, sender = found
            flow = flows.get(sender)
            if flow is None:
                if len(flows) >= _MAX_FLOWS:
                    return
                flow = flows[sender] = _LocalFlow(sender, sock)
                tasks.create_task(self._flow(relay, poller, flow, flows))
            flow.send(data, segment)

        poller.add(sock.fileno(), ready)
        try:
            await asyncio.Event().wait()
        finally:
            poller.remove(sock.fileno())

    async def _flow(self, relay: _Relay, poller: Poller, flow: _LocalFlow, flows: dict[Address, _LocalFlow]) -> None:
        try:
            client = await relay.client()
            exchange = await client.open_udp_exchange(self._host, self._port)
            tunnel = _LocalTunnel(exchange, flow, poller)
            try:
                await asyncio.shield(tunnel.closed)
            finally:
                tunnel.close(Outcome.closed())
        except ClientError as error:
            self._on_refused(error)
        finally:
            flows.pop(flow.sender, None)


class _LocalFlow:
    """One local sender: keeps a few payloads until the tunnel is there."""

    def __init__(self, sender: Address, sock: UdpSocket) -> None:
        self.sender = sender
        self.sock = sock
        self.tunnel: _LocalTunnel | None = None
        self._early: list[tuple[bytes, int]] = []

    def send(self, data: bytes, segment: int) -> None:
        """Payloads of the sender."""
        if self.tunnel is not None:
            self.tunnel.send(data, segment)
        elif len(self._early) < _EARLY:
            self._early.append((data, segment))

    def open(self, tunnel: _LocalTunnel) -> None:
        """The tunnel is open: what was kept goes first."""
        self.tunnel = tunnel
        early, self._early = self._early, []
        for data, segment in early:
            tunnel.send(data, segment)


class _LocalTunnel(DatagramSink, Tunnel):
    """A CONNECT-UDP tunnel whose socket is shared with the other local senders."""

    kind = TunnelKind.UDP
    idle_limit = LimitName.UDP_IDLE

    def __init__(self, exchange: Exchange, flow: _LocalFlow, poller: Poller) -> None:
        super().__init__(exchange, poller, _UDP_LIMITS, NoMetrics())
        self._flow = flow
        self._machine = UdpTunnel(exchange.stream_id)
        exchange.open_datagrams(self._machine.prefix)
        exchange.attach(self)
        flow.open(self)

    def send(self, data: bytes, segment: int) -> None:
        """Payloads for the target."""
        if self.is_closed:
            return
        self.active_at = self.poller.now
        if self.exchange.max_datagram_payload:
            self.exchange.send_datagrams(self._machine.prefix, data, segment)
        else:
            for start in range(0, max(1, len(data)), max(1, segment)):
                self.exchange.write(self._machine.encode_capsule(data[start : start + segment]))

    def payloads_received(self, payloads: list[bytes]) -> None:
        """Payloads of the target."""
        self.active_at = self.poller.now
        try:
            self._flow.sock.send(payloads, self._flow.sender)
        except OSError:
            return  # the local sender is gone; its tunnel idles out

    def refused(self) -> None:
        """The relay broke a rule."""
        self.aborted()

    def fin_received(self) -> None:
        """The relay ended the tunnel."""
        if not self.is_closed:
            self.exchange.end_content()
            self.close(Outcome.closed())

    def drained(self) -> None:
        """Datagrams do not wait."""

    def aborted(self) -> None:
        """The tunnel was cut; the sender's next datagram opens another."""
        self.close(Outcome.closed())

    def release_socket(self, outcome: Outcome) -> None:
        """The socket serves the other senders too."""
        self._flow.tunnel = None

    def add_counts(self) -> None:
        """A forwarder counts nothing."""
