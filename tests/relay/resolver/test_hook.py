"""The resolver as a hook."""

from __future__ import annotations

from ipaddress import ip_address

import anyio
import anyio.lowlevel
import pytest

from masque.head import RequestHead
from masque.target import Target
from relay.errors import Failure, FailureKind, Side
from relay.hooks import ConnectionContext, Continue, ExchangeContext, HookChain, Reject, Resolution, TunnelKind
from relay.resolver import resolver_hooks
from tests.relay.dns_server import records, silent
from tests.relay.resolver.lab import A1, AAAA1, Lab

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient")]


def exchange(target: Target, connection: ConnectionContext | None = None) -> ExchangeContext:
    return ExchangeContext(connection or ConnectionContext(0.0), TunnelKind.TCP, RequestHead(b"CONNECT"), target)


async def test_the_hook_in_its_chain(lab: Lab) -> None:
    lab.server.answer("www.test", records(A1))
    chain = HookChain([resolver_hooks(await lab.resolver())])
    assert await chain.resolve(exchange(Target("www.test", 443))) == Resolution((ip_address("192.0.2.1"),))
    refused = await chain.resolve(exchange(Target("nowhere.test", 443)))
    assert refused == Reject(Failure(FailureKind.DNS_ERROR, Side.TARGET, rcode="NXDOMAIN"))


async def test_the_hook_asks_nobody_about_literals_and_keeps_what_is_known(lab: Lab) -> None:
    hooks = resolver_hooks(await lab.resolver())
    address = ip_address("192.0.2.80")
    ctx = exchange(Target("192.0.2.80", 443, address))
    assert await HookChain([hooks]).resolve(ctx) == Resolution((address,))
    assert hooks.resolve is not None
    assert await hooks.resolve(ctx, ctx.target) == Continue()
    assert lab.server.asked.total() == 0


@pytest.mark.parametrize(("max_queries", "names"), [(1, 4), (256, 4), (512, 8), (65536, 1024)])
async def test_a_connections_share_is_small(lab: Lab, max_queries: int, names: int) -> None:
    assert (await lab.resolver(max_queries=max_queries)).share == names


def silent_names(lab: Lab) -> list[str]:
    names = [f"n{number}.test" for number in range(20)]
    for name in names:
        lab.server.answer(name, silent, silent)
    return names


def asked_of(lab: Lab, names: list[str]) -> int:
    return len({name for name, _ in lab.server.asked if name in names})


async def test_a_connections_silent_names_leave_room_for_others(lab: Lab) -> None:
    """Further ones wait; what is known does not, and other connections do not."""
    lab.server.answer("www.test", records(A1), records(AAAA1))
    lab.server.answer("known.test", records("known.test. 60 IN A 192.0.2.2"))
    names = silent_names(lab)
    resolver = await lab.resolver(max_queries=16, timeout=60)
    await resolver.resolve("known.test")
    chain = HookChain([resolver_hooks(resolver)])
    connection = ConnectionContext(0.0)
    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(chain.resolve, exchange(Target(name, 443), connection))
        with anyio.fail_after(10):
            while asked_of(lab, names) < 4:
                await anyio.lowlevel.checkpoint()
            for found, at in (("known.test", connection), ("www.test", None)):
                assert isinstance(await chain.resolve(exchange(Target(found, 443), at)), Resolution)
        assert asked_of(lab, names) == 4
        group.cancel_scope.cancel()


async def test_a_name_waits_for_its_share_within_its_time(lab: Lab) -> None:
    """Four at once, and four more just before all are over."""
    names = silent_names(lab)
    chain = HookChain([resolver_hooks(await lab.resolver(max_queries=256, timeout=0.4))])
    connection = ConnectionContext(0.0)
    verdicts: list[object] = []

    async def ask(name: str) -> None:
        verdicts.append(await chain.resolve(exchange(Target(name, 443), connection)))

    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(ask, name)
    assert verdicts == [Reject(Failure(FailureKind.DNS_TIMEOUT, Side.TARGET))] * 20
    assert 4 <= asked_of(lab, names) <= 8
