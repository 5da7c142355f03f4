"""Tunnels that must be refused, and how (RFC 9110 §15, RFC 9209)."""

from __future__ import annotations

import socket

from relay.conformance.case import CaseList, Need, Stage
from relay.conformance.driver import Feature, Kind

__all__ = ["REFUSAL_CASES"]

REFUSAL_CASES = CaseList(Feature.HEADERS)
"The cases of refusals."


async def _still_works(stage: Stage, kind: Kind) -> None:
    """A refusal ends its own request only."""
    await stage.open(kind)


async def _missing_name(stage: Stage, kind: Kind) -> None:
    await stage.driver.connect()
    answer = await stage.ask(kind, stage.server.missing_name, 443)
    stage.refused(answer, (502,), "dns_error")
    await _still_works(stage, kind)


async def _forbidden(stage: Stage, kind: Kind) -> None:
    await stage.driver.connect()
    host, port = stage.server.forbidden
    answer = await stage.ask(kind, host, port)
    stage.refused(answer, (403, 502), "destination_ip_prohibited")
    await _still_works(stage, kind)


async def _unauthorized(stage: Stage, kind: Kind, *, wrong: bool) -> None:
    await stage.driver.connect()
    answer = await stage.ask(kind, headers=stage.server.wrong_credentials if wrong else ())
    stage.refused(answer, (407,), "http_request_denied")
    if Feature.HIDDEN_STATUS not in stage.driver.features:
        stage.must(answer.status != 407 or answer.header("proxy-authenticate"), "407 without proxy-authenticate")
    await _still_works(stage, kind)


@REFUSAL_CASES.add("tcp-missing-name", "RFC 9209 §2.3.2", Feature.TCP, Need.TCP)
async def _tcp_missing_name(stage: Stage) -> None:
    """A name that does not exist."""
    await _missing_name(stage, Kind.TCP)


@REFUSAL_CASES.add("udp-missing-name", "RFC 9298 §3.1", Feature.UDP, Need.UDP)
async def _udp_missing_name(stage: Stage) -> None:
    """A name that does not exist."""
    await _missing_name(stage, Kind.UDP)


@REFUSAL_CASES.add("tcp-refused-port", "RFC 9209 §2.3.7", Feature.TCP, Need.TCP)
async def _tcp_refused_port(stage: Stage) -> None:
    """A port that nobody listens at."""
    await stage.driver.connect()
    with socket.socket() as taken:
        taken.bind((stage.server.host, 0))  # bound and not listening: refused, and nobody else can take it
        answer = await stage.ask(Kind.TCP, stage.server.host, taken.getsockname()[1])
    stage.refused(answer, (502, 503), "connection_refused")
    await _still_works(stage, Kind.TCP)


@REFUSAL_CASES.add("tcp-forbidden", "RFC 9209 §2.3.5", Feature.TCP, Need.TCP, Need.REFUSALS)
async def _tcp_forbidden(stage: Stage) -> None:
    """A target that policy forbids."""
    await _forbidden(stage, Kind.TCP)


@REFUSAL_CASES.add("udp-forbidden", "RFC 9298 §7", Feature.UDP, Need.UDP, Need.REFUSALS)
async def _udp_forbidden(stage: Stage) -> None:
    """A target that policy forbids."""
    await _forbidden(stage, Kind.UDP)


@REFUSAL_CASES.add("tcp-no-credentials", "RFC 9110 §15.5.8", Feature.TCP, Need.TCP, Need.AUTH)
async def _tcp_no_credentials(stage: Stage) -> None:
    """Without credentials the answer is 407 and a challenge."""
    await _unauthorized(stage, Kind.TCP, wrong=False)


@REFUSAL_CASES.add("udp-no-credentials", "RFC 9298 §7", Feature.UDP, Need.UDP, Need.AUTH)
async def _udp_no_credentials(stage: Stage) -> None:
    """Without credentials the answer is 407 and a challenge."""
    await _unauthorized(stage, Kind.UDP, wrong=False)


@REFUSAL_CASES.add("tcp-wrong-credentials", "RFC 9110 §15.5.8", Feature.TCP, Need.TCP, Need.AUTH)
async def _tcp_wrong_credentials(stage: Stage) -> None:
    """Wrong credentials are answered with 407 too."""
    await _unauthorized(stage, Kind.TCP, wrong=True)


@REFUSAL_CASES.add("udp-wrong-credentials", "RFC 9298 §7", Feature.UDP, Need.UDP, Need.AUTH)
async def _udp_wrong_credentials(stage: Stage) -> None:
    """Wrong credentials are answered with 407 too."""
    await _unauthorized(stage, Kind.UDP, wrong=True)
