"""Loads of connections: handshakes one after another, and idle connections and tunnels that only take memory."""

from __future__ import annotations

import time

from interop.bench.batches import Address
from interop.bench.http3 import encode_connect_tcp, encode_connect_udp
from interop.bench.measure import Cost, Meter, read_usage
from interop.bench.pool import NoAnswerError, Pool

__all__ = ["run_handshakes", "run_memory", "run_probe"]

_PATIENCE = 10.0
"Seconds that a handshake may take."
_TENTH = 10
"Connections that carry the idle tunnels of one kind."


def run_handshakes(server: Address, pids: list[int], parallel: int, warmup: float, seconds: float) -> Cost:
    """Make connections and close them as soon as they are confirmed.

    Args:
        server: the server's address.
        pids: the server's process, then those of the origins.
        parallel: how many are made at a time.
        warmup: seconds before the measurement.
        seconds: how long to measure.

    Returns:
        What it cost; work is in handshakes.

    Raises:
        NoAnswerError: a handshake took too long.
    """
    pool = Pool()
    done = 0
    meter: Meter | None = None
    try:
        started = {pool.connect(server): time.monotonic() for _ in range(parallel)}
        begin = time.monotonic()
        while (now := time.monotonic()) < begin + warmup + seconds:
            if meter is None and now >= begin + warmup:
                meter, done = Meter(pids), 0
            pool.step()
            for client in [client for client in started if client.is_connected or client.is_closed]:
                done += client.is_connected
                del started[client]
                pool.forget(client)
                started[pool.connect(server)] = now
            if any(now - since > _PATIENCE for since in started.values()):
                raise NoAnswerError("a handshake hangs")
        assert meter is not None
        return meter.stop(done, done)
    finally:
        pool.close()


def run_memory(
    server: Address, pids: list[int], connections: int, udp_target: int | None, tcp_target: int | None, tunnels: int
) -> dict[str, float]:
    """Open idle connections, then idle tunnels on ten of them, and read the server's memory in between.

    Args:
        server: the address of a server that has just been started.
        pids: the server's process, then those of the origins.
        connections: how many, at least 20.
        udp_target: the UDP origin's port, or None for a server without UDP tunnels.
        tcp_target: the TCP origin's port, or None for a server without TCP tunnels.
        tunnels: how many of each kind, a multiple of ten.

    Returns:
        Bytes for each `connection`, `udp_tunnel` and `tcp_tunnel`, as far as asked for, and `base` before any.

    Raises:
        NoAnswerError: the server did not answer.
    """
    pool = Pool()

    def settled() -> int:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            pool.step()
        return read_usage(pids[0]).rss_bytes

    heads: list[tuple[str, bytes]] = []
    if udp_target is not None:
        heads.append(("udp_tunnel", encode_connect_udp(udp_target, server)))
    if tcp_target is not None:
        heads.append(("tcp_tunnel", encode_connect_tcp(tcp_target)))
    try:
        pool.connect_many(server, 4)
        found: dict[str, float] = {"base": settled()}
        clients = pool.connect_many(server, connections)
        before = settled()
        found["connection"] = (before - found["base"]) / connections
        for key, head in heads:
            own, clients = clients[:_TENTH], clients[_TENTH:]
            for client in own:
                pool.open_tunnels(client, head, tunnels // _TENTH)
            after = settled()
            found[key], before = (after - before) / tunnels, after
    finally:
        pool.close()
    return found


def run_probe(server: Address, seconds: float) -> dict[str, float]:
    """Wait until the server completes a handshake.

    Args:
        server: the server's address.
        seconds: how long to try.

    Returns:
        The seconds it took.

    Raises:
        NoAnswerError: no handshake in that time.
    """
    begin = time.monotonic()
    while time.monotonic() < begin + seconds:
        pool = Pool()
        try:
            client = pool.connect(server)
            pool.wait_until(lambda client=client: client.is_connected, 0.5, "handshake")  # type: ignore[misc]
            return {"seconds": time.monotonic() - begin}
        except NoAnswerError:
            continue
        finally:
            pool.close()
    raise NoAnswerError(f"no handshake within {seconds:g} s")
