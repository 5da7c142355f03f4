"""Names that are known, that are never asked, that are none."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.relay.resolver.lab import Lab, failure_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient")]


@pytest.mark.parametrize("name", ["printer.local", "x.onion", "a.invalid", "x.alt", "LOCAL"])
async def test_names_that_are_never_asked(lab: Lab, name: str) -> None:
    assert (await failure_of(await lab.resolver(), name)).rcode == "NXDOMAIN"
    assert lab.server.asked.total() == 0


@pytest.mark.parametrize("name", ["localhost", "x.localhost."])
async def test_localhost_is_loopback(lab: Lab, name: str) -> None:
    assert (await (await lab.resolver()).resolve(name)).addresses == (ip_address("::1"), ip_address("127.0.0.1"))
    assert lab.server.asked.total() == 0


@pytest.mark.parametrize(
    "name", ["", ".", "a..b", "ä.test", "a b.test", "\\097.test", "x" * 64 + ".test", "x." * 130]
)
async def test_what_is_no_host_name_does_not_exist(lab: Lab, name: str) -> None:
    assert (await failure_of(await lab.resolver(), name)).rcode == "NXDOMAIN"
    assert lab.server.asked.total() == 0
