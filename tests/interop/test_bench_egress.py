"""interop.bench.egress: it measures choices, of new sessions and of old ones."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from interop.bench.egress import choices, make_egress

pytestmark = pytest.mark.anyio


async def test_choices_are_counted_by_cpu_time() -> None:
    egress = make_egress(3)
    for is_new in (True, False):
        assert await choices(egress, ip_address("192.0.2.1"), b"u00-DE", is_new=is_new, seconds=0.001) > 100


async def test_a_choice_that_fails_is_no_figure() -> None:
    with pytest.raises(RuntimeError, match="no address"):
        await choices(make_egress(1), ip_address("192.0.2.1"), b"u00-FR", is_new=True, seconds=0.001)
