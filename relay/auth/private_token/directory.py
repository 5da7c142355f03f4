"""Fetches an issuer's directory over HTTPS (RFC 9578 §4), with bounds on what the answer may cost.

The issuer's name is resolved by the system, not by the relay's resolver: it is no client's secret. Nothing of the
environment counts, proxies included.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import httpx

from masque.errors import MasqueError
from masque.privacypass import (
    DIRECTORY_MEDIA_TYPE,
    DIRECTORY_PATH,
    MAX_DIRECTORY_SIZE,
    IssuerDirectory,
    parse_directory,
)

__all__ = ["DirectoryError", "DirectoryFault", "FetchedDirectory", "directory_url", "fetch_directory", "make_trust"]

_PATIENCE = 10.0
"Seconds for all of a fetch."
_REDIRECTS = 3
_MAX_AGE = re.compile(r"max-age=\"?([0-9]{1,10})\"?")


class DirectoryFault(StrEnum):
    """Why there is no directory, as the log has it."""

    UNREACHABLE = "unreachable"
    "The issuer cannot be reached, or does not speak HTTP."
    UNTRUSTED = "untrusted"
    "Its certificate is not valid, or TLS failed otherwise."
    TIMEOUT = "timeout"
    "It did not answer in time."
    STATUS = "status"
    "It answered with another status than 200."
    REDIRECTED = "redirected"
    "It sends us to another host, or from place to place."
    TOO_LONG = "too_long"
    "The document is longer than is read."
    MALFORMED = "malformed"
    "The document is no directory."
    NO_KEYS = "no_keys"
    "It has no key that could be used, or one that is none."


class DirectoryError(Exception):
    """There is no directory now. The text is the fault's name only."""

    def __init__(self, fault: DirectoryFault) -> None:
        super().__init__(fault.value)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class FetchedDirectory:
    """A directory, and how long its issuer wants it used."""

    directory: IssuerDirectory
    "What it says."
    max_age: float | None
    "Seconds, from Cache-Control (RFC 9111 §5.2.2); 0 for no-cache and no-store; None when it says nothing."


def directory_url(text: str) -> str:
    """Return where a directory is: as the URL says, or without a path at the well-known place (RFC 9578 §8.1).

    Raises:
        ValueError: the client that fetches it takes no such URL. The text quotes nothing.
    """
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise ValueError("a URL that cannot be fetched") from None
    return text if url.path not in ("", "/") else str(url.copy_with(path=DIRECTORY_PATH))


def make_trust(ca_file: Path | None) -> ssl.SSLContext:
    """Read the authorities to trust. Slow: not on the loop's thread while it serves.

    Raises:
        OSError: the file cannot be read, or (an `ssl.SSLError`) holds no certificate.
    """
    return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))


async def fetch_directory(client: httpx.AsyncClient, url: str) -> FetchedDirectory:
    """Fetch a directory.

    Args:
        client: with trust, without redirects.
        url: from `directory_url`.

    Raises:
        DirectoryError: there is none now.
    """
    try:
        async with asyncio.timeout(_PATIENCE):
            place = httpx.URL(url)
            for _ in range(_REDIRECTS + 1):
                answer = await _get(client, place)
                if isinstance(answer, FetchedDirectory):
                    return answer
                if (answer.scheme, answer.host, answer.port) != (place.scheme, place.host, place.port):
                    break
                place = answer
    except TimeoutError:
        raise DirectoryError(DirectoryFault.TIMEOUT) from None
    except (httpx.TimeoutException, httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
        raise DirectoryError(_explain(error)) from error
    raise DirectoryError(DirectoryFault.REDIRECTED)


async def _get(client: httpx.AsyncClient, url: httpx.URL) -> FetchedDirectory | httpx.URL:
    """Ask once. Returns the directory, or where it is instead."""
    headers = {"accept": DIRECTORY_MEDIA_TYPE.decode("ascii"), "accept-encoding": "identity"}
    async with client.stream("GET", url, headers=headers) as response:
        if response.has_redirect_location:
            return url.join(response.headers["location"])
        if response.status_code != 200:
            raise DirectoryError(DirectoryFault.STATUS)
        content = b""
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > MAX_DIRECTORY_SIZE:
                raise DirectoryError(DirectoryFault.TOO_LONG)
    try:
        return FetchedDirectory(parse_directory(content), _max_age(response.headers.get("cache-control", "")))
    except MasqueError:
        raise DirectoryError(DirectoryFault.MALFORMED) from None


def _max_age(value: str) -> float | None:
    """Read Cache-Control."""
    words = [word.strip().lower() for word in value[:1024].split(",")]
    if "no-cache" in words or "no-store" in words:
        return 0.0
    found = (_MAX_AGE.fullmatch(word) for word in words)
    return next((float(match[1]) for match in found if match is not None), None)


def _explain(error: Exception) -> DirectoryFault:
    if isinstance(error, httpx.TimeoutException):
        return DirectoryFault.TIMEOUT
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return DirectoryFault.UNTRUSTED
        cause = cause.__cause__ or cause.__context__
    return DirectoryFault.UNREACHABLE
