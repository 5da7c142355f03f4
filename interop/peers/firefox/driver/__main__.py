"""The driver: requests from standard input, answers to standard output, as interop/peers/README.md says."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from .pages import Pages, Relay
from .process import FirefoxError

_FEATURES = ("headers", "fetch-tcp", "fetch-udp", "pages")
_START_SECONDS = 50.0
_MAX_LINE = 1 << 24
_ON_SIGNAL = 128


class Driver:
    """Carries out the verbs."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._pages: Pages | None = None
        self._relay: Relay | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Start Firefox, greet, then answer until standard input ends.

        Firefox starts before the greeting, because that takes seconds and a greeting may.

        Raises:
            FirefoxError: Firefox cannot be used.
        """
        try:
            lines = await _open_input()
            about = (
                f"Firefox ESR {await self._start(_START_SECONDS)}, marionette_driver {version('marionette_driver')}"
            )
            _write({"peer": "firefox", "version": about, "features": _FEATURES})
            while line := await lines.readline():
                task = asyncio.create_task(self._answer(json.loads(line)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await self._cancel_all()
            await self._stop(is_orderly=True)
        finally:
            await self._stop(is_orderly=False)

    async def _cancel_all(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _start(self, timeout: float) -> str:
        """Start a Firefox; returns its version."""
        self._pages = Pages()
        await self._pages.attach(timeout)
        self._watch = asyncio.create_task(self._pages.watch())
        return self._pages.version

    async def _stop(self, *, is_orderly: bool) -> None:
        """End Firefox, if there is one."""
        pages, self._pages, self._relay = self._pages, None, None
        if self._watch is not None:
            self._watch.cancel()
        if pages is not None:
            await pages.close(is_orderly=is_orderly)

    async def _answer(self, request: dict[str, Any]) -> None:
        number = request.get("id")
        try:
            _write({"id": number, "ok": await self._carry_out(request)})
        except TimeoutError:
            _write({"id": number, "error": f"timeout: {request['verb']} was not done in time"})
        except KeyError as error:
            _write({"id": number, "error": f"{error} is missing"})
        except (FirefoxError, TypeError, ValueError) as error:
            _write({"id": number, "error": str(error)})

    def _carry_out(self, request: dict[str, Any]) -> Coroutine[Any, Any, dict[str, Any]]:
        match request["verb"]:
            case "connect":
                return self._connect(request)
            case "fetch":
                return self._fetch(request)
            case "load_pages":
                return self._load_pages(request)
            case "close":
                return self._close()
            case verb:
                raise FirefoxError(f"Firefox cannot do {verb}")

    async def _connect(self, request: dict[str, Any]) -> dict[str, Any]:
        if not request.get("datagrams", True):
            raise FirefoxError("Firefox always announces H3_DATAGRAM")
        parts = urlsplit(request["url"])
        relay = Relay(parts.hostname or "", parts.port or 443, request["template"])
        async with asyncio.timeout(request["timeout"]):
            if self._pages is None or self._relay is not None:
                await self._stop(is_orderly=True)
                await self._start(_START_SECONDS)
            assert self._pages is not None
            await self._pages.prepare(request["ca"], request.get("qlog", ""))
        self._relay = relay
        return {}

    async def _fetch(self, request: dict[str, Any]) -> dict[str, Any]:
        [page] = await self._load([request["url"]], request)
        if "error" in page:
            raise FirefoxError(page["error"])
        return {key: page[key] for key in ("status", "size", "sha256", "protocol")}

    async def _load_pages(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"pages": await self._load(request["urls"], request)}

    async def _load(self, urls: list[str], request: dict[str, Any]) -> list[dict[str, Any]]:
        if self._pages is None or self._relay is None:
            raise FirefoxError("there is no connection")
        headers = {name.lower(): value for name, value in request.get("headers", [])}
        authorization = headers.pop("proxy-authorization", None)
        if headers:
            raise FirefoxError(f"Firefox cannot add {', '.join(headers)} to a request for a tunnel")
        if "ca" in request:
            await self._pages.prepare(request["ca"], "")
        is_udp = {"tcp": False, "udp": True}[request["via"]]
        return await self._pages.load(urls, self._relay, authorization, is_udp=is_udp, timeout=request["timeout"])

    async def _close(self) -> dict[str, Any]:
        await self._stop(is_orderly=True)
        return {}


def _write(answer: dict[str, Any]) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def _open_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=_MAX_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def main() -> int:
    """Run the driver; returns its exit code. SIGTERM and SIGINT end it in order: Firefox first, then its files."""
    loop, driver = asyncio.get_running_loop(), Driver()
    run = asyncio.create_task(driver.run())
    signals: list[signal.Signals] = []

    def end(number: signal.Signals) -> None:
        if not signals:
            run.cancel()
        signals.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number)
    with suppress(asyncio.CancelledError):
        await run
    return _ON_SIGNAL + signals[0] if signals else 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except FirefoxError as error:
        sys.exit(f"firefox: {error}")
