"""A relay that is told to stop, and one that is told to read its certificate again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from masque.errors import ErrorCode, LocalMisuse
from relay.client import ClientError
from relay.conformance.wire import headers
from relay.quic.development import write_certificates
from relay.telemetry import LimitName, Metric
from tests.e2e.conftest import StartProcess, StartRelay
from tests.e2e.origins import tcp_listener, udp_origin
from tests.e2e.rig import RelayProcess, running_process, until

pytestmark = pytest.mark.anyio


class TestStop:
    async def test_open_tunnels_finish(self, start_process: StartProcess) -> None:
        settings = {"limits.drain": "10"}
        async with tcp_listener() as origin, start_process(settings) as relay, relay.wire() as client:
            stream = await client.answered(client.connect("127.0.0.1", origin.port))
            peer = await origin.accept()
            relay.process.send_signal(signal.SIGTERM)
            await client.until(lambda: client.goaways)
            client.send_content(stream, b"last question", fin=True)
            assert await peer.receive_all() == b"last question"
            await client.until(lambda: len(client.goaways) == 2)
            await peer.send(b"last answer")
            peer.end()
            await client.ended(stream)
            assert stream.data == b"last answer"
            await client.until(lambda: client.end_code is not None)
            assert client.end_code == ErrorCode.H3_NO_ERROR
            async with asyncio.timeout(5):
                assert await relay.process.wait() == 0
        assert "draining" in relay.output
        assert "stopped" in relay.output
        assert "Traceback" not in relay.output

    async def test_line_between_old_and_new_requests(self, start_process: StartProcess) -> None:
        """Requests on their way are taken after the notice; after the line they are rejected (RFC 9114 §5.2)."""
        async with tcp_listener() as origin, start_process() as relay, relay.wire() as client:
            first = await client.answered(client.connect("127.0.0.1", origin.port))
            relay.process.send_signal(signal.SIGTERM)
            await client.until(lambda: client.goaways)
            assert client.goaways == [(1 << 62) - 4]
            second = client.open_stream()
            authority = (b":authority", b"127.0.0.1:%d" % origin.port)
            request = headers((b":method", b"CONNECT"), authority, *client.credentials)
            client.send(second, request)
            await origin.accept()
            await origin.accept()
            await client.until(lambda: len(client.goaways) == 2)
            assert client.goaways[1] == 8
            third = client.open_stream()
            client.send(third, request)
            assert await client.cut(third) == ErrorCode.H3_REQUEST_REJECTED
            assert first.reset is None
            assert second.reset is None
            with pytest.raises(LocalMisuse):
                client.connect("127.0.0.1", origin.port)

    async def test_client_library_notices(self, start_process: StartProcess) -> None:
        async with udp_origin(echoes=True) as origin, start_process() as relay, relay.client() as client:
            flow = await client.open_udp("127.0.0.1", origin.port)
            relay.process.send_signal(signal.SIGTERM)
            await until(lambda: client.is_draining)
            with pytest.raises(ClientError, match="takes no new tunnels"):
                await client.open_udp("127.0.0.1", origin.port)
            flow.send(b"open tunnels go on")
            async with asyncio.timeout(2):
                assert await flow.receive() == b"open tunnels go on"
            await flow.aclose()
            async with asyncio.timeout(5):
                assert await relay.process.wait() == 0

    async def test_no_new_connections(self, start_process: StartProcess) -> None:
        async with udp_origin() as origin, start_process({"limits.drain": "10"}) as relay, relay.client() as client:
            flow = await client.open_udp("127.0.0.1", origin.port)
            relay.process.send_signal(signal.SIGTERM)
            await until(lambda: client.is_draining)
            with pytest.raises(ClientError):
                async with relay.client(timeout=0.5):
                    pass
            await flow.aclose()

    async def test_limit_cuts(self, start_process: StartProcess) -> None:
        settings = {"limits.drain": "1"}
        async with tcp_listener() as origin, start_process(settings) as relay, relay.wire() as client:
            await client.answered(client.connect("127.0.0.1", origin.port))
            peer = await origin.accept()
            loop = asyncio.get_running_loop()
            start = loop.time()
            relay.process.send_signal(signal.SIGTERM)
            await client.until(lambda: client.end_code is not None)
            assert client.end_code == ErrorCode.H3_NO_ERROR
            with pytest.raises(ConnectionResetError):
                await peer.receive()
            async with asyncio.timeout(5):
                assert await relay.process.wait() == 0
            assert 0.9 <= loop.time() - start < 4

    async def test_limit_is_counted(self, start_relay: StartRelay) -> None:
        async with tcp_listener() as origin, start_relay({"limits.drain": "0.1"}) as relay, relay.wire() as client:
            await client.answered(client.connect("127.0.0.1", origin.port))
            relay.server.stop()
            await client.until(lambda: client.end_code is not None)
            assert relay.count(Metric.LIMITS_HIT, LimitName.DRAIN) == 1

    async def test_idle_connections_do_not_wait(self, start_process: StartProcess) -> None:
        async with start_process({"limits.drain": "30"}) as relay, relay.wire() as client:
            relay.process.send_signal(signal.SIGTERM)
            await client.until(lambda: client.end_code is not None, within=3)
            async with asyncio.timeout(3):
                assert await relay.process.wait() == 0

    async def test_without_clients_it_stops_at_once(self, start_process: StartProcess) -> None:
        async with start_process({"limits.drain": "30"}) as relay:
            async with asyncio.timeout(2):
                assert await relay.stop() == 0

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_second_signal_ends_the_wait(self, start_process: StartProcess, number: int) -> None:
        settings = {"limits.drain": "30"}
        async with tcp_listener() as origin, start_process(settings) as relay, relay.wire() as client:
            await client.answered(client.connect("127.0.0.1", origin.port))
            relay.process.send_signal(signal.SIGTERM)
            await client.until(lambda: client.goaways)
            assert await relay.stop(number) == 130
            with pytest.raises(ConnectionResetError):
                await (await origin.accept()).receive()
        serving, draining = relay.output.splitlines()
        assert "serving" in serving
        assert "draining" in draining


class TestReload:
    async def test_new_connections_see_the_new_certificate(self, tmp_path: Path, engine: str) -> None:
        write_certificates(tmp_path, ["localhost", "127.0.0.1"])
        async with tcp_listener() as origin, running_process(tmp_path, engine) as relay, relay.wire() as old:
            before = await serial_number(relay)
            assert before == x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes()).serial_number
            write_certificates(tmp_path, ["localhost", "127.0.0.1"])
            relay.process.send_signal(signal.SIGHUP)
            wanted = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes()).serial_number
            assert wanted != before
            await logged(relay, "certificate_reloaded")
            assert await serial_number(relay) == wanted
            stream = await old.answered(old.connect("127.0.0.1", origin.port))
            assert stream.status == 200

    async def test_broken_pair_keeps_the_old(self, certificates: Path, tmp_path: Path, engine: str) -> None:
        for name in ("ca.pem", "server.pem", "server.key"):
            shutil.copy(certificates / name, tmp_path)
        async with running_process(tmp_path, engine) as relay:
            before = await serial_number(relay)
            (tmp_path / "server.pem").write_text("not a certificate")
            relay.process.send_signal(signal.SIGHUP)
            line = await logged(relay, "certificate_refused")
            assert "[error" in line
            assert f"reason='tls.certificate: {tmp_path}/server.pem holds no PEM certificate'" in line
            assert await serial_number(relay) == before
            os.unlink(tmp_path / "server.key")
            shutil.copy(certificates / "server.pem", tmp_path)
            relay.process.send_signal(signal.SIGHUP)
            assert "tls.private_key: cannot read" in await logged(relay, "server.key")
            assert await serial_number(relay) == before
        assert "Traceback" not in relay.output


async def logged(relay: RelayProcess, text: str) -> str:
    """Wait for a line of the relay's output with this text."""
    await until(lambda: text in relay.output)
    return next(line for line in relay.output.splitlines() if text in line)


async def serial_number(relay: RelayProcess) -> int:
    """The serial number of the certificate that a new connection sees."""
    async with relay.wire("aioquic") as client:
        quic: Any = client.link.engine
        certificate: x509.Certificate = quic._connection.tls._peer_certificate
        return certificate.serial_number
