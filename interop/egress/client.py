"""Opens tunnels for the proof: `python -m interop.egress.client URL CA KEY`, then orders as JSON, one to a line.

    {"sessions": 50, "hints": ["u33d-DE", null]}   new connections, each with four tunnels and the next of the hints
    {"more": true}                                 four more tunnels on every connection

Every tunnel stays open. The answer is a line of JSON: for each connection its hint, and for each kind of tunnel the
address that the origin saw, or the relay's refusal.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interop.egress.origin import TCP_PORT, UDP_PORT
from interop.egress.site import ORIGIN4, ORIGIN6
from relay.client import ClientError, RelayClient, RelayOptions, connect_relay

__all__ = ["KINDS", "main"]

KINDS = {"tcp4": ORIGIN4, "tcp6": ORIGIN6, "udp4": ORIGIN4, "udp6": ORIGIN6}
"The tunnels of one round on a connection, and where each goes."
_AT_ONCE = 24
_PATIENCE = 60.0


@dataclass
class Session:
    """One connection and what was seen of it."""

    client: RelayClient
    hint: str | None
    tunnels: list[object] = field(default_factory=list)

    async def round(self) -> dict[str, Any]:
        """Open one tunnel of each kind."""
        seen: dict[str, Any] = {"hint": self.hint}
        for kind, host in KINDS.items():
            try:
                seen[kind] = await (self._tcp(host) if kind.startswith("tcp") else self._udp(host))
            except ClientError as error:
                seen[kind] = {"status": error.status, "proxy_status": error.proxy_status}
        return seen

    async def _tcp(self, host: str) -> str:
        stream = await self.client.open_tcp(host, TCP_PORT)
        self.tunnels.append(stream)
        return (await stream.receive()).decode().strip()

    async def _udp(self, host: str) -> str:
        flow = await self.client.open_udp(host, UDP_PORT)
        self.tunnels.append(flow)
        while True:
            flow.send(b"who am I?")
            try:
                async with asyncio.timeout(2):
                    return (await flow.receive()).decode().strip()
            except TimeoutError:
                continue  # a datagram may be lost


async def _obey(url: str, ca_file: Path, key: str) -> None:
    sessions: list[Session] = []
    turns = asyncio.Semaphore(_AT_ONCE)
    loop = asyncio.get_running_loop()

    async with AsyncExitStack() as stack:

        async def begin(hint: str | None) -> dict[str, Any]:
            async with turns, asyncio.timeout(_PATIENCE):
                fields = () if hint is None else ((b"sec-ch-geohash", hint.encode()),)
                options = RelayOptions(url, key=key, ca_file=ca_file, fields=fields, timeout=_PATIENCE)
                session = Session(await stack.enter_async_context(connect_relay(options)), hint)
                sessions.append(session)
                return await session.round()

        async def repeat(session: Session) -> dict[str, Any]:
            async with turns, asyncio.timeout(_PATIENCE):
                return await session.round()

        while line := await loop.run_in_executor(None, sys.stdin.readline):
            order = json.loads(line)
            if "sessions" in order:
                hints: Sequence[str | None] = order["hints"]
                jobs = [begin(hints[number % len(hints)]) for number in range(order["sessions"])]
            else:
                jobs = [repeat(session) for session in list(sessions)]
            print(json.dumps(await asyncio.gather(*jobs)), flush=True)


def main() -> None:
    """Obey orders until standard input ends."""
    url, ca_file, key = sys.argv[1:]
    asyncio.run(_obey(url, Path(ca_file), key))


if __name__ == "__main__":
    main()
