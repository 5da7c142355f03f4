"""Fixtures of the resolver's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.relay.resolver.lab import Lab, running_lab


@pytest.fixture
async def lab(anyio_backend: str) -> AsyncIterator[Lab]:
    """A running lab."""
    async with running_lab() as made:
        yield made
