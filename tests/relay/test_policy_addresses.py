"""relay.policy.addresses: every block of the registries, and what is embedded in others (RFC 9298 §7)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.target import IPAddress
from relay.policy import SPECIAL_NETWORKS, SpecialNetwork, is_globally_reachable, special_network

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

REGISTRIES = [
    ("0.0.0.0/8", False), ("0.0.0.0/32", False), ("10.0.0.0/8", False), ("100.64.0.0/10", False),
    ("127.0.0.0/8", False), ("169.254.0.0/16", False), ("172.16.0.0/12", False), ("192.0.0.0/24", False),
    ("192.0.0.0/29", False), ("192.0.0.8/32", False), ("192.0.0.9/32", True), ("192.0.0.10/32", True),
    ("192.0.0.170/32", False), ("192.0.0.171/32", False), ("192.0.2.0/24", False), ("192.31.196.0/24", True),
    ("192.52.193.0/24", True), ("192.88.99.0/24", False), ("192.168.0.0/16", False), ("192.175.48.0/24", True),
    ("198.18.0.0/15", False), ("198.51.100.0/24", False), ("203.0.113.0/24", False), ("240.0.0.0/4", False),
    ("255.255.255.255/32", False), ("::1/128", False), ("::/128", False), ("::ffff:0:0/96", False),
    ("64:ff9b::/96", True), ("64:ff9b:1::/48", False), ("100::/64", False), ("100:0:0:1::/64", False),
    ("2001::/23", False), ("2001::/32", False), ("2001:1::1/128", True), ("2001:1::2/128", True),
    ("2001:1::3/128", True), ("2001:2::/48", False), ("2001:3::/32", True), ("2001:4:112::/48", True),
    ("2001:10::/28", False), ("2001:20::/28", True), ("2001:30::/28", True), ("2001:db8::/32", False),
    ("2002::/16", False), ("2620:4f:8000::/48", True), ("3fff::/20", False), ("5f00::/16", False),
    ("fc00::/7", False), ("fe80::/10", False),
]  # fmt: skip
"IANA's IPv4 and IPv6 Special-Purpose Address Registries: each block and its column Globally Reachable."
STRICTER = {
    "192.0.0.9/32", "192.0.0.10/32", "64:ff9b::/96", "2001:1::1/128", "2001:1::2/128", "2001:1::3/128",
    "2001:3::/32", "2001:4:112::/48", "2001:20::/28", "2001:30::/28",
}  # fmt: skip
"Blocks that are refused although they are reachable: anycast for one's own network, translation, and identifiers."
BEYOND = {
    "multicast", "IPv4-compatible, deprecated", "IPv4-translated, deprecated", "deprecated site-local",
}  # fmt: skip
"What other registries and RFCs say."


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


@pytest.mark.parametrize(("block", "is_reachable"), REGISTRIES, ids=[block for block, _ in REGISTRIES])
def test_every_block_of_ianas_registries(block: str, is_reachable: bool) -> None:
    network = ip_network(block)
    for address in (network.network_address, network.broadcast_address):
        assert is_globally_reachable(address) == (is_reachable and block not in STRICTER)


def test_the_registries_are_as_they_were_when_this_was_written() -> None:
    """What the standard library calls not global is here too, whichever registry its Python had."""
    known = [ip_network(block) for block, _ in REGISTRIES]
    for row in SPECIAL_NETWORKS:
        covered = any(row.network.version == one.version and row.network.subnet_of(one) for one in known)  # type: ignore[arg-type]
        assert covered or row.purpose in BEYOND, row
