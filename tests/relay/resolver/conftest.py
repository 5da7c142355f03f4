"""Fixtures of the resolver's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.quic.development import write_certificates
from relay.resolver import health
from tests.relay.resolver.lab import Lab, running_lab


@pytest.fixture
async def lab(anyio_backend: str) -> AsyncIterator[Lab]:
    """A running lab."""
    async with running_lab() as made:
        yield made


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask an upstream once only, however busy the machine is; the time-out has to be long as well."""
    monkeypatch.setattr(health, "_FIRST_PATIENCE", 60.0)
    monkeypatch.setattr(health, "_LEAST_PATIENCE", 60.0)
    monkeypatch.setattr(health, "_MOST_PATIENCE", 60.0)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost and its address."""
    made = tmp_path_factory.mktemp("dns")
    write_certificates(made, ["localhost", "127.0.0.1"])
    return made
