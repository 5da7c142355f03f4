"""The connection that carries the tunnels (RFC 9114, RFC 9000)."""

from __future__ import annotations

from relay.conformance.case import CaseList, Need, Stage
from relay.conformance.driver import Feature, Kind, pattern

__all__ = ["CONNECTION_CASES"]

_ENABLE_CONNECT_PROTOCOL = 0x8
_H3_DATAGRAM = 0x33

CONNECTION_CASES = CaseList()
"The cases of connections."


@CONNECTION_CASES.add("settings", "RFC 9220 §3, RFC 9297 §2.1.1", Feature.SETTINGS, Need.UDP)
async def _settings(stage: Stage) -> None:
    """The server announces extended CONNECT and HTTP Datagrams."""
    settings = await stage.driver.connect() or {}
    stage.must(settings.get(_ENABLE_CONNECT_PROTOCOL) == 1, "SETTINGS_ENABLE_CONNECT_PROTOCOL is not 1")
    stage.must(settings.get(_H3_DATAGRAM) == 1, "SETTINGS_H3_DATAGRAM is not 1")


@CONNECTION_CASES.add("reconnect", "RFC 9114 §3.3", Feature.TCP, Feature.HEADERS, Need.TCP)
async def _reconnect(stage: Stage) -> None:
    """A second connection after the first."""
    for turn in (b"first", b"again"):
        await stage.driver.connect()
        tunnel = await stage.open(Kind.TCP)
        await stage.driver.send(tunnel, b"echo\n" + turn)
        stage.must(await stage.driver.receive(tunnel, 5) == turn, f"no echo on the {turn.decode()} connection")


@CONNECTION_CASES.add("migration-tcp", "RFC 9000 §9", Feature.TCP, Feature.HEADERS, Feature.MIGRATION, Need.TCP)
async def _migration_tcp(stage: Stage) -> None:
    """A TCP tunnel goes on after the client changed its port."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.TCP)
    await stage.driver.send(tunnel, b"echo\nbefore")
    stage.must(await stage.driver.receive(tunnel, 6) == b"before", "no echo before the move")
    await stage.driver.migrate()
    await stage.driver.send(tunnel, pattern(100_000))
    stage.must(await stage.driver.receive(tunnel, 100_000) == pattern(100_000), "no echo after the move")


@CONNECTION_CASES.add("migration-udp", "RFC 9000 §9", Feature.UDP, Feature.HEADERS, Feature.MIGRATION, Need.UDP)
async def _migration_udp(stage: Stage) -> None:
    """A UDP tunnel goes on after the client changed its port."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.UDP)
    for text in (b"before the move", b"after the move"):
        came: list[bytes] = []
        for _ in range(5):
            await stage.driver.send_datagrams(tunnel, [text])
            came = await stage.driver.receive_datagrams(tunnel, 1, stage.patience)
            if came:
                break
        stage.must(text in came, f"no echo {text.decode()}")
        if text.startswith(b"before"):
            await stage.driver.migrate()


@CONNECTION_CASES.add("goaway", "RFC 9114 §5.2", Feature.TCP, Feature.HEADERS, Feature.GOAWAY, Need.TCP, Need.DRAIN)
async def _goaway(stage: Stage) -> None:
    """A server that stops says so with GOAWAY."""
    await stage.driver.connect()
    await stage.open(Kind.TCP)
    stage.must(stage.server.drain is not None, "nobody can make it drain")
    if stage.server.drain is not None:
        await stage.server.drain()
    stream = await stage.driver.wait_goaway()
    stage.must(stream % 4 == 0, f"GOAWAY names stream {stream}, which no client can open")


@CONNECTION_CASES.add(
    "drain", "RFC 9114 §5.2", Feature.TCP, Feature.HEADERS, Need.TCP, Need.DRAIN, settings={"limits.drain": "20"}
)
async def _drain(stage: Stage) -> None:
    """A server that stops lets open tunnels finish."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.TCP)
    await stage.driver.send(tunnel, b"echo\nbefore")
    stage.must(await stage.driver.receive(tunnel, 6) == b"before", "no echo")
    if stage.server.drain is not None:
        await stage.server.drain()
    await stage.driver.send(tunnel, b"during", end=True)
    received = await stage.driver.receive_all(tunnel)
    stage.must(received.size == len(b"during"), f"{received.size} bytes of an open tunnel while draining, expected 6")
    stage.must(received.ending.is_clean, "an open tunnel was cut while draining")


@CONNECTION_CASES.add("drain-closes", "RFC 9114 §5.2", Feature.CLOSED, Need.DRAIN)
async def _drain_closes(stage: Stage) -> None:
    """A server that stops closes connections that have no tunnels."""
    await stage.driver.connect()
    if stage.server.drain is not None:
        await stage.server.drain()
    code = await stage.driver.wait_closed()
    stage.should(code in (None, 0x100), f"closed with {code}, expected H3_NO_ERROR")
