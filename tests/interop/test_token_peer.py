"""interop.matrix.token_peer: the token verbs over lines of JSON, to a driver in another process."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from interop.matrix.process import Program
from interop.matrix.puppet import Endpoint
from interop.matrix.token_peer import TokenPuppet
from masque.privacypass import TokenType
from relay.conformance import (
    DriverError,
    Feature,
    Origins,
    Server,
    Stage,
    TokenKeys,
    Verdict,
    WireDriver,
    WireOptions,
    play,
)
from relay.conformance.cases.tokens import TOKEN_CASES
from relay.conformance.pages import Pages

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
ENDPOINT = Endpoint("https://127.0.0.1:9", "", "/")
KEYS = TokenKeys(b"", b"")


@asynccontextmanager
async def driven(folder: Path, *arguments: str) -> AsyncIterator[TokenPuppet]:
    """A driver with our own implementation."""
    program = Program([sys.executable, "-m", "tests.interop.token_driver", *arguments], ROOT, dict(os.environ))
    async with TokenPuppet(program, ENDPOINT, folder) as puppet:
        yield puppet


async def test_cases_without_a_relay_are_played(tmp_path: Path) -> None:
    server = Server(frozenset(), "127.0.0.1")
    async with driven(tmp_path) as puppet:
        assert puppet.features == frozenset({Feature.TOKENS})
        for case in TOKEN_CASES.cases:
            stage = Stage(WireDriver(WireOptions("", 0)), server, Origins(Pages(0, 0, Path())), puppet)
            outcome = await play(case, stage)
            assert outcome.verdict is (Verdict.NONE if case.needs else Verdict.PASS), outcome.reason


async def test_an_error_of_the_driver_is_told(tmp_path: Path) -> None:
    async with driven(tmp_path) as puppet:
        with pytest.raises(DriverError, match="no ticket 7"):
            await puppet.finish_token(7, b"")
        with pytest.raises(DriverError, match="no challenge of type 1"):
            await puppet.request_token(TokenType.VOPRF_P384, 'Preshared realm="x"')


async def test_odd_answers_are_the_drivers_fault(tmp_path: Path) -> None:
    wrong = '{"private": 1, "ticket": "1", "request": "AA==", "credentials": "\u00fc", "valid": 1, "response": "?"}'
    async with driven(tmp_path, wrong) as puppet:
        with pytest.raises(DriverError, match="no base64"):
            await puppet.make_key(TokenType.VOPRF_P384)
        with pytest.raises(DriverError, match="no number"):
            await puppet.request_token(TokenType.VOPRF_P384, "")
        with pytest.raises(DriverError, match="no text"):
            await puppet.finish_token(1, b"")
        with pytest.raises(DriverError, match="no base64"):
            await puppet.answer_request(TokenType.VOPRF_P384, b"", KEYS)
        with pytest.raises(DriverError, match="neither true nor false"):
            await puppet.verify_token(TokenType.VOPRF_P384, "", KEYS)
