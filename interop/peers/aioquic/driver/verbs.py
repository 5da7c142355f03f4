"""The verbs of the peers' README, carried out on aioquic."""

from __future__ import annotations

import asyncio
import hashlib
import json
import traceback
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

from .client import Client, connected
from .fetch import fetch_over_tcp, fetch_over_udp
from .request import Server
from .tunnel import DriverError, Tunnel, encode_capsule

__all__ = ["FEATURES", "Driver", "Values", "pattern"]

FEATURES = [
    *("tcp", "udp", "headers", "early", "reset", "ends", "contexts", "no-datagrams", "capsules", "migration"),
    *("closed", "settings", "max-payload", "fetch-tcp", "fetch-udp"),
]
"Without goaway: aioquic reads GOAWAY and tells nobody."
_PATIENCE = 10.0
"The timeout of a verb that came without."

Values = dict[str, Any]


class Driver:
    """The verbs. Each takes its request and returns `ok`."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._stack = AsyncExitStack()
        self._verbs: dict[str, Callable[[Values], Awaitable[Values]]] = {
            name.removeprefix("on_"): getattr(self, name) for name in dir(self) if name.startswith("on_")
        }

    async def answer(self, line: bytes) -> Values:
        """Carry out a request and return its answer, whatever happens."""
        number = None
        try:
            request = json.loads(line)
            number = request["id"]
            if request["verb"] not in self._verbs:
                return {"id": number, "error": f"unknown verb {request['verb']}"}
            return {"id": number, "ok": await self._carry_out(request)}
        except DriverError as error:
            return {"id": number, "error": str(error)}
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is an answer, and the details go to the log
            traceback.print_exc()
            return {"id": number, "error": f"{type(error).__name__}: {error}"}

    async def _carry_out(self, request: Values) -> Values:
        """Carry out a request within its time. Only receive_datagrams has an answer when that is over."""
        verb = self._verbs[request["verb"]]
        if request["verb"] == "receive_datagrams":
            return await verb(request)
        seconds = _seconds(request)
        patience = asyncio.timeout(seconds)
        try:
            async with patience:
                return await verb(request)
        except TimeoutError:
            if patience.expired():
                raise DriverError(f"timeout: {request['verb']} took more than {seconds:g} s") from None
            raise

    async def aclose(self) -> None:
        """Close the connection, if any, and let aioquic write its qlog."""
        await self._stack.aclose()

    async def on_connect(self, request: Values) -> Values:
        await self._stack.aclose()
        datagrams = request.get("datagrams", True)
        server = Server(request["url"], request["ca"], request["template"], datagrams, request.get("qlog") or "")
        client = self._client = await self._stack.enter_async_context(connected(server))
        settings = await client.settings()
        return {"settings": {str(name): value for name, value in settings.items()}}

    async def on_open(self, request: Values) -> Values:
        early = b64decode(request.get("early") or "")
        tunnel = await self._open(request["kind"], request["host"], request["port"], request.get("headers"), early)
        ok: Values = {"status": tunnel.status, "headers": tunnel.headers}
        return ok | {"tunnel": tunnel.stream_id} if _is_open(tunnel) else ok

    async def on_send(self, request: Values) -> Values:
        data = pattern(request["pattern"]) if "pattern" in request else b64decode(request.get("data") or "")
        self._connected.send(self._tunnel(request), data, end=request.get("end", False))
        return {}

    async def on_receive(self, request: Values) -> Values:
        tunnel, size = self._tunnel(request), request["size"]
        await self._connected.until(tunnel, lambda: tunnel.has_content(size))
        data = tunnel.take_content(size)
        return {"data": b64encode(data).decode(), "end": tunnel.is_used_up()}

    async def on_receive_all(self, request: Values) -> Values:
        tunnel = self._tunnel(request)
        ending = await self._end_of(tunnel)
        data = tunnel.take_content()
        return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), **ending}

    async def on_reset(self, request: Values) -> Values:
        self._connected.reset(self._tunnel(request), request["code"])
        return {}

    async def on_end(self, request: Values) -> Values:
        self._connected.send(self._tunnel(request), b"", end=True)
        return {}

    async def on_wait_end(self, request: Values) -> Values:
        tunnel = self._tunnel(request)
        ending = await self._end_of(tunnel)
        tunnel.take_content()
        return ending

    async def on_send_datagrams(self, request: Values) -> Values:
        client, tunnel, context = self._connected, self._tunnel(request), request.get("context", 0)
        sent = sum(client.send_payload(tunnel, b64decode(payload), context) for payload in request["payloads"])
        client.transmit()
        return {"sent": sent}

    async def on_receive_datagrams(self, request: Values) -> Values:
        tunnel, count = self._tunnel(request), request["count"]
        try:
            async with asyncio.timeout(_seconds(request)):
                await self._connected.until(tunnel, lambda: tunnel.has_payloads(count))
        except TimeoutError:
            pass
        return {"payloads": [b64encode(payload).decode() for payload in tunnel.take_payloads(count)]}

    async def on_max_payload(self, request: Values) -> Values:
        return {"size": self._connected.max_payload(self._tunnel(request))}

    async def on_send_capsule(self, request: Values) -> Values:
        capsule = encode_capsule(request["type"], b64decode(request["value"]))
        self._connected.send(self._tunnel(request), capsule)
        return {}

    async def on_migrate(self, request: Values) -> Values:
        await self._connected.migrate()
        return {}

    async def on_wait_closed(self, request: Values) -> Values:
        client = self._connected
        await client.changed.until(lambda: client.end)
        return {"code": client.end.error_code if client.end else None}

    async def on_fetch(self, request: Values) -> Values:
        url, kind = urlsplit(request["url"]), request["via"]
        tunnel = await self._open(kind, url.hostname or "", url.port or 443, request.get("headers"), b"")
        if not _is_open(tunnel):
            raise DriverError(f"the tunnel was refused with {tunnel.status}: {tunnel.headers}")
        fetch = fetch_over_tcp if kind == "tcp" else fetch_over_udp
        page = await fetch(self._connected, tunnel, request["url"], request["ca"])
        self._connected.send(tunnel, b"", end=True)
        return page.encode()

    async def on_close(self, request: Values) -> Values:
        await self._stack.aclose()
        return {}

    async def _open(self, kind: str, host: str, port: int, headers: Any, early: bytes) -> Tunnel:
        if kind not in ("tcp", "udp"):
            raise DriverError(f"no kind {kind}")
        return await self._connected.open(kind, host, port, headers or [], early)

    async def _end_of(self, tunnel: Tunnel) -> Values:
        await self._connected.until(tunnel, lambda: tunnel.ending)
        assert tunnel.ending is not None
        return {"end": tunnel.ending.kind, "code": tunnel.ending.code}

    @property
    def _connected(self) -> Client:
        if self._client is None:
            raise DriverError("not connected")
        return self._client

    def _tunnel(self, request: Values) -> Tunnel:
        return self._connected.tunnel(request["tunnel"])


def pattern(size: int) -> bytes:
    """Make `size` bytes of the protocol's pattern: byte `i` is `(i ^ i >> 8 ^ i >> 16) & 255`."""
    low = bytes(range(256))
    flipped = [bytes(value ^ block for value in low) for block in range(256)]
    return b"".join(flipped[(block ^ block >> 8) & 255] for block in range((size >> 8) + 1))[:size]


def _seconds(request: Values) -> float:
    return float(request.get("timeout", _PATIENCE))


def _is_open(tunnel: Tunnel) -> bool:
    return tunnel.status is not None and 200 <= tunnel.status < 300
