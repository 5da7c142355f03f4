"""A relay in a process, origins and a resolver: what the conformance cases play on in tests."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from relay.conformance import (
    Case,
    Need,
    Origins,
    Outcome,
    Server,
    Stage,
    WireDriver,
    WireOptions,
    play,
    running_origins,
)
from relay.quic.development import write_certificates
from relay.quic.engine import EngineName
from tests.e2e.rig import KEY, RelayProcess, running_process
from tests.relay.dns_server import records, running_server

__all__ = ["Theatre", "opened_theatre"]

_NAME = "origin.test"
_PARALLEL = 10


@dataclass(frozen=True, slots=True)
class Theatre:
    """Origins and a resolver, for any number of relays."""

    folder: Path
    "Certificates."
    origins: Origins
    "The targets."
    resolver: str
    "Where the resolver listens."

    @asynccontextmanager
    async def relay(
        self, settings: dict[str, str], module: Sequence[str] = ("relay",)
    ) -> AsyncIterator[RelayProcess]:
        """Run a relay with these settings, or another module that is given the same arguments."""
        wanted = {
            "policy.allow": '["127.0.0.1/32", "::1/128"]',
            "resolver.upstreams": json.dumps([self.resolver]),
            "limits.streams": "256",
            "limits.drain": "20",
            **settings,
        }
        async with running_process(self.folder, settings.get("quic.engine", "qh3"), wanted, module=module) as relay:
            yield relay

    async def play(self, relay: RelayProcess, case: Case, patience: float = 20.0) -> Outcome:
        """Play one case against a relay."""

        async def drain() -> None:
            relay.process.send_signal(signal.SIGTERM)

        server = Server(
            frozenset(Need),
            "127.0.0.1",
            "::1",
            _NAME,
            forbidden=("127.0.0.2", 9),
            credentials=(("proxy-authorization", f"Preshared {KEY}"),),
            wrong_credentials=(("proxy-authorization", "Preshared wrong"),),
            drain=drain,
            streams=200,
            is_strict=True,
        )
        options = WireOptions(
            "127.0.0.1", relay.port, EngineName.QH3, ca_file=self.folder / "ca.pem", timeout=patience
        )
        async with WireDriver(options, patience) as driver:
            return await play(case, Stage(driver, server, self.origins, patience=patience / 10))

    async def play_all(self, relay: RelayProcess, cases: Iterable[Case], patience: float = 20.0) -> list[Outcome]:
        """Play cases against one relay, a few at a time."""
        turn = asyncio.Semaphore(_PARALLEL)

        async def one(case: Case) -> Outcome:
            async with turn:
                return await self.play(relay, case, patience)

        return list(await asyncio.gather(*(one(case) for case in cases)))


@asynccontextmanager
async def opened_theatre(folder: Path) -> AsyncIterator[Theatre]:
    """Start origins and a resolver for the time of the context."""
    write_certificates(folder, ["localhost", "127.0.0.1"])
    pages = folder / "pages"
    pages.mkdir()
    async with AsyncExitStack() as stack:
        origins = await stack.enter_async_context(running_origins(("127.0.0.1", "::1"), pages, (_NAME,)))
        dns = await stack.enter_async_context(running_server())
        dns.answer(_NAME, records(f"{_NAME}. 60 IN A 127.0.0.1"))
        yield Theatre(folder, origins, f"{dns.upstream.address}:{dns.upstream.port}")
