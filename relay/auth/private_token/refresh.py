"""Keeps an issuer's keys fresh: fetches its directory, again and again, for as long as the relay runs.

An issuer that is away costs nothing but its news: the last good keys stay, the log has a line when that begins and
one when it is over, and the attempts become rarer. Times are drawn a little at random, so that a fleet that was
started together does not ask together.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl

import httpx

from relay.auth.private_token.directory import (
    DirectoryError,
    DirectoryFault,
    FetchedDirectory,
    directory_url,
    fetch_directory,
)
from relay.auth.private_token.key_ring import KeyRing
from relay.telemetry import Metric, Metrics, get_logger

__all__ = ["Refresh"]

_log = get_logger()
_SOONEST = 60.0
"Seconds that a directory is used at least, whatever its issuer says, unless the settings say less."
_RETRY = 1.0
_RETRY_AT_MOST = 300.0
_JITTER = 0.1


class Refresh:
    """The refreshing of one issuer's keys."""

    def __init__(self, ring: KeyRing, trust: ssl.SSLContext, metrics: Metrics) -> None:
        """Fetch nothing yet.

        Args:
            ring: the issuer's keys, with a directory in its settings.
            trust: from `make_trust`.
            metrics: where fetches are counted.

        Raises:
            ValueError: the directory's URL is none.
        """
        self._url = directory_url(ring.settings.directory or "")
        self._ring = ring
        self._trust = trust
        self._metrics = metrics
        self._longest = ring.settings.refresh.total_seconds()
        self._retry = _RETRY
        self._away_since: float | None = None
        self._failures = 0
        self._soon = asyncio.Event()

    def hurry(self) -> None:
        """Fetch now, instead of when it is time."""
        self._soon.set()

    async def run(self) -> None:
        """Fetch and wait, until cancelled."""
        async with httpx.AsyncClient(verify=self._trust, trust_env=False, follow_redirects=False) as client:
            while True:
                self._soon.clear()
                seconds = await self._attempt(client)
                try:
                    async with asyncio.timeout(seconds * (1 - _JITTER * secrets.randbelow(1000) / 1000)):
                        await self._soon.wait()
                except TimeoutError:
                    pass

    async def _attempt(self, client: httpx.AsyncClient) -> float:
        """Fetch once. Returns after how many seconds to fetch again."""
        try:
            fetched = await fetch_directory(client, self._url)
            is_new = self._ring.take(fetched.directory)
        except DirectoryError as error:
            return self._failed(error.fault)
        except ValueError:
            return self._failed(DirectoryFault.NO_KEYS)
        except Exception as error:  # noqa: BLE001 - a fault here must not end the relay, nor all refreshing
            _log.error("issuer_failed", setting=self._ring.setting, exception_type=type(error).__name__)
            return self._failed(DirectoryFault.UNREACHABLE)
        self._metrics.count(Metric.DIRECTORIES_FETCHED)
        self._recovered()
        if is_new:
            _log.info("issuer_keys_changed", setting=self._ring.setting, count=len(self._ring))
        return self._lifetime(fetched)

    def _lifetime(self, fetched: FetchedDirectory) -> float:
        """How long a directory is used: as its issuer says, within our bounds."""
        if fetched.max_age is None:
            return self._longest
        return min(self._longest, max(fetched.max_age, _SOONEST))

    def _failed(self, fault: DirectoryFault) -> float:
        self._metrics.count(Metric.DIRECTORIES_FAILED)
        self._failures += 1
        if self._away_since is None:
            self._away_since = asyncio.get_running_loop().time()
            _log.warning("issuer_away", setting=self._ring.setting, reason=fault.value, count=len(self._ring))
        seconds, self._retry = self._retry, min(2 * self._retry, _RETRY_AT_MOST)
        return min(seconds, self._longest)

    def _recovered(self) -> None:
        self._retry = _RETRY
        if self._away_since is not None:
            seconds = round(asyncio.get_running_loop().time() - self._away_since, 3)
            _log.info("issuer_back", setting=self._ring.setting, seconds=seconds, count=self._failures)
            self._away_since = None
            self._failures = 0
