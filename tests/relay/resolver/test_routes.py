"""Domains with upstreams of their own, look-ups of other types, the egress location's network."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import dns.edns
import dns.name
import dns.rdatatype
import pytest

from masque.head import RequestHead
from masque.target import Target
from relay.errors import FailureKind, RelayError
from relay.hooks import ConnectionContext, EgressSubnet, ExchangeContext, HookChain, Resolution, TunnelKind
from relay.resolver import MAX_RECORDS, Answer, Question, Resolver, Routes, resolver_hooks
from relay.settings import ResolverSettings
from tests.relay.dns_server import DnsServer, empty, records, running_server
from tests.relay.resolver.authority import running_hierarchy
from tests.relay.resolver.lab import A1, SOA, Lab, failure_of
from tests.relay.resolver.zones import Zone

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient")]

HTTPS = '1 . alpn="h3,h2" ipv4hint="192.0.2.1"'


class Named:
    """An asker that only has a name."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def ask(self, question: Question, deadline: float) -> Answer:
        raise LookupError(self.name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("corp.example", "corp"),
        ("WWW.Corp.Example", "corp"),
        ("a.dev.corp.example", "dev"),
        ("notcorp.example", "other"),
        ("example", "other"),
        ("corp.example.org", "other"),
        ("x.lan", "lan"),
    ],
)
async def test_the_longest_suffix_that_fits(name: str, expected: str) -> None:
    routes = {"corp.example": Named("corp"), "dev.corp.example": Named("dev"), "lan": Named("lan")}
    chosen = Routes(routes, Named("other"))
    with pytest.raises(LookupError, match=f"^{expected}$"):
        await chosen.ask(Question(dns.name.from_text(name), dns.rdatatype.A), 0.0)
    assert chosen.covers(dns.name.from_text(name)) is (expected != "other")
    assert not Routes({}, Named("other")).covers(dns.name.from_text(name))


async def test_a_domain_with_an_upstream_of_its_own(lab: Lab) -> None:
    async with running_server() as inside:
        inside.answer("db.home.local", records("db.home.local. 60 IN A 192.0.2.7"))
        resolver = await lab.resolver(routes={"home.local": [inside.upstream]})
        assert (await resolver.resolve("db.home.local")).addresses == (ip_address("192.0.2.7"),)
        assert (await failure_of(resolver, "other.local")).rcode == "NXDOMAIN"
        assert (await failure_of(resolver, "www.test")).rcode == "NXDOMAIN"
        assert (inside.asked.total(), lab.server.asked.total()) == (2, 2)


async def test_no_other_upstream_is_asked_below_a_route(lab: Lab) -> None:
    async with running_server() as inside:
        resolver = await lab.resolver(routes={"corp.test": [inside.upstream]})
        await failure_of(resolver, "x.corp.test")
        assert lab.server.asked.total() == 0


async def test_https_records(lab: Lab) -> None:
    lab.server.replies["www.test", "HTTPS"] = records(f"www.test. 60 IN HTTPS {HTTPS}")
    lab.server.replies["_8443._https.www.test", "HTTPS"] = records(
        "_8443._https.www.test. 60 IN CNAME www.test.", f"www.test. 60 IN HTTPS {HTTPS}"
    )
    resolver = await lab.resolver()
    found = await resolver.query("WWW.test", dns.rdatatype.HTTPS)
    assert [record.to_text() for record in found.records] == [HTTPS]
    assert (found.addresses, found.aliases, found.ttl) == ((), (), 60)
    assert await resolver.query("www.test.", dns.rdatatype.HTTPS) == found
    assert lab.server.asked["www.test", "HTTPS"] == 1
    assert (await resolver.query("_8443._https.www.test", dns.rdatatype.HTTPS)).aliases == ("www.test",)


async def test_queries_fail_as_resolving_does(lab: Lab) -> None:
    lab.server.replies["www.test", "TXT"] = empty(SOA)
    resolver = await lab.resolver()
    for name, rcode in (
        ("www.test", "NODATA"),
        ("none.test", "NXDOMAIN"),
        ("a b", "NXDOMAIN"),
        ("x.onion", "NXDOMAIN"),
    ):
        with pytest.raises(RelayError) as caught:
            await resolver.query(name, dns.rdatatype.TXT)
        assert (caught.value.failure.kind, caught.value.failure.rcode) == (FailureKind.DNS_ERROR, rcode)
    for rdtype in (dns.rdatatype.ANY, dns.rdatatype.AXFR, dns.rdatatype.OPT):
        with pytest.raises(ValueError, match="not the type of a record"):
            await resolver.query("www.test", rdtype)


async def test_records_are_bounded(lab: Lab) -> None:
    lab.server.truncates = True
    lab.server.replies["www.test", "TXT"] = records(*(f"www.test. 60 IN TXT {n}" for n in range(100)))
    found = await (await lab.resolver()).query("www.test", dns.rdatatype.TXT)
    assert len(found.records) == MAX_RECORDS


def networks(server: DnsServer) -> set[str]:
    return {
        option.to_text()
        for query in server.queries
        for option in query.options
        if isinstance(option, dns.edns.ECSOption)
    }


@pytest.mark.parametrize(
    ("is_on", "network", "told"),
    [
        (True, "192.0.2.128/25", {"ECS 192.0.2.0/24 scope/0"}),
        (True, "198.51.0.0/16", {"ECS 198.51.0.0/16 scope/0"}),
        (True, "2001:db8:1:2::/64", {"ECS 2001:db8:1::/56 scope/0"}),
        (True, None, set()),
        (False, "192.0.2.0/24", set()),
    ],
)
async def test_the_egress_locations_network(lab: Lab, is_on: bool, network: str | None, told: set[str]) -> None:
    lab.server.answer("www.test", records(A1))
    chain = HookChain([resolver_hooks(await lab.resolver(client_subnet=is_on))])
    client = ip_address("203.0.113.77")
    connection = ConnectionContext(0.0, client)
    ctx = ExchangeContext(connection, TunnelKind.TCP, RequestHead(b"CONNECT"), Target("www.test", 443))
    if network is not None:
        ctx.put(EgressSubnet(ip_network(network)))
    assert isinstance(await chain.resolve(ctx), Resolution)
    assert networks(lab.server) == told
    assert lab.server.asked.total() == 2


async def test_each_location_has_its_own_answers(lab: Lab) -> None:
    def located(query: dns.message.Message) -> dns.message.Message | None:
        ecs = next((one for one in query.options if isinstance(one, dns.edns.ECSOption)), None)
        return records(f"www.test. 60 IN A {ecs.address if ecs else '192.0.2.99'}")(query)

    lab.server.answer("www.test", located)
    resolver = await lab.resolver(client_subnet=True)
    for network in ("192.0.2.0/24", None, "198.51.100.0/24", "192.0.2.0/25"):
        found = await resolver.resolve("www.test", subnet=None if network is None else ip_network(network))
        assert str(found.addresses[0]) == ("192.0.2.99" if network is None else network.partition("/")[0])
    assert lab.server.asked["www.test", "A"] == 3


async def test_a_resolver_is_used_between_entering_and_leaving(lab: Lab) -> None:
    resolver = Resolver(ResolverSettings(), [lab.server.upstream])
    with pytest.raises(RuntimeError):
        await resolver.resolve("www.test")
    async with resolver:
        await failure_of(resolver, "www.test")
    with pytest.raises(RuntimeError):
        await resolver.resolve("www.test")


async def test_an_alias_into_a_routed_domain_goes_to_the_route_without_upstreams_too(
    lab: Lab, tmp_path: Path
) -> None:
    """The public zone says something else of the domain."""
    root = Zone(".", ("@ NS ns", "ns A 127.0.2.1", "alias CNAME in.corp", "in.corp A 192.0.2.66"))
    (tmp_path / "hints").write_text(". NS ns.\nns. A 127.0.2.1\n")
    settings = ResolverSettings(mode="iterate", root_hints=tmp_path / "hints")
    lab.server.answer("in.corp", records("in.corp. 60 IN A 10.0.0.7"))
    async with (
        running_hierarchy({"127.0.2.1": [root]}) as hierarchy,
        Resolver(settings, (), {"corp": [lab.server.upstream]}, authority_port=hierarchy.port) as resolver,
    ):
        found = await resolver.resolve("alias")
        assert (list(map(str, found.addresses)), found.aliases) == (["10.0.0.7"], ("in.corp",))
