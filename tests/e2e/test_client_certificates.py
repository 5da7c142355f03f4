"""Mutual TLS of a running relay: which clients get in, what the others are told, and who they are then."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from relay.client import ClientError
from relay.hooks import AuthScheme, Continue, ExchangeContext, Hooks, Principal
from relay.quic.engine import Certificate, EngineError, EngineName
from relay.telemetry import Metric
from tests.e2e.command import URL, complaint
from tests.e2e.origins import tcp_echo, tcp_listener
from tests.e2e.rig import KEY, Relay, running_relay
from tests.e2e.test_cli_commands import forwarder
from tests.relay.hooks_rig import application
from tests.relay.quic.authority import CA, SERVER_USE, Issued
from tests.relay.rig import running_relay as running_with_hooks

pytestmark = pytest.mark.anyio

ROOT = Issued.root()
MIDDLE = ROOT.issue("middle", [CA])
LIBRARIES = ["qh3", "aioquic"]

GOOD = {"direct": ROOT.issue(), "chain": MIDDLE.issue(), "no uses": ROOT.issue(extensions=[])}
BAD = {
    "expired": (ROOT.issue(days=-1), 45),
    "not valid yet": (ROOT.issue(days=20), 45),
    "wrong authority": (Issued.root().issue(), 48),
    "incomplete chain": (replace(MIDDLE.issue(), chain=[]), 48),
    "for servers": (ROOT.issue(extensions=[SERVER_USE]), 43),
}


def settings(folder: Path, mode: str = "required", clients: list[str] | None = None, **more: str) -> dict[str, str]:
    """Settings of a relay that asks for certificates of `ROOT`."""
    file = folder / "clients.pem"
    trust(file, ROOT)
    return {
        "tls.client_certificates": mode,
        "tls.client_ca": str(file),
        "tls.clients": json.dumps(clients or []),
        **more,
    }


async def refusal(relay: Relay, library: str, certificate: Certificate | None, key: str | None = KEY) -> str:
    """What a client is told that gets no tunnel. Its own handshake is complete before the relay looks at its
    certificate, so it learns of it when it connects or right afterwards."""
    with pytest.raises(ClientError) as caught:
        async with relay.client(library, key=key, certificate=certificate) as client:
            await client.open_tcp("127.0.0.1", 9)
    return str(caught.value)


@pytest.mark.parametrize("library", LIBRARIES)
async def test_good_certificates_get_in(certificates: Path, tmp_path: Path, library: str) -> None:
    async with tcp_echo() as port, running_relay(certificates, "aioquic", settings(tmp_path)) as relay:
        for name, issued in GOOD.items():
            certificate = issued.write(tmp_path, name)
            async with relay.client(library, certificate=certificate) as client:
                await client.open_tcp("127.0.0.1", port)
        assert relay.count(Metric.HANDSHAKES_FAILED) == 0


@pytest.mark.parametrize("mode", ["required", "optional"])
@pytest.mark.parametrize("library", LIBRARIES)
async def test_bad_ones_get_their_alert(certificates: Path, tmp_path: Path, library: str, mode: str) -> None:
    async with running_relay(certificates, "aioquic", settings(tmp_path, mode)) as relay:
        for name, (issued, alert) in BAD.items():
            told = await refusal(relay, library, issued.write(tmp_path, name))
            assert f"(alert {alert})" in told, name
    assert relay.count(Metric.HANDSHAKES_FAILED) == len(BAD)
    assert relay.count(Metric.CONNECTIONS_OPENED) == relay.count(Metric.REQUESTS_REFUSED) == 0


@pytest.mark.parametrize("library", LIBRARIES)
async def test_none_is_refused_where_one_is_required(certificates: Path, tmp_path: Path, library: str) -> None:
    async with running_relay(certificates, "aioquic", settings(tmp_path, clients=["any=*"])) as relay:
        assert await refusal(relay, library, None) == "the relay wants a certificate of its clients"
    assert relay.count(Metric.HANDSHAKES_FAILED) == 1


@pytest.mark.parametrize("library", LIBRARIES)
async def test_none_is_no_matter_where_it_is_optional(certificates: Path, tmp_path: Path, library: str) -> None:
    async with (
        tcp_listener() as origin,
        running_relay(certificates, "aioquic", settings(tmp_path, "optional", ["any=*"])) as relay,
    ):
        async with relay.client(library) as client:
            await client.open_tcp("127.0.0.1", origin.port)
        assert await refusal(relay, library, None, key=None) == "the relay answered 407"


NAMED, UNNAMED = ROOT.issue(), ROOT.issue()
FIRST_HOP = Principal("first-hop", AuthScheme.CERTIFICATE)
OTHERS = Principal("others", AuthScheme.CERTIFICATE)
KNOWN = Principal("preshared-1", AuthScheme.PRESHARED)


@pytest.mark.parametrize("others", [[], ["others=*"]])
async def test_who_a_certificate_is(certificates: Path, tmp_path: Path, others: list[str]) -> None:
    seen: list[Principal | None] = []

    async def look(ctx: ExchangeContext) -> Continue:
        seen.append(ctx.principal)
        return Continue()

    async def ask(relay: Relay, issued: Issued, key: str | None) -> None:
        async with relay.client(key=key, certificate=issued.write(tmp_path, "hop")) as client:
            await client.open_tcp("127.0.0.1", port)

    found = settings(tmp_path, "optional", [f"first-hop={NAMED.fingerprint}", *others])
    changes = {name.replace(".", "__"): value for name, value in found.items()}
    hooks = application(Hooks(authorize=look))
    async with (
        tcp_echo() as port,
        running_with_hooks(certificates, hooks, engine=EngineName.AIOQUIC, key=KEY, **changes) as inside,
    ):
        relay = Relay(certificates, inside.server, inside.metrics)
        for key in (None, KEY, "wrong"):
            await ask(relay, NAMED, key)
        assert seen == [FIRST_HOP, KNOWN, FIRST_HOP]  # what a request says goes before its connection
        if others:
            await ask(relay, UNNAMED, None)
            assert seen[3:] == [OTHERS]
        else:
            certificate = UNNAMED.write(tmp_path, "unnamed")
            assert await refusal(relay, "qh3", certificate, key=None) == "the relay answered 407"


async def test_quotas_know_a_certificate_by_its_name(certificates: Path, tmp_path: Path) -> None:
    hop = ROOT.issue()
    certificate = hop.write(tmp_path, "hop")
    quotas = {"quotas.overrides": '[{"principal": "first-hop", "tunnels": 2}]'}
    changes = settings(tmp_path, "required", [f"first-hop={hop.fingerprint}"], **quotas)
    async with (
        tcp_listener() as origin,
        running_relay(certificates, "aioquic", changes) as relay,
        relay.client(key=None, certificate=certificate) as one,
        relay.client("aioquic", key=None, certificate=certificate) as two,
    ):
        await one.open_tcp("127.0.0.1", origin.port)
        await two.open_tcp("127.0.0.1", origin.port)
        for client in (one, two):
            with pytest.raises(ClientError) as caught:
                await client.open_tcp("127.0.0.1", origin.port)
            assert caught.value.status == 429


def trust(file: Path, authority: Issued) -> None:
    """Write a file of authorities anew."""
    file.write_bytes(authority.certificate.public_bytes(Encoding.PEM))


async def test_new_authorities_without_a_restart(certificates: Path, tmp_path: Path) -> None:
    new = Issued.root("new")
    old, fresh = ROOT.issue().write(tmp_path, "old"), new.issue().write(tmp_path, "fresh")
    changes = settings(tmp_path)
    file = tmp_path / "clients.pem"
    async with (
        tcp_echo() as port,
        running_relay(certificates, "aioquic", changes) as relay,
        relay.client(certificate=old) as kept,
    ):
        assert "(alert 48)" in await refusal(relay, "qh3", fresh)
        file.unlink()
        with pytest.raises(EngineError, match=r"^tls\.client_ca: cannot read "):
            relay.server.reload_certificate()
        assert "(alert 48)" in await refusal(relay, "qh3", fresh)  # the old ones stay in force
        trust(file, new)
        relay.server.reload_certificate()
        async with relay.client(certificate=fresh) as client:
            await client.open_tcp("127.0.0.1", port)
        assert "(alert 48)" in await refusal(relay, "qh3", old)
        await kept.open_tcp("127.0.0.1", port)  # connections that are open stay


@pytest.mark.parametrize("library", LIBRARIES)
async def test_who_is_not_asked_sends_no_certificate(certificates: Path, tmp_path: Path, library: str) -> None:
    bad = Issued.root("unknown").issue().write(tmp_path, "unknown")
    for engine in EngineName:
        async with (
            tcp_echo() as port,
            running_relay(certificates, engine.value) as relay,
            relay.client(library, certificate=bad) as client,
        ):
            await client.open_tcp("127.0.0.1", port)


@pytest.mark.parametrize("library", LIBRARIES)
async def test_the_forwarder_proves_itself(certificates: Path, tmp_path: Path, library: str) -> None:
    hop = ROOT.issue()
    certificate = hop.write(tmp_path, "hop")
    changes = settings(tmp_path, "required", [f"first-hop={hop.fingerprint}"])
    options = [f"--ca={certificates / 'ca.pem'}", f"--engine={library}"]
    proof = [f"--certificate={certificate.chain}", f"--certificate-key={certificate.private_key}"]
    async with (
        tcp_echo() as port,
        running_relay(certificates, "aioquic", changes) as relay,
        forwarder("tcp", f"127.0.0.1:{port}", relay.url, *options, *proof) as (address, _),
    ):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"through")
        writer.write_eof()
        async with asyncio.timeout(10):
            assert await reader.read() == b"through"
        writer.close()
        await writer.wait_closed()


class TestMistakes:
    def test_an_engine_that_cannot_ask(self, tmp_path: Path, good: list[str]) -> None:
        given = [f"--set={name}={value}" for name, value in settings(tmp_path).items()]
        line = complaint("check", *good, *given)
        assert line == (
            "tls.client_certificates (from the command line), quic.engine (from the command line): "
            "qh3 cannot ask clients for certificates; the engine aioquic can"
        )

    def test_authorities_that_cannot_be_read(self, tmp_path: Path, good: list[str]) -> None:
        given = {**settings(tmp_path), "quic.engine": "aioquic", "tls.client_ca": str(tmp_path / "none.pem")}
        line = complaint("serve", *good, *(f"--set={name}={value}" for name, value in given.items()))
        assert line == f"tls.client_ca: cannot read {tmp_path / 'none.pem'}: No such file or directory"

    def test_half_a_certificate(self, tmp_path: Path) -> None:
        line = complaint("forward", "tcp", "example.com:80", "--relay", URL, f"--certificate={tmp_path}")
        assert line == "--certificate, --certificate-key: one is of no use without the other"

    def test_a_certificate_that_is_none(self, tmp_path: Path) -> None:
        file = tmp_path / "none.pem"
        given = (f"--certificate={file}", f"--certificate-key={file}")
        line = complaint("forward", "tcp", "example.com:80", "--relay", URL, *given)
        assert line == f"--certificate: cannot read {file}: No such file or directory"
