"""Fixtures of the end-to-end tests: certificates, and relays on both engines."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import pytest

from relay.quic.development import write_certificates
from tests.e2e.rig import ENGINES, Relay, RelayProcess, running_process, running_relay, settings_of


class StartRelay(Protocol):
    """Runs a relay in this process for the time of a context."""

    def __call__(self, overrides: Mapping[str, str] | None = None) -> AbstractAsyncContextManager[Relay]:
        """Run it with some settings changed."""


class StartProcess(Protocol):
    """Runs a relay in a process of its own for the time of a context."""

    def __call__(self, overrides: Mapping[str, str] | None = None) -> AbstractAsyncContextManager[RelayProcess]:
        """Run it with some settings changed."""


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, server.pem and server.key."""
    folder = tmp_path_factory.mktemp("certificates")
    write_certificates(folder, ["localhost", "127.0.0.1", "::1"])
    return folder


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The relay's QUIC library; every test that asks for it runs on each."""
    name: str = request.param
    return name


@pytest.fixture
def start_relay(certificates: Path, engine: str) -> StartRelay:
    """A relay in this process, on each engine."""
    return lambda overrides=None: running_relay(certificates, engine, overrides)


@pytest.fixture
def start_process(certificates: Path, engine: str) -> StartProcess:
    """A relay in a process of its own, on each engine."""
    return lambda overrides=None: running_process(certificates, engine, overrides)


@pytest.fixture
def good(certificates: Path) -> list[str]:
    """Options of a relay that would serve."""
    return [f"--set={name}={value}" for name, value in settings_of(certificates, "qh3", {}).items()]
