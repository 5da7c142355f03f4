"""The resolver as settings make it: who is asked, what is made of signatures, and files that cannot be used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import dns.flags
import dns.message
import pytest
from dns.rdatatype import RdataType

from relay.cli import main
from relay.errors import Failure, FailureKind, Side
from relay.quic.development import write_certificates
from relay.resolver import Resolver, check_resolver_files
from relay.settings import ResolverSettings, SettingsError, Upstream, UpstreamTransport, load_settings
from relay.telemetry import CounterMetrics, Metric
from tests.relay.dns_server import Reply, records
from tests.relay.resolver.authority import Recursive, running_hierarchy, running_servers
from tests.relay.resolver.encrypted import running_encrypted
from tests.relay.resolver.lab import failure_of
from tests.relay.resolver.world import World

pytestmark = pytest.mark.anyio

BOGUS = Failure(FailureKind.DNS_ERROR, Side.TARGET, rcode="SERVFAIL", info_code=6)


@asynccontextmanager
async def forwarding(world: World, folder: Path, **settings: object) -> AsyncIterator[Resolver]:
    """Run a resolver that asks one which knows the world and validates nothing."""
    anchors = folder / "anchors"
    anchors.write_text(world.anchor_text)
    chosen = ResolverSettings.model_validate({"trust_anchors": anchors, **settings})
    async with running_servers({"127.0.0.1": Recursive(world)}) as servers:
        upstream = Upstream(ip_address("127.0.0.1"), servers.port)
        async with Resolver(chosen, [upstream], {"forged.test": [upstream]}) as resolver:
            yield resolver


async def test_iterate_and_validate(world: World, tmp_path: Path) -> None:
    (tmp_path / "anchors").write_text(world.anchor_text)
    (tmp_path / "hints").write_text(f". NS ns.\nns. A {next(iter(world.addresses.values()))}\n")
    settings = ResolverSettings(
        mode="iterate", dnssec="validate", trust_anchors=tmp_path / "anchors", root_hints=tmp_path / "hints"
    )
    served = {address: [world.zones[apex]] for apex, address in world.addresses.items()}
    metrics = CounterMetrics()
    async with (
        running_hierarchy(served) as hierarchy,
        Resolver(settings, (), metrics=metrics, authority_port=hierarchy.port) as resolver,
    ):
        found = await resolver.resolve("away.example.test")
        assert sorted(map(str, found.addresses)) == ["192.0.2.1", "192.0.2.2"]
        assert found.aliases == ("www.hashed.test",)
        assert (await resolver.query("www.example.test", RdataType.A)).is_authenticated
        assert not (await resolver.query("www.plain.test", RdataType.A)).is_authenticated
        assert await failure_of(resolver, "alias.forged.test") == BOGUS
        assert (await failure_of(resolver, "none.hashed.test")).rcode == "NXDOMAIN"
        assert metrics.value(Metric.DNS_QUERIES) >= 10


async def test_forward_and_validate(world: World, tmp_path: Path) -> None:
    async with forwarding(world, tmp_path, dnssec="validate") as resolver:
        assert (await resolver.query("www.example.test", RdataType.A)).is_authenticated
        assert (await failure_of(resolver, "www.expired.test")).info_code == 7
        assert not (await resolver.query("www.forged.test", RdataType.A)).is_authenticated  # it has a route


async def test_a_route_is_validated_from_anchors_of_its_own(world: World, tmp_path: Path) -> None:
    async with forwarding(world, tmp_path, dnssec="validate") as resolver:
        await resolver.query("www.forged.test", RdataType.A)
    anchors = tmp_path / "own"
    zone = next(zone for zone in world.zones.values() if zone.apex.labels[0] == b"forged")
    anchors.write_text(f"forged.test. DS {zone.ds()}\n")
    async with forwarding(world, tmp_path, dnssec="validate", trust_anchors=anchors) as resolver:
        assert await failure_of(resolver, "www.forged.test") == BOGUS


async def test_domains_left_unvalidated(world: World, tmp_path: Path) -> None:
    async with forwarding(world, tmp_path, dnssec="validate", unsigned_domains=["expired.test"]) as resolver:
        assert (await resolver.resolve("www.expired.test")).addresses


async def test_off_believes_nobody(world: World, tmp_path: Path) -> None:
    async with forwarding(world, tmp_path) as resolver:
        assert not (await resolver.query("www.example.test", RdataType.A)).is_authenticated
        assert (await resolver.resolve("www.expired.test")).addresses


@pytest.mark.parametrize("mode", ["trust_ad", "off"])
@pytest.mark.parametrize("is_set", [True, False])
async def test_the_ad_bit_of_an_encrypted_upstream(tmp_path: Path, mode: str, is_set: bool) -> None:
    def reply(query: dns.message.Message) -> dns.message.Message | None:
        assert query.flags & dns.flags.AD
        response = records("www.test. 60 IN A 192.0.2.1")(query)
        assert response is not None
        response.flags |= dns.flags.AD if is_set else 0
        return response

    await asyncio.to_thread(write_certificates, tmp_path, ["localhost", "127.0.0.1"])
    async with running_encrypted(UpstreamTransport.TLS, tmp_path) as server:
        checked: Reply = reply
        server.dns.answer("www.test", checked)
        settings = ResolverSettings.model_validate({"dnssec": mode, "upstreams": [str(server.upstream)]})
        async with Resolver(settings, [server.upstream]) as resolver:
            found = await resolver.query("www.test", RdataType.A)
            assert found.is_authenticated == (is_set and mode == "trust_ad")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"resolver.dnssec": "trust_ad"}, "resolver.upstreams"),
        ({"resolver.dnssec": "trust_ad", "resolver.upstreams": '["tls://192.0.2.1", "192.0.2.2"]'}, "in clear text"),
        ({"resolver.dnssec": "trust_ad", "resolver.mode": "iterate"}, "has none"),
        ({"resolver.mode": "iterate", "resolver.upstreams": '["192.0.2.1"]'}, "asks no upstream"),
        ({"resolver.dnssec": "yes"}, "resolver.dnssec"),
        ({"resolver.unsigned_domains": '["not a domain"]'}, "resolver.unsigned_domains"),
    ],
)
def test_settings_that_do_not_fit_together(overrides: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {}, overrides)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", ["trust_anchors", "root_hints"])
@pytest.mark.parametrize("text", [None, "nonsense", ". IN MX 1 a."])
def test_files_that_cannot_be_used(tmp_path: Path, setting: str, text: str | None) -> None:
    file = tmp_path / "file"
    if text is not None:
        file.write_text(text)
    settings = ResolverSettings.model_validate({"mode": "iterate", "dnssec": "validate", setting: file})
    with pytest.raises(SettingsError, match=f"^resolver.{setting}: "):
        check_resolver_files(settings)


def test_check_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--set", "resolver.mode=iterate", "--set", "resolver.dnssec=validate"]) == 0
    assert (
        "# names are asked of the authoritative servers themselves, from the shipped root hints down "
        "(in clear text)\n"
        "# DNSSEC is validated here, from the shipped keys of the root on; bogus answers are refused\n"
    ) in capsys.readouterr().out
    upstreams = 'resolver.upstreams=["tls://192.0.2.1"]'
    assert main(["check", "--set", upstreams, "--set", "resolver.dnssec=trust_ad"]) == 0
    assert "# DNSSEC is validated by the upstreams, and their AD bit is believed\n" in capsys.readouterr().out
