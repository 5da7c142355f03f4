"""Unbound, over each transport that it has, beside what `dig` says of it."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import anyio.to_thread
import dns.rdatatype
import pytest

from interop.bench.servers import choose_port
from relay.errors import RelayError
from relay.quic.development import write_certificates
from relay.resolver import Resolver
from relay.settings import ResolverSettings, Upstream, UpstreamTransport

_MISSING = [
    f"{command} (Debian: {package})"
    for command, package in (("unbound", "unbound"), ("dig", "bind9-dnsutils"))
    if shutil.which(command) is None
]
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}"),
]

_ZONE = """\
$ORIGIN test.
$TTL 300
@ SOA ns hostmaster 1 3600 900 86400 60
@ NS ns
ns A 192.0.2.53
www A 192.0.2.1
www A 192.0.2.2
www AAAA 2001:db8::1
www HTTPS 1 . alpn="h2,h3" ipv4hint="192.0.2.1"
four A 192.0.2.4
six AAAA 2001:db8::6
alias CNAME cdn
cdn CNAME edge.cdn
edge.cdn A 192.0.2.77
empty TXT "nothing else"
*.wild A 192.0.2.9
d DNAME www2
x.www2 A 192.0.2.10
dangling CNAME nowhere
""" + "".join(f"large AAAA 2001:db8:1::{number:x}\n" for number in range(1, 120))
_NAMES = ("www", "four", "six", "alias", "edge.cdn", "empty", "a.wild", "x.d", "dangling", "none", "WWW", "ns")
_CONFIGURATION = """\
server:
  interface: 127.0.0.1@{plain}
  interface: 127.0.0.1@{tls}
  interface: 127.0.0.1@{https}
  tls-port: {tls}
  https-port: {https}
  tls-service-key: "{folder}/server.key"
  tls-service-pem: "{folder}/server.pem"
  http-endpoint: "/dns-query"
  access-control: 127.0.0.0/8 allow
  do-daemonize: no
  use-syslog: no
  logfile: "{folder}/unbound.log"
  pidfile: ""
  chroot: ""
  username: ""
  directory: "{folder}"
  local-zone: "test." nodefault
  module-config: "iterator"
auth-zone:
  name: "test."
  zonefile: "{folder}/test.zone"
  for-downstream: yes
  for-upstream: no
  fallback-enabled: no
remote-control:
  control-enable: no
"""


@dataclass(frozen=True, eq=False)
class Unbound:
    """A running server, by the ports of its transports."""

    folder: Path
    ports: dict[UpstreamTransport, int]

    def upstream(self, transport: UpstreamTransport) -> Upstream:
        """Return it as an upstream."""
        ca_file = self.folder / "ca.pem" if transport.is_encrypted else None
        name = "localhost" if transport.is_encrypted else None
        return Upstream(ip_address("127.0.0.1"), self.ports[transport], transport, name, ca_file=ca_file)

    def dig(self, name: str, rdtype: str) -> tuple[str, list[str]]:
        """Return the response code and the records of an answer."""
        port = str(self.ports[UpstreamTransport.UDP])
        command = ["dig", "@127.0.0.1", "-p", port, "+tries=1", "+noall", "+answer", "+comments", name, rdtype]
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.splitlines()
        status = next(line.split("status: ")[1].split(",")[0] for line in lines if "status: " in line)
        return status, [line for line in lines if line and not line.startswith(";")]

    @cache  # noqa: B019 - there is one server, and it ends with the module
    def expected(self, name: str, rdtype: str) -> tuple[object, set[str]]:
        """Return what the resolver should find: the aliases or the reason, and the records."""
        status, lines = self.dig(name, rdtype)
        words = [line.split() for line in lines]
        records = {one[4] for one in words if one[3] == rdtype}
        aliases = tuple(one[4].rstrip(".") for one in words if one[3] == "CNAME")
        if status == "NOERROR" and not records and aliases:  # an authority may leave the rest to the one who asks
            return self.expected(aliases[-1], rdtype)
        return (aliases, records) if records else ("NODATA" if status == "NOERROR" else status, set())


@pytest.fixture(scope="module")
def unbound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unbound]:
    """Run the server with a zone of its own."""
    folder = tmp_path_factory.mktemp("unbound")
    write_certificates(folder, ["localhost"])
    plain, tls, https = (choose_port("127.0.0.1") for _ in range(3))
    (folder / "test.zone").write_text(_ZONE)
    (folder / "unbound.conf").write_text(_CONFIGURATION.format(plain=plain, tls=tls, https=https, folder=folder))
    with subprocess.Popen(["unbound", "-d", "-c", folder / "unbound.conf"], stderr=subprocess.PIPE) as server:
        kinds = UpstreamTransport
        made = Unbound(folder, {kinds.UDP: plain, kinds.TCP: plain, kinds.TLS: tls, kinds.HTTPS: https})
        deadline = time.monotonic() + 10
        try:
            while not _answers(made):
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"unbound did not start: {(folder / 'unbound.log').read_text()[-2000:]}")
                time.sleep(0.02)
            yield made
        finally:
            server.terminate()
            server.communicate(timeout=10)


def _answers(server: Unbound) -> bool:
    try:
        return server.dig("ns.test", "A")[0] == "NOERROR"
    except subprocess.CalledProcessError:
        return False


@pytest.mark.parametrize(
    "transport", [kind for kind in UpstreamTransport if kind is not UpstreamTransport.QUIC], ids=str
)
async def test_answers_are_those_that_dig_gets(unbound: Unbound, transport: UpstreamTransport) -> None:
    async with Resolver(ResolverSettings(), [unbound.upstream(transport)]) as resolver:
        for name in (*(f"{name}.test" for name in _NAMES), "large.test"):
            for rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.HTTPS):
                expected = await anyio.to_thread.run_sync(unbound.expected, name, rdtype.name)
                try:
                    found = await resolver.query(name, rdtype)
                except RelayError as error:
                    ours: tuple[object, ...] = (error.failure.rcode, set())
                else:
                    records = {record.to_text().split()[0] for record in found.records}
                    ours = (found.aliases, records | {str(address) for address in found.addresses})
                if name == "large.test" and rdtype is dns.rdatatype.AAAA:
                    assert isinstance(ours[1], set)
                    assert len(ours[1]) == 8
                    assert ours[1] <= expected[1]
                else:
                    assert ours == expected, (name, rdtype)
