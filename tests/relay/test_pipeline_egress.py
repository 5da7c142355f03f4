"""relay.pipeline: hooks that choose egress while attempts of one dial race, and share one context."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest

from masque.target import IPAddress, Target
from relay.hooks import Continue, EgressBinding, ExchangeContext, Hooks, Replace, Resolution, TunnelKind
from relay.quic.development import write_certificates
from tests.relay.hooks_rig import application, round_trip
from tests.relay.rig import black_hole, eventually, running_relay, tcp_origin

pytestmark = pytest.mark.anyio

HOLE, ORIGIN = ip_address("127.0.0.2"), ip_address("127.0.0.1")
BINDINGS = {HOLE: EgressBinding(ip_address("127.0.0.12")), ORIGIN: EgressBinding(ip_address("127.0.0.11"))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    write_certificates(made, ["127.0.0.1"])
    return made


@dataclass
class SlowChoice:
    """Two hooks: one chooses by address, the next takes its time and sees what was chosen before."""

    entered: list[IPAddress] = field(default_factory=list)
    seen: list[tuple[IPAddress, EgressBinding | None, EgressBinding | None]] = field(default_factory=list)
    is_second_there: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def applications(self) -> tuple[Hooks, Hooks]:
        return Hooks(resolve=self.resolve, choose_egress=self.choose), Hooks(choose_egress=self.look)

    async def resolve(self, _ctx: ExchangeContext, _target: Target) -> Replace[Resolution]:
        return Replace(Resolution((HOLE, ORIGIN)))

    async def choose(self, _ctx: ExchangeContext, address: IPAddress) -> Replace[EgressBinding]:
        self.entered.append(address)
        if len(self.entered) > 1:
            self.is_second_there.set()
        return Replace(BINDINGS[address])

    async def look(self, ctx: ExchangeContext, address: IPAddress) -> Continue:
        before = ctx.egress
        try:
            async with asyncio.timeout(0.5):  # twice the delay after which the next attempt starts
                await self.is_second_there.wait()
        except TimeoutError:
            pass
        await asyncio.sleep(0)
        self.seen.append((address, before, ctx.egress))
        return Continue()


async def test_hooks_never_see_the_choice_of_another_attempt(folder: Path) -> None:
    slow = SlowChoice()
    async with (
        tcp_origin() as tcp,
        running_relay(folder, *map(application, slow.applications)) as relay,
        relay.client() as client,
    ):
        with black_hole(str(HOLE), tcp.port):
            await round_trip(client, TunnelKind.TCP, tcp.port, "name.test")
    assert slow.seen == [(address, BINDINGS[address], BINDINGS[address]) for address in (HOLE, ORIGIN)]
    assert tcp.peers == [str(BINDINGS[ORIGIN].source)]


async def test_the_context_keeps_the_choice_of_the_attempt_that_won(folder: Path) -> None:
    chosen: list[IPAddress] = []
    seen: list[EgressBinding | None] = []

    async def resolve(_ctx: ExchangeContext, _target: Target) -> Replace[Resolution]:
        return Replace(Resolution((ORIGIN, HOLE)))

    async def choose(_ctx: ExchangeContext, address: IPAddress) -> Replace[EgressBinding]:
        chosen.append(address)
        return Replace(BINDINGS[address])

    hooks = Hooks(resolve=resolve, choose_egress=choose, tunnel_opened=lambda ctx: seen.append(ctx.egress))
    with socket.socket() as listener, socket.socket() as filler:
        listener.bind((str(ORIGIN), 0))
        listener.listen(0)
        filler.connect(listener.getsockname())  # the queue is full: the first attempt waits until it is not
        port = listener.getsockname()[1]
        with black_hole(str(HOLE), port):
            async with (
                running_relay(folder, application(hooks)) as relay,
                relay.client() as client,
                asyncio.TaskGroup() as tasks,
            ):
                opening = tasks.create_task(client.open_tcp("name.test", port))
                await eventually(lambda: len(chosen) == 2)
                listener.accept()[0].close()
                await opening
                sock, address = listener.accept()
                sock.close()
    assert seen == [BINDINGS[ORIGIN]]
    assert address[0] == str(BINDINGS[ORIGIN].source)
