"""relay.egress: the source address by family."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest

from masque.head import RequestHead
from masque.target import Target
from relay.egress import egress_hooks
from relay.hooks import ConnectionContext, Continue, EgressBinding, ExchangeContext, Replace, TunnelKind
from relay.settings import EgressSettings

pytestmark = pytest.mark.anyio


def exchange() -> ExchangeContext:
    return ExchangeContext(
        ConnectionContext(0.0), TunnelKind.UDP, RequestHead(b"CONNECT"), Target("www.example", 443)
    )


async def test_each_family_leaves_from_its_own_source() -> None:
    choose = egress_hooks(EgressSettings(ipv4=IPv4Address("192.0.2.1"))).choose_egress
    assert choose is not None
    assert await choose(exchange(), ip_address("8.8.8.8")) == Replace(EgressBinding(IPv4Address("192.0.2.1")))
    assert await choose(exchange(), ip_address("2606::1")) == Replace(EgressBinding(None))


async def test_an_earlier_choice_stays() -> None:
    choose = egress_hooks(EgressSettings(ipv4=IPv4Address("192.0.2.1"))).choose_egress
    assert choose is not None
    ctx = exchange()
    ctx.egress = EgressBinding(IPv4Address("192.0.2.2"))
    assert await choose(ctx, ip_address("8.8.8.8")) == Continue()
