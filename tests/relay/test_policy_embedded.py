"""relay.policy.embedded: IPv4 addresses inside IPv6 ones are found, and judged whichever way they are dressed."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.target import IPAddress
from relay.policy import embedded_ipv4
from tests.relay.policy_rig import allowed, decide, rule, ruleset

INSIDE = "10.1.2.3"
DRESSED = {
    "mapped": "::ffff:10.1.2.3",
    "compatible": "::10.1.2.3",
    "translated": "::ffff:0:10.1.2.3",
    "NAT64": "64:ff9b::10.1.2.3",
    "NAT64 local, /48": "64:ff9b:1:a01:2:300::",
    "NAT64 local, /56": "64:ff9b:1:0a:01:203::",
    "NAT64 local, /64": "64:ff9b:1:0:a:102:300:0",
    "NAT64 local, /96": "64:ff9b:1::10.1.2.3",
    "6to4": "2002:a01:203::1",
    "Teredo server": "2001:0:a01:203::",
    "Teredo client": "2001:0:4136:e378:8000:63bf:f5fe:fdfc",
    "ISATAP": "2a00:1234::5efe:10.1.2.3",
    "ISATAP, universal": "2a00:1234::200:5efe:10.1.2.3",
}


@pytest.mark.parametrize("text", DRESSED.values(), ids=DRESSED)
def test_it_is_found(text: str) -> None:
    assert IPv4Address(INSIDE) in embedded_ipv4(ip_address(text))


@pytest.mark.parametrize("text", DRESSED.values(), ids=DRESSED)
def test_it_is_refused_by_default(text: str) -> None:
    assert not allowed(ruleset(), text)


@pytest.mark.parametrize("text", DRESSED.values(), ids=DRESSED)
def test_a_rule_that_denies_it_reaches_it(text: str) -> None:
    rules = ruleset(rule("deny", networks=["10.1.0.0/16"]), rule("allow", networks=[f"{text}/128"]))
    assert decide(rules, text).reason == "policy.rules[0]"


@pytest.mark.parametrize("text", DRESSED.values(), ids=DRESSED)
def test_a_rule_that_names_it_whole_opens_it(text: str) -> None:
    assert allowed(ruleset(allow=[f"{text}/128"]), text)


@pytest.mark.parametrize(
    ("network", "good", "bad"),
    [
        ("64:ff9b::/96", "64:ff9b::8.8.8.8", "64:ff9b::10.1.2.3"),
        ("64:ff9b:1::/96", "64:ff9b:1::8.8.8.8", "64:ff9b:1::10.1.2.3"),
        ("64:ff9b:1::/48", "64:ff9b:1:808:8:800::", "64:ff9b:1:a01:2:300::"),
        ("64:ff9b:1::/56", "64:ff9b:1:8:8:808::", "64:ff9b:1:a:1:203::"),
        ("64:ff9b:1::/64", "64:ff9b:1:0:8:808:800:0", "64:ff9b:1:0:a:102:300:0"),
        ("::ffff:0:0/96", "::ffff:8.8.8.8", "::ffff:10.1.2.3"),
        ("2002::/16", "2002:808:808::1", "2002:a01:203::1"),
        ("2001::/32", "2001:0:808:808::f7f7:f7f7", "2001:0:808:808::f5fe:fdfc"),
        ("2a00::/16", "2a00::5efe:8.8.8.8", "2a00::5efe:10.1.2.3"),
        ("::/0", "64:ff9b::8.8.8.8", "64:ff9b::10.1.2.3"),
    ],
)
def test_a_form_that_is_opened_is_open_for_what_may_be_reached_inside(network: str, good: str, bad: str) -> None:
    rules = ruleset(allow=[network])
    assert allowed(rules, good)
    assert not allowed(rules, bad)
    assert allowed(ruleset(allow=[network, "10.0.0.0/8"]), bad), "unless the address inside is opened as well"


def test_isatap_with_an_ordinary_address_inside_is_ordinary() -> None:
    assert allowed(ruleset(), "2a00::200:5efe:8.8.8.8")


@given(st.ip_addresses(v=4))
def test_the_last_bits_are_read_as_the_standard_library_does(inside: IPv4Address) -> None:
    mapped = IPv6Address(f"::ffff:{inside}")
    assert embedded_ipv4(mapped) == (mapped.ipv4_mapped,)
    sixtofour = IPv6Address((0x2002 << 112) + (int(inside) << 80))
    assert embedded_ipv4(sixtofour) == (sixtofour.sixtofour,)


@given(st.ip_addresses(v=6, network="2001::/32"))
def test_teredo_is_read_as_the_standard_library_does(address: IPv6Address) -> None:
    assert set(address.teredo or ()) <= set(embedded_ipv4(address))


@given(st.ip_addresses(), st.integers(0, 128))
def test_any_address_is_read(address: IPAddress, prefix: int) -> None:
    found = embedded_ipv4(address, prefix)
    assert set(found) <= set(embedded_ipv4(address))
    assert prefix < 97 or not found
