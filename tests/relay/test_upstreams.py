"""Upstream resolvers and routes as settings name them, and how `relay check` tells of them."""

from __future__ import annotations

import tomllib
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.cli import main
from relay.settings import (
    SettingsError,
    Upstream,
    UpstreamTransport,
    describe_resolver,
    dump_settings,
    load_settings,
    parse_upstream,
    resolver_routes,
)

V4 = ip_address("192.0.2.53")
V6 = ip_address("2001:db8::53")
TLS, HTTPS, QUIC = UpstreamTransport.TLS, UpstreamTransport.HTTPS, UpstreamTransport.QUIC


@pytest.mark.parametrize(
    ("text", "upstream"),
    [
        ("192.0.2.53", Upstream(V4)),
        ("192.0.2.53:5353", Upstream(V4, 5353)),
        ("2001:db8::53", Upstream(V6)),
        ("[2001:db8::53]", Upstream(V6)),
        ("[2001:db8::53]:5353", Upstream(V6, 5353)),
        ("udp://192.0.2.53", Upstream(V4)),
        ("tcp://[2001:db8::53]:5353", Upstream(V6, 5353, UpstreamTransport.TCP)),
        ("tls://192.0.2.53", Upstream(V4, 853, TLS)),
        ("tls://192.0.2.53:8853#dns.example", Upstream(V4, 8853, TLS, "dns.example")),
        ("https://192.0.2.53#dns.example", Upstream(V4, 443, HTTPS, "dns.example")),
        ("https://192.0.2.53/q/x%20y#dns.example", Upstream(V4, 443, HTTPS, "dns.example", "/q/x%20y")),
        ("quic://[2001:db8::53]?ca_file=/etc/ca.pem#d", Upstream(V6, 853, QUIC, "d", ca_file=Path("/etc/ca.pem"))),
        ("tls://192.0.2.53?ca_file=my%20ca.pem", Upstream(V4, 853, TLS, ca_file=Path("my ca.pem"))),
    ],
)
def test_upstreams(text: str, upstream: Upstream) -> None:
    assert parse_upstream(text) == upstream
    assert parse_upstream(str(upstream)) == upstream


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "must be an IP address"),
        ("dns.example", "must be an IP address"),
        ("https://dns.example/dns-query", "put its name behind a #"),
        ("192.0.2.53:65536", "must have a port"),
        ("[::1]5", "must be [transport://]address"),
        ("192.0.2.53:0", "must have a port"),
        ("192.0.2.53:", "must have a port"),
        ("192.0.2.53:\u0665", "must have a port"),
        ("[192.0.2.53]", "in brackets"),
        ("[2001:db8::53", "must be [transport://]address"),
        ("http://192.0.2.53", "must begin with udp://"),
        ("tls:192.0.2.53", "must be an IP address"),
        ("192.0.2.53#dns.example", "must not have a name"),
        ("tls://192.0.2.53#", "host name behind the #"),
        ("tls://192.0.2.53#a..b", "host name behind the #"),
        ("tls://192.0.2.53#" + "a." * 127 + "a", "host name behind the #"),
        ("tls://192.0.2.53/dns-query", "must have a path with https:// only"),
        ("https://192.0.2.53/a b", "must have a path with https:// only"),
        ("tls://192.0.2.53?ca=x", "nothing but ca_file"),
        ("tls://192.0.2.53?ca_file=", "nothing but ca_file"),
        ("tls://192.0.2.53?ca_file=a&ca_file=b", "nothing but ca_file"),
        ("192.0.2.53?ca_file=x", "nothing but ca_file"),
    ],
)
def test_what_is_no_upstream(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match="must ") as caught:
        parse_upstream(text)
    assert wrong in str(caught.value)


@given(st.one_of(st.text(), st.from_regex(r"(tls|https|quic|udp)://\[?[0-9a-f:.]*\]?(:\d*)?(/\w*)?(\?\S*)?(#\S*)?")))
def test_any_text_is_an_upstream_or_a_message(text: str) -> None:
    try:
        found = parse_upstream(text)
    except ValueError as error:
        message = str(error)
    else:
        message = "must "
        assert parse_upstream(str(found)) == found
    assert message.startswith("must ")


ROUTES = '{"corp.example": ["tls://192.0.2.1#ns.corp.example", "192.0.2.2"], ".LAN.": ["192.0.2.3"]}'


def test_routes_of_every_source(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text('[resolver.routes]\n"corp.example" = ["192.0.2.1"]\nlan = ["192.0.2.2", "192.0.2.3"]\n')
    assert set(resolver_routes(load_settings(file))) == {"corp.example", "lan"}
    settings = load_settings(file, {"RELAY_RESOLVER__ROUTES": ROUTES})
    assert resolver_routes(settings)["corp.example"][0] == Upstream(
        ip_address("192.0.2.1"), 853, TLS, "ns.corp.example"
    )
    assert resolver_routes(settings)["lan"] == (Upstream(ip_address("192.0.2.3")),)
    assert load_settings(None, None, {"resolver.routes": ROUTES}).resolver == settings.resolver
    dumped = tomllib.loads(dump_settings(settings))["resolver"]["routes"]
    assert dumped == {"corp.example": ["tls://192.0.2.1#ns.corp.example", "192.0.2.2"], "lan": ["192.0.2.3"]}
    assert tomllib.loads(dump_settings(load_settings()))["resolver"]["routes"] == {}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[]", "must be a JSON object"),
        ("x", "must be a JSON object"),
        ('{"a b": ["192.0.2.1"]}', "a b: must be a domain name"),
        ('{"corp": ["x"]}', "corp: must be an IP address"),
        ('{"corp": []}', "corp: must name a resolver"),
        ('{"corp": ["192.0.2.1"], "CORP.": ["192.0.2.1"]}', "CORP.: must name a resolver, and the suffix only once"),
        ('{"corp": "192.0.2.1"}', "must be a list"),
        ('{"corp": [1]}', "must be text"),
    ],
)
def test_routes_that_cannot_be(text: str, wrong: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, None, {"resolver.routes": text})
    assert str(caught.value).startswith("resolver.routes")
    assert wrong in str(caught.value)
    assert "\n" not in str(caught.value)


NOT_VALIDATED = "DNSSEC is not validated, and no AD bit is believed (resolver.dnssec)"


def test_check_says_how_names_are_resolved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    system = tmp_path / "resolv.conf"
    assert describe_resolver(load_settings(), system) == (
        f"names are not resolved: resolver.upstreams is empty and {system} names no resolver",
        NOT_VALIDATED,
    )
    system.write_text("nameserver 192.0.2.9\n")
    assert describe_resolver(load_settings(), system) == (
        f"names are asked of, from {system}: udp://192.0.2.9:53 (in clear text)",
        NOT_VALIDATED,
    )
    upstreams = '["https://192.0.2.1#dns.example", "192.0.2.2"]'
    assert main(["check", "--set", f"resolver.upstreams={upstreams}", "--set", f"resolver.routes={ROUTES}"]) == 0
    assert (
        "# names are asked of, from resolver.upstreams: https://192.0.2.1:443/dns-query#dns.example (encrypted), "
        "then udp://192.0.2.2:53 (in clear text)\n"
        f"# {NOT_VALIDATED}\n"
        "# names below corp.example are asked of, from resolver.routes: "
        "tls://192.0.2.1:853#ns.corp.example (encrypted), then udp://192.0.2.2:53 (in clear text)\n"
        "# names below lan are asked of, from resolver.routes: udp://192.0.2.3:53 (in clear text)\n"
    ) in capsys.readouterr().out


VALIDATED = "DNSSEC is validated here, from the shipped keys of the root on; bogus answers are refused"
BELIEVED = "DNSSEC is validated by the upstreams, and their AD bit is believed"
ENCRYPTED_ROUTE = '{"corp.example": ["tls://192.0.2.1#ns.corp.example"]}'


@pytest.mark.parametrize(
    ("mode", "dnssec", "routes", "line"),
    [
        ("forward", "off", ROUTES, NOT_VALIDATED),
        ("iterate", "off", "{}", NOT_VALIDATED),
        ("forward", "validate", "{}", VALIDATED),
        ("iterate", "validate", ROUTES, f"{VALIDATED}; names with a route only below trust anchors of their own"),
        ("forward", "trust_ad", "{}", BELIEVED),
        ("forward", "trust_ad", ENCRYPTED_ROUTE, BELIEVED),
        ("forward", "trust_ad", ROUTES, f"{BELIEVED}; not that of upstreams in clear text, below corp.example, lan"),
    ],
)
def test_check_says_what_is_done_about_dnssec(mode: str, dnssec: str, routes: str, line: str) -> None:
    options = {"resolver.mode": mode, "resolver.dnssec": dnssec, "resolver.routes": routes}
    if mode == "forward":
        options["resolver.upstreams"] = '["tls://192.0.2.1#dns.example"]'
    assert describe_resolver(load_settings(None, None, options))[1] == line
