"""What the tests of hooks share: applications of one hook, watchers, and tunnels used from end to end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from relay.client import ClientError, RelayClient
from relay.errors import Failure, FailureKind, Side
from relay.hooks import Application, ExchangeContext, Hooks, Phase, TunnelKind
from relay.outcome import Outcome
from relay.settings import Settings
from tests.relay.rig import PATIENCE, TcpOrigin, UdpOrigin, eventually

__all__ = [
    "DECIDING",
    "DENIED",
    "KINDS",
    "Decide",
    "Origins",
    "Watcher",
    "application",
    "hooks_at",
    "refusal",
    "round_trip",
]

DECIDING = (Phase.AUTHENTICATE, Phase.AUTHORIZE, Phase.RESOLVE, Phase.CHECK_ADDRESSES, Phase.CHOOSE_EGRESS)
KINDS = (TunnelKind.TCP, TunnelKind.UDP)
DENIED = Failure(FailureKind.HTTP_REQUEST_DENIED, Side.RELAY)

Decide = Callable[[ExchangeContext], Awaitable[object]]


def hooks_at(phase: Phase, decide: Decide) -> Hooks:
    """Hooks with one deciding hook, whatever its phase's further arguments are."""

    async def hook(ctx: ExchangeContext, *_value: object) -> object:
        return await decide(ctx)

    changes: dict[str, Any] = {phase.value: hook}
    return Hooks(**changes)


def application(hooks: Hooks) -> Application:
    """An application that is one set of hooks."""

    async def start(_settings: Settings) -> Hooks:
        return hooks

    return start


@dataclass
class Watcher:
    """Watching hooks that remember."""

    opened: list[ExchangeContext] = field(default_factory=list)
    closed: list[tuple[ExchangeContext, Outcome]] = field(default_factory=list)

    @property
    def hooks(self) -> Hooks:
        return Hooks(
            tunnel_opened=self.opened.append,
            tunnel_closed=lambda ctx, outcome: self.closed.append((ctx, outcome)),
        )

    async def outcome(self) -> Outcome:
        """The outcome of the one tunnel there was, once it is over."""
        await eventually(lambda: bool(self.closed))
        assert len(self.opened) == 1
        assert [ctx for ctx, _ in self.closed] == self.opened
        return self.closed[0][1]


async def round_trip(client: RelayClient, kind: TunnelKind, port: int, host: str = "127.0.0.1") -> None:
    """One tunnel of the kind, used and closed in order."""
    async with asyncio.timeout(PATIENCE):
        if kind is TunnelKind.TCP:
            stream = await client.open_tcp(host, port)
            await stream.send(b"ping")
            await stream.send_eof()
            received = b""
            while data := await stream.receive():
                received += data
            assert received == b"ping"
        else:
            flow = await client.open_udp(host, port)
            assert flow.send(b"ping")
            assert await flow.receive() == b"ping"
            await flow.aclose()


async def refusal(client: RelayClient, kind: TunnelKind, port: int, host: str = "127.0.0.1") -> ClientError:
    """The refusal of a tunnel that must not come to be."""
    with pytest.raises(ClientError) as raised:
        await round_trip(client, kind, port, host)
    return raised.value


@dataclass
class Origins:
    """One of each kind."""

    tcp: TcpOrigin
    udp: UdpOrigin

    def port(self, kind: TunnelKind) -> int:
        return self.tcp.port if kind is TunnelKind.TCP else self.udp.port

    @property
    def peers(self) -> list[str]:
        return self.tcp.peers + self.udp.peers
