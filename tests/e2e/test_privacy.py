"""No output of the relay names a client or a target: real tunnels are run, then all output is searched.

At level debug, in both log formats, with every kind of ending. Searched for are the names, addresses, ports, keys
and connection ids that were used, as text and in the usual encodings.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import re
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from masque.connect import connect_head
from masque.errors import ErrorCode
from relay.auth import basic_entry, generate_key, preshared_entry
from relay.conformance.wire import WireClient, WireStream, headers
from tests.e2e.origins import TcpListener, TcpPeer, UdpOrigin, tcp_listener, udp_origin
from tests.e2e.rig import (
    KEY,
    Relay,
    RelayProcess,
    command_environment,
    running_process,
    running_relay,
    settings_of,
    start_command,
)
from tests.relay.dns_server import DnsServer, empty, records, running_server, silent

pytestmark = pytest.mark.anyio

TCP_TARGET = "127.41.52.63"
UDP_TARGET = "127.74.85.96"
FORBIDDEN_TARGET = "10.117.28.39"
CLIENT = "127.97.86.75"
NAMES = {
    "tcp": "quarrelsome-heron.example",
    "alias": "melancholy-stoat.example",
    "udp": "bashful-lynx.example",
    "absent": "elusive-marmot.example",
    "silent": "taciturn-osprey.example",
}
USER, PASSWORD = "wandering-ibis", "sesquipedalian-tapir"
BAD_KEY = generate_key()
PAYLOAD = b"confidential-pelican-payload"
REASON = "peevish-walrus-reason"


class Secrets:
    """What no output may hold, each in its usual forms."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._numbers: dict[str, int] = {}

    def text(self, name: str, value: str | bytes) -> None:
        """Words: as they are, in hex, and in base64 at each of its three offsets."""
        data = value.encode() if isinstance(value, str) else value
        if isinstance(value, str):
            self._texts[name] = value.lower()
        self._texts[f"{name} in hex"] = data.hex()
        for offset in range(3):
            encoded = base64.b64encode(bytes(offset) + data).decode().rstrip("=")
            core = encoded[4 if offset else 0 :][: len(data) // 3 * 4 - 4]
            if len(core) >= 8:
                self._texts[f"{name} in base64 at {offset}"] = core.lower()

    def address(self, name: str, value: str) -> None:
        """An address: as text, and as a number in hex and decimal."""
        packed = ipaddress.ip_address(value).packed
        self._texts[name] = value
        self._texts[f"{name} in hex"] = packed.hex()
        self._texts[f"{name} in Python's hex"] = "".join(f"\\x{byte:02x}" for byte in packed)
        self._numbers[f"{name} as a number"] = int.from_bytes(packed)

    def port(self, name: str, value: int) -> None:
        """A port, as a number of its own."""
        self._numbers[name] = value

    def found_in(self, output: str) -> list[str]:
        """The names of all that `output` holds."""
        lower = output.lower()
        found = [name for name, value in self._texts.items() if value in lower]
        found += [name for name, value in self._numbers.items() if re.search(rf"(?<!\d){value}(?!\d)", lower)]
        return found


def test_search_finds_each_form() -> None:
    hidden = Secrets()
    hidden.text("name", "quarrelsome-heron.example")
    hidden.address("address", TCP_TARGET)
    hidden.port("port", 40961)
    assert hidden.found_in("ordinary text 140961 127.41.52.6 2026-11-23T06:55:30.409610Z") == []
    for sample in (
        "Quarrelsome-Heron.example.",
        b"quarrelsome-heron.example".hex(),
        base64.b64encode(b"user:quarrelsome-heron.example:80").decode(),
        base64.b64encode(b"u:quarrelsome-heron.example:80").decode(),
        "peer=('127.41.52.63', 1)",
        "7f29343f",
        str(int(ipaddress.ip_address(TCP_TARGET))),
        "port=40961,",
    ):
        assert hidden.found_in(f"line {sample} line"), sample


class Scene:
    """Targets, a resolver and credentials, and a client that goes through every kind of ending with them."""

    def __init__(self, tcp: TcpListener, udp: UdpOrigin, dns_server: DnsServer) -> None:
        self.tcp = tcp
        self.udp = udp
        self.hidden = Secrets()
        self.settings = {
            "resolver.upstreams": json.dumps([f"127.0.0.1:{dns_server.upstream.port}"]),
            "resolver.timeout": "0.3",
            "auth.basic": json.dumps([basic_entry(USER, PASSWORD)]),
            "telemetry.level": "debug",
            "limits.tcp_idle": "2",
            "limits.drain": "0.6",
        }
        dns_server.answer(
            NAMES["tcp"],
            records(f"{NAMES['tcp']}. 60 IN CNAME {NAMES['alias']}.", f"{NAMES['alias']}. 60 IN A {TCP_TARGET}"),
            empty(),
        )
        dns_server.answer(NAMES["udp"], records(f"{NAMES['udp']}. 60 IN A {UDP_TARGET}"), empty())
        dns_server.answer(NAMES["silent"], silent, silent)
        for kind, name in NAMES.items():
            self.hidden.text(f"the {kind} target's name", name)
        addresses = {"tcp": TCP_TARGET, "udp": UDP_TARGET, "forbidden": FORBIDDEN_TARGET}
        for kind, address in addresses.items():
            self.hidden.address(f"the {kind} target's address", address)
        self.hidden.address("the client's address", CLIENT)
        self.hidden.port("the tcp target's port", tcp.port)
        self.hidden.port("the udp target's port", udp.port)
        for name, value in {"key": KEY, "bad key": BAD_KEY, "user": USER, "password": PASSWORD}.items():
            self.hidden.text(f"the {name}", value)
        self.hidden.text("the key's digest", preshared_entry(KEY))
        self.hidden.text("the payload", PAYLOAD)
        self.hidden.text("the reason", REASON)

    async def play(self, relay: Relay | RelayProcess, library: str) -> None:
        """Every kind of ending, on two connections."""
        async with relay.wire(library, source=CLIENT) as client:
            self._note(client)
            await self._work(client)
            await self._refusals(client)
            await self._faults(client)
            client.link.close(ErrorCode.H3_NO_ERROR, REASON)
        async with relay.wire(library, source=CLIENT) as client:
            self._note(client)
            client.send(client.open_stream(), b"\0\x1c" + PAYLOAD)  # DATA before HEADERS closes the connection
            await client.until(lambda: client.end_code is not None)

    def _note(self, client: WireClient) -> None:
        self.hidden.port("the client's port", client.address[1])
        self.hidden.text("a connection id", client.link.engine.connection_id)

    async def _work(self, client: WireClient) -> None:
        """Tunnels that work: ended in order, reset by either side, and left to idle out."""
        for ending in ("order", "client", "target", "idle"):
            stream = await client.answered(client.connect(NAMES["tcp"], self.tcp.port))
            assert stream.status == 200
            assert NAMES["alias"].encode() in (stream.field(b"proxy-status") or b"")
            peer = await self.tcp.accept()
            self.hidden.port("the relay's port towards the tcp target", peer.sock.getpeername()[1])
            client.send_content(stream, PAYLOAD, fin=ending == "order")
            assert await peer.receive() == PAYLOAD
            await self._end(client, stream, peer, ending)
        stream = await client.answered(client.connect_udp(NAMES["udp"], self.udp.port))
        client.send_datagram(stream, PAYLOAD)
        payload, address = await self.udp.receive()
        assert payload == PAYLOAD
        self.hidden.port("the relay's port towards the udp target", address[1])
        client.send(stream, b"", fin=True)
        await client.ended(stream)

    @staticmethod
    async def _end(client: WireClient, stream: WireStream, peer: TcpPeer, ending: str) -> None:
        """Let a TCP tunnel end this way."""
        match ending:
            case "order":
                peer.close()
                await client.ended(stream)
            case "client":
                client.reset(stream, ErrorCode.H3_REQUEST_CANCELLED)
            case "target":
                peer.reset()
                await client.cut(stream)
            case _:
                await client.cut(stream)

    async def _refusals(self, client: WireClient) -> None:
        """Requests that are refused, each for another reason."""
        closed = self.udp.port  # nobody listens there for TCP
        for host, port, status in (
            (NAMES["absent"], 443, 502),
            (NAMES["silent"], 443, 504),
            (FORBIDDEN_TARGET, 443, 502),
            (NAMES["tcp"], 25, 403),
            (NAMES["udp"], closed, 502),
        ):
            stream = await client.answered(client.connect(host, port))
            assert stream.status == status
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode())
        wrong = base64.b64encode(f"{USER}:{PASSWORD}?".encode())
        for credentials, status in (
            (b"Basic " + basic, 403),
            (b"Basic " + wrong, 407),
            (b"Preshared " + BAD_KEY.encode(), 407),
        ):
            head = connect_head(NAMES["tcp"], 25, ((b"proxy-authorization", credentials),))
            stream = await client.answered(client.request(head))
            assert stream.status == status

    async def _faults(self, client: WireClient) -> None:
        """Broken rules, with the target in what is broken."""
        authority = f"{NAMES['tcp']}:{self.tcp.port}".encode()
        stream = client.open_stream()
        client.send(stream, headers((b":method", b"CONNECT"), (b":authority", authority), (b"Upper", b"case")))
        await client.cut(stream)
        stream = await client.answered(client.connect_udp(NAMES["udp"], self.udp.port))
        client.send_content(stream, b"\0\x30" + PAYLOAD, fin=True)  # ends inside a capsule
        await client.cut(stream)


async def enter_scene(stack: AsyncExitStack) -> Scene:
    """A scene whose targets live as long as the stack."""
    return Scene(
        await stack.enter_async_context(tcp_listener(TCP_TARGET)),
        await stack.enter_async_context(udp_origin(UDP_TARGET)),
        await stack.enter_async_context(running_server()),
    )


@pytest.mark.parametrize("log_format", ["console", "json"])
async def test_no_output_joins_client_and_target(certificates: Path, engine: str, log_format: str) -> None:
    async with AsyncExitStack() as stack:
        scene = await enter_scene(stack)
        settings = {**scene.settings, "telemetry.format": log_format}
        async with running_process(certificates, engine, settings) as relay:
            await scene.play(relay, engine)
            # One tunnel is cut by the end of the process itself.
            client = await stack.enter_async_context(relay.wire(source=CLIENT))
            await client.answered(client.connect(NAMES["tcp"], scene.tcp.port))
            assert await relay.stop() == 0
    for word in ("tunnel_closed", "exchange_refused", "connection_terminated", "dns_timeout", "stopped"):
        assert word in relay.output, f"the relay says too little for this test to mean anything: {relay.output}"
    where, output = relay.output.split("\n", 1)
    assert where == f"relay: serving HTTP/3 on 127.0.0.1:{relay.port} with {engine}"
    assert scene.hidden.found_in(output) == []
    assert "Traceback" not in output


async def test_metrics_hold_neither(certificates: Path, engine: str) -> None:
    async with AsyncExitStack() as stack:
        scene = await enter_scene(stack)
        async with running_relay(certificates, engine, scene.settings) as relay:
            await scene.play(relay, engine)
    snapshot = relay.metrics.snapshot()
    labels = {label for _, found in snapshot for label in found}
    assert {"tcp", "udp", "closed", "dns_error", "client_aborted"} <= labels
    assert scene.hidden.found_in(repr(list(snapshot))) == []


async def test_effective_settings_hold_no_secret() -> None:
    hidden = Secrets()
    hidden.text("the key", KEY)
    hidden.text("the user", USER)
    hidden.text("the password", PASSWORD)
    entry = basic_entry(USER, PASSWORD)
    hidden.text("the password's hash", entry.rpartition(":")[2])
    hidden.text("the key's digest", preshared_entry(KEY))
    done = await asyncio.to_thread(
        subprocess.run,
        [
            sys.executable,
            "-m",
            "relay",
            "check",
            f"--set=auth.preshared={json.dumps([preshared_entry(KEY)])}",
            f"--set=auth.basic={json.dumps([entry])}",
        ],
        env=command_environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert "[auth]" in done.stdout
    assert hidden.found_in(done.stdout + done.stderr) == []


class TestDebugMode:
    async def test_it_says_so_loudly(self, certificates: Path) -> None:
        settings = {"telemetry.debug_addresses": "true", "telemetry.level": "error"}
        async with running_process(certificates, "qh3", settings) as relay:
            pass
        assert "debug_mode_shows_addresses" in relay.output
        assert "critical" in relay.output

    async def test_it_is_silent_when_it_is_off(self, certificates: Path) -> None:
        async with running_process(certificates, "qh3", {"telemetry.level": "debug"}) as relay:
            pass
        assert "debug_mode" not in relay.output

    async def test_no_environment_variable_can_set_it(self, certificates: Path) -> None:
        variable = {"RELAY_TELEMETRY__DEBUG_ADDRESSES": "true"}
        options = [f"--set={name}={value}" for name, value in settings_of(certificates, "qh3", {}).items()]
        process = await start_command("serve", *options, environ=variable)
        output, _ = await process.communicate()
        assert process.returncode == 2
        assert b"cannot be set by an environment variable" in output
