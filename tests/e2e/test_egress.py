"""Egress of a relay process: SIGHUP brings a quarantine and takes it away, and a bad file changes nothing."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import anyio.to_thread
import pytest

from relay.client import RelayClient
from relay.egress import read_status
from tests.e2e.origins import TcpListener, tcp_listener
from tests.e2e.rig import running_process, until

pytestmark = pytest.mark.anyio

ADDRESSES = ["127.0.0.71", "127.0.0.72", "127.0.0.73"]


def document(*quarantine: str) -> str:
    pools = [{"name": "a", "addresses": ADDRESSES, "country": "DE", "geohash": "u33"}]
    return json.dumps({"pools": pools, "quarantine": quarantine})


async def source_of_a_tunnel(client: RelayClient, origin: TcpListener) -> str:
    stream = await client.open_tcp("127.0.0.1", origin.port)
    peer = await origin.accept()
    host: str = peer.sock.getpeername()[0]
    await stream.aclose()
    return host


async def states(path: Path) -> list[str]:
    status = await anyio.to_thread.run_sync(read_status, path)
    assert status is not None
    return [source["state"] for source in status["pools"][0]["sources"]]


async def test_a_quarantine_takes_effect_at_once_and_ends_again(certificates: Path, tmp_path: Path) -> None:
    file, status = tmp_path / "pools.json", tmp_path / "status"
    file.write_text(document())
    settings = {"egress.file": str(file), "egress.status": str(status), "telemetry.level": "debug"}
    async with (
        tcp_listener() as origin,
        running_process(certificates, "qh3", settings) as relay,
        relay.client(fields=((b"sec-ch-geohash", b"u33d8zq-DE"),)) as client,
    ):
        first = await source_of_a_tunnel(client, origin)
        assert await source_of_a_tunnel(client, origin) == first

        file.write_text(document(first))
        relay.process.send_signal(signal.SIGHUP)
        await until(lambda: "egress_reloaded" in relay.output)
        second = await source_of_a_tunnel(client, origin)
        assert second != first
        assert (await states(status))[ADDRESSES.index(first)] == "quarantined"

        file.write_text(document(*ADDRESSES)[:-3])
        relay.process.send_signal(signal.SIGHUP)
        await until(lambda: "egress_refused" in relay.output)
        assert await source_of_a_tunnel(client, origin) == second

        file.write_text(document())
        relay.process.send_signal(signal.SIGHUP)
        await until(lambda: relay.output.count("egress_reloaded") == 2)
        assert await states(status) == ["in service"] * 3
    told = relay.output.replace(f"127.0.0.1:{relay.port}", "")
    assert "tunnel_closed" in told
    for secret in ("u33d8zq", "127.0.0.1", str(origin.port), *ADDRESSES):
        assert secret not in told
