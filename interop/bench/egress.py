"""What choosing the egress costs: `python -m interop.bench.egress`, one process, CPU time.

A choice is one tunnel's: where the client is, which pool serves that place, which address is the session's. Sessions
that are new have their address found among all of the pool; later tunnels of a session find it again.
"""

from __future__ import annotations

import asyncio
import sys
import time
from ipaddress import ip_address

from masque.head import RequestHead
from masque.target import IPAddress, Target
from relay.egress import Egress, PoolBinding
from relay.hooks import ConnectionContext, ExchangeContext, HookChain, TunnelKind
from relay.settings import EgressSettings

__all__ = ["SIZES", "choices", "main", "make_egress"]

SIZES = (1, 200, 4096)
"Addresses of the pool that is chosen from."

_POOLS = 50
"Places that there are."
_SECONDS = 0.5
_BATCH = 200


def make_egress(addresses: int) -> Egress:
    """Make pools in many places, each with so many IPv4 addresses, and one IPv6 network."""
    digits = "0123456789bcdefghjkmnpqrstuvwxyz"
    pools = [
        {
            "name": f"place{number}",
            "country": "DE",
            "geohash": f"u{digits[number % 32]}{digits[number // 32]}",
            "addresses": [f"2001:db8:{number:x}::/64"],
        }
        for number in range(_POOLS)
    ]
    pools[0]["addresses"] = [f"10.{index >> 8}.{index & 255}.1" for index in range(addresses)]
    return Egress(EgressSettings.model_validate({"pools": pools}))


async def choices(
    egress: Egress, address: IPAddress, hint: bytes, *, is_new: bool, seconds: float = _SECONDS
) -> float:
    """Return how many choices a second of CPU makes.

    Args:
        egress: what chooses.
        address: of the target.
        hint: the location that every tunnel asks for.
        is_new: whether every tunnel is of a new session.
        seconds: of CPU time.
    """
    chain = HookChain([egress.hooks])
    head = RequestHead(b"CONNECT", fields=((b"sec-ch-geohash", hint),))
    target = Target("www.example", 443)
    connection = ConnectionContext(0.0)
    count = 0
    started = time.process_time()
    while (spent := time.process_time() - started) < seconds:
        for _ in range(_BATCH):
            if is_new:
                connection = ConnectionContext(0.0)
            chosen = await chain.choose_egress(ExchangeContext(connection, TunnelKind.TCP, head, target), address)
            if not isinstance(chosen, PoolBinding):
                raise RuntimeError("no address was chosen")
        count += _BATCH
    return count / spent


async def _measure() -> None:
    rows = [(f"IPv4, {size} addresses", make_egress(size), ip_address("192.0.2.1"), b"u00-DE") for size in SIZES]
    rows.append(("IPv6, one network", make_egress(1), ip_address("2001:db8::1"), b"u20-DE"))
    for name, egress, address, hint in rows:
        for is_new in (True, False):
            figure = await choices(egress, address, hint, is_new=is_new)
            session = "new session" if is_new else "same session"
            print(f"egress/{name}/{session:<12} {figure:>9,.0f} choices in a CPU second", flush=True)


def main() -> int:
    """Measure and print."""
    asyncio.run(_measure())
    return 0


if __name__ == "__main__":
    sys.exit(main())
