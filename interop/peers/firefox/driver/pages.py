"""Pages through the relay: what the extension is told to load, and what it reports.

Alternatives to origins are a preference of the whole browser, so loads that want HTTP/3 and loads that do not want it
take turns. Loads that want the same go side by side.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from .browser import Firefox
from .preferences import ALT_SVC, ALTERNATIVES, QLOG
from .process import FirefoxError

__all__ = ["Pages", "Relay"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_POLL_SECONDS = 0.03
_QUIT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Relay:
    """The relay as Firefox's proxy."""

    host: str
    "Its name or address."
    port: int
    "Its UDP port."
    template: str
    "The path's template of CONNECT-UDP."

    def proxy_info(self, isolation: str, authorization: str | None) -> dict[str, object]:
        """What proxy.onRequest of an extension answers.

        Args:
            isolation: requests with different keys share no connection to the relay.
            authorization: the value of Proxy-Authorization, or None.

        Returns:
            A ProxyInfo.
        """
        info: dict[str, object] = {
            "type": "masque",
            "host": self.host,
            "port": self.port,
            "masqueTemplate": self.template,
            "connectionIsolationKey": isolation,
        }
        if authorization is not None:
            info["proxyAuthorizationHeader"] = authorization
        return info


class Pages:
    """Loads pages in one Firefox."""

    def __init__(self) -> None:
        """Start Firefox.

        Raises:
            FirefoxError: it cannot be started.
        """
        self._firefox = Firefox()
        self._hand = ThreadPoolExecutor(1, "marionette")
        self._keys = itertools.count(1)
        self._reports: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._is_expecting = asyncio.Event()
        self._turn = asyncio.Condition()
        self._alternatives = ""
        self._users = 0

    @property
    def version(self) -> str:
        """Firefox's version, once attached."""
        return self._firefox.version

    async def attach(self, timeout: float) -> None:
        """Wait until Firefox can be used.

        Args:
            timeout: seconds.

        Raises:
            FirefoxError: it cannot.
        """
        await self._do(self._firefox.attach, timeout)
        await self._do(self._firefox.set_preference, ALT_SVC, False)
        await self._do(self._firefox.set_preference, QLOG, False)

    async def prepare(self, authority: str, qlogs: str) -> None:
        """Trust an authority, and keep qlogs.

        Args:
            authority: a PEM file.
            qlogs: a folder, or nothing for none.

        Raises:
            FirefoxError: the file is of no use.
        """
        await self._do(self._firefox.trust, authority)
        if qlogs:
            await self._do(self._firefox.keep_qlogs, qlogs)

    async def load(
        self, urls: Sequence[str], relay: Relay, authorization: str | None, *, is_udp: bool, timeout: float
    ) -> list[dict[str, Any]]:
        """Load pages side by side, over one set of connections of their own.

        Args:
            urls: the pages.
            relay: the way to them.
            authorization: the value of Proxy-Authorization, or None.
            is_udp: by HTTP/3 in CONNECT-UDP, rather than by TLS in CONNECT.
            timeout: seconds, for waiting one's turn and loading.

        Returns:
            What the extension reports, in the order of `urls`: `error`, or `status`, `protocol`, `size`, `sha256` and
            `resources`.

        Raises:
            TimeoutError: not all are there in time.
            FirefoxError: Firefox does not answer, or the URLs cannot be loaded at once.
        """
        keys = [next(self._keys) for _ in urls]
        proxy = relay.proxy_info(f"loads from {keys[0]}", authorization)
        futures = [asyncio.get_running_loop().create_future() for _ in urls]
        async with asyncio.timeout(timeout), self._alternative(_alternatives(urls) if is_udp else ""):
            try:
                for key, url, future in zip(keys, urls, futures, strict=True):
                    self._reports[key] = future
                    await self._do(self._firefox.call, "begin", key, url, proxy)
                self._is_expecting.set()
                return [await future for future in futures]
            finally:
                await self._abandon([key for key in keys if self._reports.pop(key, None) is not None])

    async def _abandon(self, keys: Sequence[int]) -> None:
        try:
            for key in keys:
                await self._do(self._firefox.call, "abandon", key)
        except FirefoxError:
            pass  # what is gone loads nothing

    async def watch(self) -> None:
        """Take the extension's reports for as long as loads wait for them. Runs until it is cancelled."""
        while True:
            await self._is_expecting.wait()
            try:
                reports = await self._do(self._firefox.call, "takeReports")
            except FirefoxError as error:
                self._break(error)
                continue
            for report in reports:
                future = self._reports.pop(int(report.pop("key")), None)
                if future is not None and not future.done():
                    future.set_result(report)
            if not self._reports:
                self._is_expecting.clear()
            await asyncio.sleep(_POLL_SECONDS)

    def _break(self, error: FirefoxError) -> None:
        for future in self._reports.values():
            if not future.done():
                future.set_exception(error)
        self._reports.clear()
        self._is_expecting.clear()

    @asynccontextmanager
    async def _alternative(self, wanted: str) -> AsyncIterator[None]:
        """Wait until nobody needs other alternatives, and set these for the time of the context."""
        async with self._turn:
            await self._turn.wait_for(lambda: self._users == 0 or self._alternatives == wanted)
            if self._alternatives != wanted:
                await self._do(self._firefox.set_preference, ALTERNATIVES, wanted)
                await self._do(self._firefox.set_preference, ALT_SVC, bool(wanted))
                self._alternatives = wanted
            self._users += 1
        try:
            yield
        finally:
            async with self._turn:
                self._users -= 1
                self._turn.notify_all()

    async def close(self, *, is_orderly: bool) -> None:
        """End Firefox and remove what it wrote.

        Args:
            is_orderly: its connections are closed first.
        """
        if is_orderly:
            try:
                async with asyncio.timeout(_QUIT_SECONDS):
                    await self._do(self._firefox.quit)
            except TimeoutError:
                pass
        await asyncio.to_thread(self._firefox.stop)
        self._break(FirefoxError("Firefox was closed"))
        self._hand.shutdown()

    async def _do(self, function: Callable[_P, _R], *arguments: _P.args, **options: _P.kwargs) -> _R:
        """Run a function that blocks, one at a time."""
        call = partial(function, *arguments, **options)
        return await asyncio.get_running_loop().run_in_executor(self._hand, call)


def _alternatives(urls: Sequence[str]) -> str:
    """Say of each URL's host that HTTP/3 is on the URL's own port."""
    ports: dict[str, int] = {}
    for url in urls:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        if ":" in host:
            raise FirefoxError("Firefox keeps no alternatives of IPv6 addresses, so HTTP/3 cannot be had from them")
        if ports.setdefault(host, port) != port:
            raise FirefoxError(f"{host} can have one port of HTTP/3 at a time")
    return ",".join(f"{host};h3=:{port}" for host, port in sorted(ports.items()))
