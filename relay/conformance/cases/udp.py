"""UDP tunnels: CONNECT-UDP, HTTP Datagrams and capsules (RFC 9298, RFC 9297)."""

from __future__ import annotations

import asyncio

from relay.conformance.case import CaseList, Need, Stage
from relay.conformance.driver import DriverTimeout, Feature, Kind, pattern

__all__ = ["UDP_CASES"]

_TRIES = 4
_SIZES = (0, 1, 2, 63, 64, 255, 256, 1000, 1200)
_INITIAL = 1200
"The smallest payload that a QUIC client must be able to send (RFC 9000 §14.1)."
_LARGE = (1500, 9000, 40_000)
_DATAGRAM = 0
_UNKNOWN = 0x2F3A
"A capsule type of the reserved pattern 0x29 * N + 0x17 (RFC 9297 §5.4)."
_UNKNOWN_CONTEXT = 2

UDP_CASES = CaseList(Feature.UDP, Feature.HEADERS, Need.UDP)
"The cases of UDP tunnels."


async def _try_echo(stage: Stage, tunnel: int, payload: bytes) -> str:
    """Send a payload until its echo comes: UDP may lose some. Returns what is wrong, or nothing."""
    came: list[bytes] = []
    for _ in range(_TRIES):
        await stage.driver.send_datagrams(tunnel, [payload])
        came = await stage.driver.receive_datagrams(tunnel, 1, stage.patience)
        if came:
            break
    if not came:
        return f"no echo of {len(payload)} bytes in {_TRIES} tries"
    return "" if came[0] == payload else f"the echo of {len(payload)} bytes came back as {len(came[0])} others"


async def _echo(stage: Stage, tunnel: int, payload: bytes) -> None:
    """Demand the echo of a payload."""
    wrong = await _try_echo(stage, tunnel, payload)
    stage.must(not wrong, wrong)


@UDP_CASES.add("udp-echo", "RFC 9298 §3.5")
async def _udp_echo(stage: Stage) -> None:
    """Payloads go to the origin and come back; the answer is that of CONNECT-UDP."""
    await stage.driver.connect()
    answer = await stage.ask(Kind.UDP)
    stage.must(answer.tunnel is not None, f"refused with {stage.describe(answer)}")
    if Feature.HIDDEN_STATUS not in stage.driver.features:
        stage.should(answer.header("capsule-protocol") == "?1", "no `capsule-protocol: ?1` in the answer")
    stage.must(answer.header("content-length") is None, "content-length in the answer to CONNECT-UDP")
    await _echo(stage, answer.tunnel or 0, b"through the tunnel and back")


@UDP_CASES.add("udp-sizes", "RFC 9298 §5")
async def _udp_sizes(stage: Stage) -> None:
    """Payloads of 0 to 1200 bytes, each unchanged."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.UDP)
    for size in _SIZES:
        await _echo(stage, tunnel, pattern(size))


@UDP_CASES.add("udp-largest", "RFC 9298 §6.1", Feature.MAX_PAYLOAD)
async def _udp_largest(stage: Stage) -> None:
    """The largest payload is at least 1200 bytes; it passes, or is lost alone where the way back takes less."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.UDP)
    await _echo(stage, tunnel, b"first")
    size = await stage.driver.max_payload(tunnel)
    stage.must(size >= _INITIAL, f"only {size} bytes fit a datagram: no QUIC inside of this tunnel")
    wrong = await _try_echo(stage, tunnel, pattern(size))
    stage.should(not wrong, wrong)
    await _echo(stage, tunnel, b"the tunnel goes on")


@UDP_CASES.add("udp-too-large", "RFC 9298 §6.1")
async def _udp_too_large(stage: Stage) -> None:
    """Answers larger than the path are lost alone; the tunnel goes on."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.UDP)
    for size in _LARGE:
        await stage.driver.send_datagrams(tunnel, [b"reply %d\n" % size])
        for payload in await stage.driver.receive_datagrams(tunnel, 1, timeout=0.2):
            stage.must(payload == pattern(size), f"an answer of {size} bytes came as {len(payload)} others")
    await _echo(stage, tunnel, b"the tunnel goes on")


@UDP_CASES.add("udp-ipv6", "RFC 9298 §2", Need.IPV6)
async def _udp_ipv6(stage: Stage) -> None:
    """A target by its IPv6 address."""
    await stage.driver.connect()
    await _echo(stage, await stage.open(Kind.UDP, stage.server.host6), b"over IPv6")


@UDP_CASES.add("udp-name", "RFC 9298 §3.1", Need.NAME)
async def _udp_name(stage: Stage) -> None:
    """A target by name; the server resolves it."""
    await stage.driver.connect()
    await _echo(stage, await stage.open(Kind.UDP, stage.server.name), b"by name")


@UDP_CASES.add("udp-many", "RFC 9297 §2.1", settings={"limits.streams": "256"})
async def _udp_many(stage: Stage) -> None:
    """As many tunnels at once as the server allows, 200 at most, and no payload in the wrong one."""
    await stage.driver.connect()

    async def one(number: int, turn: asyncio.Semaphore) -> None:
        async with turn:
            tunnel = await stage.open(Kind.UDP)
            await _echo(stage, tunnel, b"tunnel %d" % number)

    await stage.many(one)


@UDP_CASES.add("udp-early", "RFC 9298 §5", Feature.EARLY)
async def _udp_early(stage: Stage) -> None:
    """A payload sent before the answer is kept, or lost alone."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.UDP, early=b"before the answer")
    came = await stage.driver.receive_datagrams(tunnel, 1, stage.patience)
    stage.should(came, "the payload sent before the answer was dropped")
    stage.must(not came or came[0] == b"before the answer", "another payload came back")
    await _echo(stage, tunnel, b"after the answer")


@UDP_CASES.add("udp-end", "RFC 9298 §3.1", Feature.ENDS)
async def _udp_end(stage: Stage) -> None:
    """The client ends the tunnel, the server ends its direction too."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.UDP)
    await _echo(stage, tunnel, b"first")
    await stage.driver.end(tunnel)
    try:
        await stage.driver.wait_end(tunnel)
    except DriverTimeout:
        stage.should(False, "the server does not end its direction")
    await _echo(stage, await stage.open(Kind.UDP), b"the connection goes on")


@UDP_CASES.add("udp-idle", "RFC 9298 §3.1", Feature.ENDS, Need.IDLE, settings={"limits.udp_idle": "1"})
async def _udp_idle(stage: Stage) -> None:
    """A tunnel with no traffic is closed after the limit."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.UDP)
    await _echo(stage, tunnel, b"and then silence")
    await stage.driver.wait_end(tunnel)


@UDP_CASES.add("udp-unknown-context", "RFC 9298 §4", Feature.CONTEXTS)
async def _udp_unknown_context(stage: Stage) -> None:
    """A datagram of an unregistered context is dropped; the tunnel goes on."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.UDP)
    await _echo(stage, tunnel, b"first")
    await stage.driver.send_datagrams(tunnel, [b"of another context"], context=_UNKNOWN_CONTEXT)
    for payload in await stage.driver.receive_datagrams(tunnel, 1, timeout=0.3):
        stage.must(payload != b"of another context", "a datagram of an unregistered context was forwarded")
    await _echo(stage, tunnel, b"the tunnel goes on")


@UDP_CASES.add("capsule-in", "RFC 9297 §3.5", Feature.CAPSULES)
async def _capsule_in(stage: Stage) -> None:
    """A payload in a DATAGRAM capsule is forwarded like one in a frame."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.UDP)
    await stage.driver.send_capsule(tunnel, _DATAGRAM, b"\x00in a capsule")
    came = await stage.driver.receive_datagrams(tunnel, 1, stage.patience)
    stage.must(came == [b"in a capsule"], "the payload of a DATAGRAM capsule did not come back")


@UDP_CASES.add("capsule-only", "RFC 9297 §2.1.1, §3.5", Feature.NO_DATAGRAMS)
async def _capsule_only(stage: Stage) -> None:
    """With a client that does not announce H3_DATAGRAM, payloads go in capsules both ways."""
    await stage.driver.connect(datagrams=False)
    tunnel = await stage.open(Kind.UDP)
    for size in (0, 1, 1200, 9000):
        await _echo(stage, tunnel, pattern(size))


@UDP_CASES.add("capsule-unknown", "RFC 9297 §3.2", Feature.CAPSULES)
async def _capsule_unknown(stage: Stage) -> None:
    """A capsule of an unknown type is skipped."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.UDP)
    for value in (b"", b"x", pattern(20_000)):
        await stage.driver.send_capsule(tunnel, _UNKNOWN, value)
    await stage.driver.send_capsule(tunnel, _DATAGRAM, b"\x00after unknown ones")
    came = await stage.driver.receive_datagrams(tunnel, 1, stage.patience)
    stage.must(came == [b"after unknown ones"], "what followed unknown capsules was not forwarded")
