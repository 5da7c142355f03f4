"""How a running relay tells its operator of its egress: whoever connects to a Unix socket gets one JSON document.

It holds egress addresses and numbers of tunnels, nothing of clients or targets. Only the relay's user can connect.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from relay.egress.pools import EgressPlan
from relay.settings import SettingsError

__all__ = ["StatusSocket", "bind_status", "describe_plan", "read_status", "serving_status"]

StatusSocket: TypeAlias = socket.socket
"A Unix socket, bound and not yet listening."

_PRIVATE = 0o177
"The umask under which the socket is made: for its owner alone."
_PATIENCE = 2.0
_MAX_SIZE = 64 << 20


def describe_plan(plan: EgressPlan) -> dict[str, Any]:
    """Return what is known of every source, as JSON can hold it."""
    return {
        "pools": [
            {
                "name": pool.name,
                "sources": [
                    {
                        "network": str(source.network),
                        "ports": None if source.ports is None else str(source.ports),
                        "state": source.state.value,
                        "tunnels": source.tunnels,
                        "opened": source.opened,
                    }
                    for sources in pool.sources.values()
                    for source in sources
                ],
            }
            for pool in plan.pools
        ]
    }


def bind_status(path: Path) -> StatusSocket:
    """Make the socket; one that a relay has left behind is replaced.

    Raises:
        SettingsError: the path cannot be used, or a relay that runs answers there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            if _answers(path):
                raise SettingsError(f"egress.status: {path} is in use")
            path.unlink()
        before = os.umask(_PRIVATE)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
    except OSError as error:
        sock.close()
        raise SettingsError(f"egress.status: cannot use {path}: {error.strerror or error}") from None
    except SettingsError:
        sock.close()
        raise
    return sock


@asynccontextmanager
async def serving_status(sock: StatusSocket | None, describe: Callable[[], dict[str, Any]]) -> AsyncIterator[None]:
    """Answer at a socket of `bind_status` for the time of the context; with None, do nothing."""
    if sock is None:
        yield
        return

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(describe()).encode())
        try:
            async with asyncio.timeout(_PATIENCE):
                await writer.drain()
        except (OSError, TimeoutError):
            writer.transport.abort()
        finally:
            writer.close()

    path = sock.getsockname()
    server = await asyncio.start_unix_server(answer, sock=sock)
    try:
        yield
    finally:
        server.close()
        _remove(path)


def read_status(path: Path) -> dict[str, Any] | None:
    """Ask a running relay; None when none answers."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_PATIENCE)
            sock.connect(str(path))
            data = b""
            while (chunk := sock.recv(1 << 16)) and len(data) < _MAX_SIZE:
                data += chunk
        found = json.loads(data)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.settimeout(_PATIENCE)
        return trial.connect_ex(str(path)) != errno.ECONNREFUSED
