"""Other validators over the same zones: Unbound and delv must see what we see. Skipped where not installed."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from relay.resolver.dnssec import Security
from tests.relay.resolver.authority import Recursive, running_servers
from tests.relay.resolver.variants import VARIANTS, Variant
from tests.relay.resolver.world import World

pytestmark = pytest.mark.anyio

_TRIES = 5
"Somebody else may take a free port first."

_UNBOUND = """
server:
  interface: 127.0.0.1@{port}
  access-control: 127.0.0.0/8 allow
  do-not-query-localhost: no
  do-daemonize: no
  chroot: ""
  username: ""
  directory: "{folder}"
  pidfile: ""
  use-syslog: no
  logfile: ""
  verbosity: 1
  num-threads: 1
  module-config: "validator iterator"
  trust-anchor-file: "{folder}/anchors"
  local-zone: "test." nodefault
remote-control:
  control-enable: no
forward-zone:
  name: "."
  forward-addr: 127.0.0.1@{upstream}
"""


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if found is None:
        pytest.skip(f"{name} is not installed (Debian's package {package})")
    return found


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@asynccontextmanager
async def _running_unbound(folder: Path, upstream: int, world: World) -> AsyncIterator[int]:
    (folder / "anchors").write_text(world.anchor_text)
    for _ in range(_TRIES):
        port = _free_port()
        (folder / "conf").write_text(_UNBOUND.format(port=port, folder=folder, upstream=upstream))
        process = await asyncio.create_subprocess_exec(
            _program("unbound", "unbound"), "-d", "-c", str(folder / "conf"), stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(10):
                while process.returncode is None and await _ask(port, VARIANTS[0], timeout=0.1) is None:
                    pass
            if process.returncode is None:
                yield port
                return
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
    pytest.fail("unbound does not start")


async def _ask(port: int, variant: Variant, timeout: float) -> dns.message.Message | None:
    query = dns.message.make_query(variant.name, variant.rdtype, want_dnssec=True)
    try:
        return await dns.asyncquery.udp(query, "127.0.0.1", timeout, port)
    except (dns.exception.Timeout, OSError):
        return None


async def test_unbound_judges_every_variant_as_we_do(tmp_path: Path, world: World) -> None:
    _program("unbound", "unbound")
    found: dict[str, Security] = {}
    async with (
        running_servers({"127.0.0.1": Recursive(world)}) as upstream,
        _running_unbound(tmp_path, upstream.port, world) as port,
    ):
        for variant in VARIANTS:
            response = await _ask(port, variant, timeout=5)
            assert response is not None, variant
            if response.rcode() == dns.rcode.SERVFAIL:
                found[str(variant)] = Security.BOGUS
            else:
                is_secure = response.flags & dns.flags.AD
                found[str(variant)] = Security.SECURE if is_secure else Security.INSECURE
    ours = {str(variant): variant.security for variant in VARIANTS if "unbound" not in variant.differs}
    assert {name: found[name] for name in ours} == ours


async def test_delv_judges_every_variant_as_we_do(tmp_path: Path, world: World) -> None:
    delv = _program("delv", "bind9-dnsutils")
    tag, algorithm, digest_type, digest = world.zones[dns.name.root].ds().split()
    anchors = tmp_path / "anchors"
    anchors.write_text(f'trust-anchors {{ . static-ds {tag} {algorithm} {digest_type} "{digest}"; }};\n')
    found: dict[str, Security] = {}
    async with running_servers({"127.0.0.1": Recursive(world)}) as upstream:
        for variant in VARIANTS:
            rdtype = dns.rdatatype.to_text(variant.rdtype)
            options = ("-a", str(anchors), "+root", "-p", str(upstream.port), "@127.0.0.1", variant.name, rdtype)
            process = await asyncio.create_subprocess_exec(
                delv, *options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            text = (await process.communicate())[0].decode()
            if "resolution failed" in text and "negative response" not in text:
                found[str(variant)] = Security.BOGUS
            else:
                found[str(variant)] = Security.INSECURE if "unsigned answer" in text else Security.SECURE
    ours = {str(variant): variant.security for variant in VARIANTS if "delv" not in variant.differs}
    assert {name: found[name] for name in ours} == ours
