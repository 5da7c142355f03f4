"""HTTPS to an issuer, within bounds: one host, no redirects, so many bytes, so many seconds (RFC 9578 §4, §5, §6).

`httpx` is imported here only, and not before the first connection: a relay that fetches nothing has no use for it.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from relay.issuance.failure import IssuanceError

if TYPE_CHECKING:
    import httpx

__all__ = ["Content", "IssuerHttp", "open_http"]

_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=(\d{1,9})(?:$|[\s,;])", re.IGNORECASE)
_CONNECTIONS = 8
_REASONS = {
    401: "it wants a key that is known to it",
    403: "it gives us no tokens",
    404: "it has nothing at that path",
    415: "it takes another media type",
    422: "the request is for a key or type that it does not have",
    429: "it gives no more tokens for now",
    503: "it is busy or away",
}


@dataclass(frozen=True, slots=True)
class Content:
    """A good answer."""

    data: bytes = field(repr=False)
    "All of it."
    max_age: float | None = None
    "For how many seconds it may be kept; None when the issuer does not say."


class IssuerHttp:
    """Connections to an issuer; `open_http` makes it."""

    def __init__(self, client: httpx.AsyncClient, timeout: float) -> None:
        """Take a client over; `timeout` bounds each request as a whole."""
        self._client = client
        self._timeout = timeout

    async def get(self, url: str, media_type: bytes, limit: int) -> Content:
        """Fetch a document.

        Args:
            url: with https.
            media_type: that the answer must have.
            limit: the most bytes that are read.

        Raises:
            IssuanceError: another status than 200, another media type, too many bytes, or no answer in time.
        """
        return await self._ask("GET", url, media_type, limit)

    async def post(self, url: str, content: tuple[bytes, bytes], media_type: bytes, limit: int) -> Content:
        """Post content, given as media type and bytes; the rest is as in `get`."""
        return await self._ask("POST", url, media_type, limit, content)

    async def _ask(
        self, method: str, url: str, media_type: bytes, limit: int, content: tuple[bytes, bytes] | None = None
    ) -> Content:
        import httpx

        headers = {"accept": media_type.decode("ascii"), "accept-encoding": "identity"}
        if content is not None:
            headers["content-type"] = content[0].decode("ascii")
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._client.stream(method, url, headers=headers, content=content and content[1]) as response,
            ):
                return await _read(response, media_type.decode("ascii"), limit)
        except TimeoutError:
            raise IssuanceError(f"the issuer did not answer in {self._timeout:g} seconds") from None
        except httpx.ConnectError as error:
            what = "its certificate is not trusted here" if "CERTIFICATE_VERIFY" in str(error) else "no connection"
            raise IssuanceError(f"the issuer cannot be reached: {what}") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise IssuanceError(f"the issuer cannot be asked: {type(error).__name__}") from None


async def _read(response: httpx.Response, media_type: str, limit: int) -> Content:
    """Check an answer and read it. Raises IssuanceError."""
    if response.status_code != 200:
        reason = _REASONS.get(response.status_code)
        said = f"{response.status_code}: {reason}" if reason else str(response.status_code)
        raise IssuanceError(f"the issuer answered {said}")
    found = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if found != media_type or response.headers.get("content-encoding", "identity") != "identity":
        raise IssuanceError("the issuer answered with another media type or encoding than it was asked for")
    data = b""
    async for piece in response.aiter_raw():
        data += piece
        if len(data) > limit:
            raise IssuanceError("the issuer answered with more bytes than are read")
    age = _MAX_AGE.search(response.headers.get("cache-control", ""))
    return Content(data, float(age[1]) if age else None)


@asynccontextmanager
async def open_http(
    ca_file: Path | None = None, authorization: str | None = None, timeout: float = 10.0
) -> AsyncIterator[IssuerHttp]:
    """Make connections to issuers for the time of the context; nothing is sent yet.

    Args:
        ca_file: PEM file with the authority to trust; None trusts the system's.
        authorization: an Authorization value for every request.
        timeout: seconds for each request as a whole.

    Raises:
        IssuanceError: the file cannot be read or holds no certificate.
    """
    import httpx

    try:
        tls = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError):
        raise IssuanceError(
            f"the issuer's authority: {ca_file} cannot be read, or holds no PEM certificate"
        ) from None
    headers = {"user-agent": "masque-relay"} | ({} if authorization is None else {"authorization": authorization})
    limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
    async with httpx.AsyncClient(
        verify=tls, headers=headers, timeout=timeout, limits=limits, follow_redirects=False, trust_env=False
    ) as client:
        yield IssuerHttp(client, timeout)
