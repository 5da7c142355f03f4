"""Connections on which nobody was authenticated: they are few, and the oldest makes room."""

from __future__ import annotations

import pytest

from masque.errors import ErrorCode
from relay.telemetry import LimitName, Metric
from tests.e2e.conftest import StartRelay
from tests.e2e.neighbour import still_works, udp_tunnel
from tests.e2e.origins import udp_origin

pytestmark = pytest.mark.anyio


async def test_the_oldest_stranger_makes_room(start_relay: StartRelay) -> None:
    """A client with a tunnel stays; of silent ones the oldest goes, with H3_EXCESSIVE_LOAD."""
    async with (
        udp_origin(echoes=True) as origin,
        start_relay({"limits.strangers": "2"}) as relay,
        relay.wire() as known,
    ):
        tunnel = await udp_tunnel(known, origin.port)
        async with relay.wire() as first, relay.wire() as second, relay.wire() as third:
            await first.until(lambda: first.end_code is not None)
            assert first.end_code == ErrorCode.H3_EXCESSIVE_LOAD
            assert second.end_code is None
            assert third.end_code is None
            await still_works(known, tunnel)
            await still_works(second, await udp_tunnel(second, origin.port))
        assert relay.count(Metric.LIMITS_HIT, LimitName.STRANGERS) == 1


async def test_a_refused_request_makes_nobody_known(start_relay: StartRelay) -> None:
    async with start_relay({"limits.strangers": "1"}) as relay, relay.wire() as first:
        first.credentials = ()
        stream = await first.answered(first.connect("127.0.0.1", 9))
        assert stream.status == 407
        async with relay.wire():
            await first.until(lambda: first.end_code is not None)
    assert first.end_code == ErrorCode.H3_EXCESSIVE_LOAD
