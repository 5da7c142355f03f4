"""TCP tunnels (RFC 9114 §4.4)."""

from __future__ import annotations

import asyncio
import hashlib

from relay.conformance.case import CaseList, Need, Stage
from relay.conformance.driver import Feature, Kind, pattern

__all__ = ["TCP_CASES"]

_LARGE = 16 << 20
_CANCELLED = 0x10C
_CONNECT_ERROR = 0x10F
TCP_CASES = CaseList(Feature.TCP, Feature.HEADERS, Need.TCP)
"The cases of TCP tunnels."


async def _echo(stage: Stage, tunnel: int, text: bytes) -> None:
    """Send the first line and one message, and expect the message back."""
    await stage.driver.send(tunnel, b"echo\n" + text)
    answer = await stage.driver.receive(tunnel, len(text))
    stage.must(answer == text, f"the echo of {len(text)} bytes came back as {len(answer)} others")


@TCP_CASES.add("tcp-echo", "RFC 9114 §4.4")
async def _tcp_echo(stage: Stage) -> None:
    """Bytes go to the origin and come back; the answer is that of CONNECT."""
    await stage.driver.connect()
    answer = await stage.ask(Kind.TCP)
    stage.must(answer.tunnel is not None, f"refused with {stage.describe(answer)}")
    stage.must(answer.header("content-length") is None, "content-length in the answer to CONNECT")
    stage.must(answer.header("transfer-encoding") is None, "transfer-encoding in the answer to CONNECT")
    await _echo(stage, answer.tunnel or 0, b"through the tunnel and back")


@TCP_CASES.add("tcp-ipv6", "RFC 9110 §9.3.6", Need.IPV6)
async def _tcp_ipv6(stage: Stage) -> None:
    """A target by its IPv6 address."""
    await stage.driver.connect()
    await _echo(stage, await stage.open(Kind.TCP, stage.server.host6), b"over IPv6")


@TCP_CASES.add("tcp-name", "RFC 9110 §9.3.6", Need.NAME)
async def _tcp_name(stage: Stage) -> None:
    """A target by name; the server resolves it."""
    await stage.driver.connect()
    await _echo(stage, await stage.open(Kind.TCP, stage.server.name), b"by name")


@TCP_CASES.add("tcp-half-close-client", "RFC 9114 §4.4")
async def _tcp_half_close_client(stage: Stage) -> None:
    """The client ends its direction and still gets the answer."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.TCP)
    content = pattern(10_000)
    await stage.driver.send(tunnel, b"digest\n" + content, end=True)
    expected = f"{len(content)} {hashlib.sha256(content).hexdigest()}\n".encode()
    answer = await stage.driver.receive(tunnel, len(expected))
    stage.must(answer == expected, "the origin did not answer after the client's end")


@TCP_CASES.add("tcp-half-close-origin", "RFC 9114 §4.4")
async def _tcp_half_close_origin(stage: Stage) -> None:
    """The origin ends its direction and still gets what the client sends."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.TCP)
    key = stage.key()
    await stage.driver.send(tunnel, f"greet {key}\n".encode())
    received = await stage.driver.receive_all(tunnel)
    stage.must(received.ending.is_clean, "the origin's end came as a reset")
    stage.must(received.size == len(b"hello"), f"{received.size} bytes before the origin's end, expected 5")
    await stage.driver.send(tunnel, b"still here", end=True)
    seen = await stage.seen(key)
    stage.should(seen.data == b"still here", "what the client sent after the origin's end did not arrive")
    stage.should(seen.is_clean, "the client's end came to the origin as a reset")


@TCP_CASES.add("tcp-download", "RFC 9114 §4.4")
async def _tcp_download(stage: Stage) -> None:
    """A download of 16 MiB, by its SHA-256."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.TCP)
    await stage.driver.send(tunnel, f"source {_LARGE}\n".encode())
    received = await stage.driver.receive_all(tunnel)
    stage.must(received.size == _LARGE, f"{received.size} bytes arrived of {_LARGE}")
    stage.must(received.sha256 == hashlib.sha256(pattern(_LARGE)).hexdigest(), "the bytes were changed on the way")
    stage.must(received.ending.is_clean, "the end came as a reset")
    await stage.driver.end(tunnel)


@TCP_CASES.add("tcp-upload", "RFC 9114 §4.4")
async def _tcp_upload(stage: Stage) -> None:
    """An upload of 16 MiB, by its SHA-256."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.TCP)
    await stage.driver.send(tunnel, b"digest\n")
    await stage.driver.send_pattern(tunnel, _LARGE, end=True)
    expected = f"{_LARGE} {hashlib.sha256(pattern(_LARGE)).hexdigest()}\n".encode()
    answer = await stage.driver.receive(tunnel, len(expected))
    stage.must(answer == expected, f"the origin counted {answer[:20]!r}, expected {_LARGE} bytes")


@TCP_CASES.add("tcp-many", "RFC 9114 §6.1", settings={"limits.streams": "256"})
async def _tcp_many(stage: Stage) -> None:
    """As many tunnels at once as the server allows, 200 at most."""
    await stage.driver.connect()

    async def one(number: int, turn: asyncio.Semaphore) -> None:
        async with turn:
            tunnel = await stage.open(Kind.TCP)
        await _echo(stage, tunnel, b"tunnel %d" % number)

    await stage.many(one)


@TCP_CASES.add("tcp-early", "RFC 9114 §4.4", Feature.EARLY)
async def _tcp_early(stage: Stage) -> None:
    """Content sent before the answer reaches the origin."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.TCP, early=b"echo\nsent before the answer")
    answer = await stage.driver.receive(tunnel, 22)
    stage.must(answer == b"sent before the answer", "content sent before the answer did not reach the origin")


@TCP_CASES.add("tcp-reset-client", "RFC 9114 §4.4", Feature.RESET)
async def _tcp_reset_client(stage: Stage) -> None:
    """A reset by the client reaches the origin as one, and only its tunnel ends."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.TCP)
    key = stage.key()
    await stage.driver.send(tunnel, f"hold {key}\n".encode())
    stage.must(await stage.driver.receive(tunnel, 4) == b"held", "no connection to the origin")
    await stage.driver.reset(tunnel, _CANCELLED)
    seen = await stage.seen(key)
    stage.should(not seen.is_clean, "the client's reset came to the origin as a clean end")
    await _echo(stage, await stage.open(Kind.TCP), b"the connection goes on")


@TCP_CASES.add("tcp-reset-origin", "RFC 9114 §4.4", Feature.ENDS)
async def _tcp_reset_origin(stage: Stage) -> None:
    """A reset by the origin becomes H3_CONNECT_ERROR, and only its tunnel ends."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.TCP)
    await stage.driver.send(tunnel, b"reset\n")
    ending = await stage.driver.wait_end(tunnel)
    stage.must(not ending.is_clean, "the origin's reset came as a clean end")
    if ending.code is not None:
        stage.should(ending.code == _CONNECT_ERROR, f"reset with {ending.code:#x}, expected H3_CONNECT_ERROR")
    await _echo(stage, await stage.open(Kind.TCP), b"the connection goes on")


@TCP_CASES.add("tcp-idle", "RFC 9110 §9.3.6", Feature.ENDS, Need.IDLE, settings={"limits.tcp_idle": "1"})
async def _tcp_idle(stage: Stage) -> None:
    """A tunnel with no traffic is closed after the limit."""
    await stage.driver.connect()
    tunnel = await stage.open(Kind.TCP)
    await _echo(stage, tunnel, b"and then silence")
    await stage.driver.wait_end(tunnel)
