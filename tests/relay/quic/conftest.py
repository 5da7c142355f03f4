"""Fixtures of the QUIC tests: a certificate of their own, and every pair of engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.quic.development import write_certificates
from relay.quic.engine import EngineName
from tests.relay.quic.network import Network, Pki


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """An authority and a server certificate for localhost."""
    folder: Path = tmp_path_factory.mktemp("pki")
    write_certificates(folder, ["localhost", "127.0.0.1", "::1"])
    return Pki(folder)


@pytest.fixture(scope="session")
def other_pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Another authority, which signed nothing that `pki` holds."""
    folder: Path = tmp_path_factory.mktemp("other_pki")
    write_certificates(folder, ["localhost"])
    return Pki(folder)


@pytest.fixture(params=list(EngineName), ids=lambda name: f"client={name}")
def client_name(request: pytest.FixtureRequest) -> EngineName:
    """The client's engine."""
    return EngineName(request.param)


@pytest.fixture(params=list(EngineName), ids=lambda name: f"server={name}")
def server_name(request: pytest.FixtureRequest) -> EngineName:
    """The server's engine."""
    return EngineName(request.param)


@pytest.fixture
def network(pki: Pki, client_name: EngineName, server_name: EngineName) -> Network:
    """A client and a server joined in memory, handshake complete."""
    network = Network.of_engines(pki, client_name, server_name)
    network.establish()
    return network
