"""relay.policy: every registry row, embedded IPv4, and the order of rules (RFC 9298 §7)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.head import RequestHead
from masque.target import IPAddress, Target
from relay.errors import FailureKind
from relay.hooks import ConnectionContext, Continue, ExchangeContext, Reject, Replace, TunnelKind
from relay.policy import (
    SPECIAL_NETWORKS,
    AddressPolicy,
    SpecialNetwork,
    is_globally_reachable,
    policy_hooks,
    special_network,
)
from relay.settings import PolicySettings

pytestmark = pytest.mark.anyio

ORDINARY = [
    "1.1.1.1",
    "8.8.8.8",
    "192.0.1.1",
    "193.0.0.1",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00::1",
    "2003::1",
]
FORBIDDEN = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.255", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.9", "192.0.2.1", "192.88.99.1", "192.168.1.1",
    "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::8.8.8.8", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "::ffff:0:8.8.8.8",
    "64:ff9b::8.8.8.8", "64:ff9b:1::1", "100::1", "100:0:0:1::1", "2001::1", "2001:0:4136:e378::1", "2001:2::1",
    "2001:10::1", "2001:20::1", "2001:30::1", "2001:1ff::1", "2001:db8::1", "2002:808:808::1", "3fff:fff::1",
    "5f00::1", "fc00::1", "fdff::1", "fe80::1", "fec0::1", "feff::1", "ff02::1", "ff0e::1", "4000::1", "e000::1",
]  # fmt: skip


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_addresses_are_reachable(text: str) -> None:
    assert is_globally_reachable(ip_address(text))


@pytest.mark.parametrize("text", FORBIDDEN)
def test_special_addresses_are_not(text: str) -> None:
    assert not is_globally_reachable(ip_address(text))


@pytest.mark.parametrize("row", SPECIAL_NETWORKS, ids=lambda row: str(row.network))
def test_every_row_holds_from_its_first_to_its_last_address(row: SpecialNetwork) -> None:
    for address in (row.network.network_address, row.network.broadcast_address):
        found = special_network(address)
        assert found is not None
        assert found.network.prefixlen >= row.network.prefixlen
    assert row.reference.startswith("RFC ")


@pytest.mark.parametrize("row", [r for r in SPECIAL_NETWORKS if r.network.version == 4], ids=lambda r: str(r.network))
def test_the_address_before_and_after_a_row_are_judged_on_their_own(row: SpecialNetwork) -> None:
    first, last = int(row.network.network_address), int(row.network.broadcast_address)
    for number in (first - 1, last + 1):
        if 0 <= number < 2**32:
            neighbour = special_network(IPv4Address(number))
            assert neighbour is None or IPv4Address(number) in neighbour.network


@given(st.ip_addresses())
def test_at_least_as_strict_as_the_standard_library(address: IPAddress) -> None:
    if is_globally_reachable(address):
        assert address.is_global
        assert not address.is_multicast


@given(st.sampled_from([row.network for row in SPECIAL_NETWORKS]), st.data())
def test_no_address_of_a_row_is_reachable(network: object, data: st.DataObject) -> None:
    assert not is_globally_reachable(data.draw(st.ip_addresses(network=str(network))))


@given(st.ip_addresses(v=4))
def test_embedded_ipv4_is_refused_whatever_it_embeds(address: IPv4Address) -> None:
    number = int(address)
    forms = ["::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::"]
    assert not any(is_globally_reachable(IPv6Address(int(IPv6Address(form)) + number)) for form in forms)
    assert not is_globally_reachable(IPv6Address((0x2002 << 112) + (number << 80)))


def policy(allow: list[str] | None = None, deny: list[str] | None = None) -> AddressPolicy:
    return AddressPolicy(
        tuple(ip_network(text) for text in allow or []), tuple(ip_network(text) for text in deny or [])
    )


def test_allow_opens_and_deny_closes_again() -> None:
    rules = policy(allow=["10.0.0.0/8"], deny=["10.1.0.0/16", "1.1.1.0/24"])
    assert rules.check(ip_address("10.2.0.1"), 443)
    assert not rules.check(ip_address("10.1.0.1"), 443)
    assert not rules.check(ip_address("1.1.1.1"), 443)
    assert rules.check(ip_address("8.8.8.8"), 443)
    assert not rules.check(ip_address("192.168.0.1"), 443)


def test_allow_of_ipv4_does_not_open_its_mapped_form() -> None:
    rules = policy(allow=["127.0.0.0/8"])
    assert rules.check(ip_address("127.0.0.1"), 443)
    assert not rules.check(ip_address("::ffff:127.0.0.1"), 443)
    assert not rules.check(ip_address("::1"), 443)
    assert policy(allow=["::ffff:127.0.0.0/104"]).check(ip_address("::ffff:127.0.0.1"), 443)


def test_deny_of_ipv4_closes_its_mapped_form() -> None:
    rules = policy(allow=["::ffff:0:0/96"], deny=["10.0.0.0/8"])
    assert rules.check(ip_address("::ffff:8.8.8.8"), 443)
    assert not rules.check(ip_address("::ffff:10.0.0.1"), 443)


@pytest.mark.parametrize(("port", "expected"), [(25, False), (443, True), (1, True), (65535, True), (0, False)])
def test_ports(port: int, expected: bool) -> None:
    assert policy().check(ip_address("8.8.8.8"), port) is expected


def exchange(target: Target) -> ExchangeContext:
    return ExchangeContext(ConnectionContext(0.0), TunnelKind.TCP, RequestHead(b"CONNECT"), target)


async def test_port_25_is_denied_before_resolving() -> None:
    hooks = policy_hooks(PolicySettings())
    assert hooks.authorize is not None
    verdict = await hooks.authorize(exchange(Target("mail.example", 25)))
    assert isinstance(verdict, Reject)
    assert verdict.failure.kind is FailureKind.HTTP_REQUEST_DENIED
    assert await hooks.authorize(exchange(Target("www.example", 443))) == Continue()


async def test_a_forbidden_literal_is_refused_before_resolving() -> None:
    hooks = policy_hooks(PolicySettings())
    assert hooks.authorize is not None
    verdict = await hooks.authorize(exchange(Target("127.0.0.1", 443, ip_address("127.0.0.1"))))
    assert isinstance(verdict, Reject)
    assert verdict.failure.kind is FailureKind.DESTINATION_IP_PROHIBITED


async def test_addresses_are_filtered_in_order() -> None:
    hooks = policy_hooks(PolicySettings())
    assert hooks.check_addresses is not None
    ctx = exchange(Target("www.example", 443))
    good, bad, also_good = (ip_address(text) for text in ("2606:4700::1111", "fd00::1", "1.1.1.1"))
    assert await hooks.check_addresses(ctx, (good, bad, also_good)) == Replace((good, also_good))
    assert await hooks.check_addresses(ctx, (good, also_good)) == Continue()
    verdict = await hooks.check_addresses(ctx, (bad,))
    assert isinstance(verdict, Reject)
    assert verdict.failure.kind is FailureKind.DESTINATION_IP_PROHIBITED
