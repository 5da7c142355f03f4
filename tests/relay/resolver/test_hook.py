"""The resolver as a hook."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from masque.head import RequestHead
from masque.target import Target
from relay.errors import Failure, FailureKind, Side
from relay.hooks import ConnectionContext, Continue, ExchangeContext, HookChain, Reject, Resolution, TunnelKind
from relay.resolver import (
    resolver_hooks,
)
from tests.relay.dns_server import records
from tests.relay.resolver.lab import A1, Lab

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient")]


def exchange(target: Target) -> ExchangeContext:
    return ExchangeContext(ConnectionContext(0.0), TunnelKind.TCP, RequestHead(b"CONNECT"), target)


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
