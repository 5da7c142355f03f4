"""Fixtures: a certificate for an issuer on the loopback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.quic.development import write_certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, server.pem and server.key."""
    folder = tmp_path_factory.mktemp("certificates")
    write_certificates(folder, ["localhost", "127.0.0.1"])
    return folder


@pytest.fixture(autouse=True)
def _switch_interval() -> Iterator[None]:
    """Undo what stores and checks do to the process, for other tests' sake."""
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)
