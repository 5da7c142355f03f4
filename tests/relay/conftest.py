"""What tests of several rooms ask for: certificates of a relay on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.quic.development import write_certificates


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, server.pem and server.key."""
    made = tmp_path_factory.mktemp("certificates")
    write_certificates(made, ["127.0.0.1"])
    return made
