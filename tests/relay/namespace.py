"""Runs inside a network namespace of its own: `unshare --net --map-root-user python -m tests.relay.namespace`.

Behind a pair of virtual interfaces are addresses that exist for the routing tables and swallow every packet. Prints
what dialling towards them leaves behind, and what the kernel says of addresses, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import time
from ipaddress import ip_address
from pathlib import Path

from relay.errors import RelayError
from relay.hooks import EgressBinding, IPAddress
from relay.policy import is_routed_locally
from relay.tunnels import ReachMemory, dial_tcp
from tests.relay.rig import open_sockets

__all__ = ["ADDRESSES", "DELAY", "DIALS", "GOOD", "SILENT_FOUR", "SILENT_SIX", "main"]

SETUP = """
link set lo up
link add near type veth peer name far
link set near up
link set far up
addr add 198.51.100.1/24 dev near
addr add 198.18.0.1/32 dev lo
-6 addr add 2001:db8::1/64 dev near nodad
neigh add 198.51.100.9 lladdr 02:00:00:00:00:09 dev near
-6 neigh add 2001:db8::9 lladdr 02:00:00:00:00:09 dev near
route add local 203.0.113.0/24 dev lo
-6 route add local 2001:db8:5::/48 dev lo
"""
"Commands of ip(8)."

GOOD, SILENT_FOUR, SILENT_SIX = (ip_address(one) for one in ("198.18.0.1", "198.51.100.9", "2001:db8::9"))
ADDRESSES = {
    "127.0.0.1": True,
    "198.18.0.1": True,
    "198.51.100.1": True,
    "198.51.100.255": True,
    "198.51.100.9": False,
    "2001:db8::1": True,
    "2001:db8::9": False,
    "203.0.113.77": True,
    "2001:db8:5:1::7": True,
    "192.0.2.1": False,
}
"Addresses of the namespace, and whether they are its own."
DIALS = 30
"Dials at the same time."
DELAY = 0.1
"Seconds between attempts."


async def choose(_address: IPAddress) -> EgressBinding:
    """Leave the source to the system."""
    return EgressBinding()


def half_open() -> int:
    """TCP sockets of the namespace that wait for an answer to their SYN."""
    tables = (Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6"))
    return sum(line.split()[3] == "02" for table in tables for line in table)


async def dial(port: int, memory: ReachMemory | None = None, delay: float = DELAY) -> tuple[float, list[str]]:
    """Dial two silent addresses and a good one; returns the seconds that it took, and the addresses tried."""
    started = time.monotonic()
    tried: list[str] = []

    async def note(address: IPAddress) -> EgressBinding:
        tried.append(str(address))
        return await choose(address)

    with await dial_tcp((SILENT_SIX, SILENT_FOUR, GOOD), port, note, 10, delay, memory) as sock:
        assert sock.getpeername()[0] == str(GOOD)
    return time.monotonic() - started, tried


async def give_up(port: int, *, is_cancelled: bool) -> None:
    """Dial silent addresses only, until the time is over or the client leaves."""
    task = asyncio.create_task(dial_tcp((SILENT_SIX, SILENT_FOUR), port, choose, 0.3, DELAY))
    if is_cancelled:
        await asyncio.sleep(0.15)
        task.cancel()
    try:
        await task
    except (RelayError, asyncio.CancelledError):
        return
    raise AssertionError


async def play() -> dict[str, object]:
    """Dial in every way; returns what was found."""
    before = open_sockets()
    found: dict[str, object] = {}
    with socket.create_server((str(GOOD), 0), backlog=DIALS * 2) as listener:
        port = listener.getsockname()[1]
        found["first"] = await asyncio.gather(*(dial(port) for _ in range(DIALS)))
        found["left after winners"] = [len(open_sockets() - before) - 1, half_open()]
        memory = ReachMemory(60, 100, asyncio.get_running_loop().time)
        found["remembered"] = [await dial(port, memory), await dial(port, memory, delay=5)]
        ends = [give_up(port, is_cancelled=number % 2 == 0) for number in range(DIALS)]
        waiting = asyncio.gather(*ends)
        await asyncio.sleep(DELAY / 2)
        found["under way"] = half_open()
        await waiting
        found["left after giving up"] = [len(open_sockets() - before) - 1, half_open()]
    found["own"] = {text: is_routed_locally(ip_address(text)) for text in ADDRESSES}
    return found


def main() -> None:
    """Set the namespace up, play, print."""
    for line in SETUP.strip().splitlines():
        subprocess.run(["ip", *line.split()], check=True, capture_output=True)
    print(json.dumps(asyncio.run(play())))


if __name__ == "__main__":
    main()
