"""Loads of streams: bytes through CONNECT tunnels to a TCP origin, down and up."""

from __future__ import annotations

from interop.bench.batches import Address
from interop.bench.client import Client
from interop.bench.http3 import encode_connect_tcp, encode_data_header
from interop.bench.measure import Cost, Meter
from interop.bench.origins import DOWNLOAD, UPLOAD, encode_command
from interop.bench.pool import Pool

__all__ = ["run_streams"]

_CHUNK = 64 << 10
"Bytes of an upload's DATA frame."
_BACKLOG = 1 << 20
"Bytes of an upload that wait in the client, per stream."


def run_streams(
    server: Address,
    pids: list[int],
    target: int,
    direction: str,
    streams: int,
    size: int,
    warmup: int,
    seconds: float,
) -> Cost:
    """Carry bytes through TCP tunnels of one connection.

    Args:
        server: the server's address.
        pids: the server's process, then those of the origins.
        target: the TCP origin's port.
        direction: `down` or `up`.
        streams: how many tunnels.
        size: bytes in all; each tunnel carries its share.
        warmup: bytes that one more tunnel carries before the measurement, so that congestion windows are open.
        seconds: how long it may take.

    Returns:
        What it cost; work is in bytes that arrived.

    Raises:
        NoAnswerError: the bytes did not arrive in time.
    """
    share = size // streams
    pool = Pool()
    try:
        (client,) = pool.connect_many(server, 1)
        carry = _download if direction == "down" else _upload
        carry(pool, client, pool.open_tunnels(client, encode_connect_tcp(target), 1), warmup, seconds)
        opened = pool.open_tunnels(client, encode_connect_tcp(target), streams)
        meter = Meter(pids)
        arrived = carry(pool, client, opened, share, seconds)
        return meter.stop(arrived, share * streams)
    finally:
        pool.close()


def _download(pool: Pool, client: Client, opened: list[int], share: int, seconds: float) -> int:
    """Ask the origin for bytes on every tunnel, and count them."""
    command = encode_command(DOWNLOAD, share)
    for stream_id in opened:
        client.send_stream(stream_id, encode_data_header(len(command)) + command)
    client.flush()
    streams = [client.streams[stream_id] for stream_id in opened]
    pool.wait_until(
        lambda: all(stream.received >= share or stream.is_ended for stream in streams), seconds, "download"
    )
    return sum(stream.received for stream in streams)


def _upload(pool: Pool, client: Client, opened: list[int], share: int, seconds: float) -> int:
    """Send bytes on every tunnel, and take the origin's count."""
    command = encode_command(UPLOAD, share)
    chunk = encode_data_header(_CHUNK) + bytes(_CHUNK)
    left = dict.fromkeys(opened, share)
    for stream_id in opened:
        client.send_stream(stream_id, encode_data_header(len(command)) + command)
    streams = [client.streams[stream_id] for stream_id in opened]

    def is_done() -> bool:
        for stream_id in [stream_id for stream_id, size in left.items() if size]:
            while left[stream_id] and client.backlog(stream_id) < _BACKLOG:
                size = min(left[stream_id], _CHUNK)
                left[stream_id] -= size
                data = chunk if size == _CHUNK else encode_data_header(size) + bytes(size)
                client.send_stream(stream_id, data, not left[stream_id])
        client.flush()
        return all(stream.received >= 8 or stream.is_ended for stream in streams)

    pool.wait_until(is_done, seconds, "end of the upload")
    return sum(int.from_bytes(stream.content[:8], "big") for stream in streams)
