"""An issuer on the network: its directory is read, and tokens are asked of it (RFC 9578 §4, §5, §6).

A challenge may name a key. It is used only when the issuer's own directory lists it, so that an origin cannot mark
a client with a key that nobody else gets. What the issuer learns is the client's
address, the time, and how many tokens it asked for; who wants to hide the time fetches ahead.

A directory may name any URL for requests. It is used only on the directory's own host and port: the client's key for
the issuer goes with each request, and nobody else shall get it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from urllib.parse import urljoin, urlsplit

from masque.errors import LimitExceeded, LocalMisuse, Malformed
from masque.privacypass import (
    DIRECTORY_MEDIA_TYPE,
    DIRECTORY_PATH,
    ENTROPY_SIZE,
    MAX_DIRECTORY_SIZE,
    NONCE_SIZE,
    REQUEST_MEDIA_TYPE,
    RESPONSE_MEDIA_TYPE,
    SALT_SIZE,
    BlindRsaPublicKey,
    ChallengeOffer,
    IssuerDirectory,
    TokenKey,
    TokenType,
    begin,
    draw_blinds,
    encode_token,
    find_token_type,
    parse_directory,
    response_size,
)
from relay.issuance.failure import IssuanceError
from relay.issuance.http import IssuerHttp

__all__ = ["Issuer", "directory_url", "issuer_authority"]

_PARALLEL = 4
_SHORTEST_AGE, _USUAL_AGE, _LONGEST_AGE = 30.0, 600.0, 3600.0


class Issuer:
    """One issuer, its directory kept for as long as it says, within half a minute and an hour."""

    def __init__(self, http: IssuerHttp, url: str, clock: Callable[[], float]) -> None:
        """Ask nothing yet.

        Args:
            http: connections that reach it.
            url: `https://host[:port]`, or the whole URL of its directory.
            clock: the wall clock, seconds since 1970: keys may be for later.

        Raises:
            IssuanceError: this is no such URL.
        """
        self._http = http
        self._url = directory_url(url)
        self._clock = clock
        self._directory: IssuerDirectory | None = None
        self._fresh_until = 0.0

    async def directory(self, *, anew: bool = False) -> IssuerDirectory:
        """Read the directory.

        Args:
            anew: ask again, whatever was kept.

        Raises:
            IssuanceError: it cannot be had, or is none.
        """
        now = asyncio.get_running_loop().time()
        if self._directory is None or anew or now >= self._fresh_until:
            content = await self._http.get(self._url, DIRECTORY_MEDIA_TYPE, MAX_DIRECTORY_SIZE)
            try:
                self._directory = parse_directory(content.data)
            except (Malformed, LimitExceeded) as error:
                raise IssuanceError(f"the issuer's directory is {error.detail}") from None
            age = _USUAL_AGE if content.max_age is None else content.max_age
            self._fresh_until = now + min(max(age, _SHORTEST_AGE), _LONGEST_AGE)
        return self._directory

    async def choose_key(self, token_type: TokenType, token_key: bytes | None) -> TokenKey:
        """Choose the key to ask with.

        Args:
            token_type: of the challenge.
            token_key: the key that the challenge names; None when it names none.

        Raises:
            IssuanceError: the issuer does not list that key, or none of this type whose time has come.
        """
        for anew in (False, True):
            key = self._find_key(await self.directory(anew=anew), token_type, token_key)
            if key is not None:
                return key
        if token_key is None:
            raise IssuanceError(f"the issuer has no key of type {token_type.value} that may be used now")
        raise IssuanceError("the challenge names a key that the issuer's directory does not list")

    async def fetch(self, offer: ChallengeOffer, count: int = 1) -> list[bytes]:
        """Get tokens for a challenge.

        Args:
            offer: the challenge, and the key that it names, as it came.
            count: how many.

        Returns:
            The tokens, each good for this challenge alone: at least one, and fewer than were asked for when
            something failed meanwhile. Nothing more is asked for then.

        Raises:
            IssuanceError: the challenge is of a type that we do not know, the directory sends requests to another
                host, or the issuer gave none.
        """
        try:
            token_type = find_token_type(offer.challenge)
        except Malformed:
            token_type = None
        if token_type is None:
            raise IssuanceError("the challenge is of a token type that we do not know")
        key = await self.choose_key(token_type, offer.token_key)
        url = self._request_url(await self.directory())
        failures: list[IssuanceError] = []
        tokens: list[bytes] = []
        turns = iter(range(count))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(_PARALLEL, count)):
                tasks.create_task(self._work(turns, url, offer.challenge, key, tokens, failures))
        if failures and not tokens:
            raise failures[0]
        return tokens

    def _request_url(self, directory: IssuerDirectory) -> str:
        """Say where tokens are asked for: a whole URL, or one relative to the directory's (RFC 9578 §4)."""
        url = urljoin(self._url, directory.request_uri)
        if not _is_https(url):
            raise IssuanceError("the issuer's directory names a URL for requests that is not https")
        if issuer_authority(url) != issuer_authority(self._url):
            raise IssuanceError("the issuer's directory names a URL for requests on another host or port")
        return url

    async def _work(
        self,
        turns: Iterator[int],
        url: str,
        challenge: bytes,
        key: TokenKey,
        tokens: list[bytes],
        failures: list[IssuanceError],
    ) -> None:
        """Get one token after the other, until there are enough or something failed."""
        for _ in turns:
            if failures:
                return
            try:
                tokens.append(await self._fetch_one(url, challenge, key))
            except IssuanceError as error:
                failures.append(error)

    async def _fetch_one(self, url: str, challenge: bytes, key: TokenKey) -> bytes:
        """Blind, ask, and finish (RFC 9578 §5, §6)."""
        blinds = None
        if isinstance(key, BlindRsaPublicKey):
            blinds = draw_blinds(key, secrets.token_bytes(ENTROPY_SIZE + SALT_SIZE))
        pending = begin(challenge, key, secrets.token_bytes(NONCE_SIZE), blinds)
        content = (REQUEST_MEDIA_TYPE, pending.request)
        answer = await self._http.post(url, content, RESPONSE_MEDIA_TYPE, response_size(pending.token_type))
        try:
            return encode_token(pending.finish(answer.data))
        except (Malformed, LocalMisuse) as error:
            raise IssuanceError(f"the issuer answered with {error.detail}") from None

    def _find_key(self, directory: IssuerDirectory, token_type: TokenType, wanted: bytes | None) -> TokenKey | None:
        """Look a key up, by its encoding or by its turn."""
        try:
            if wanted is None:
                return directory.choose_key(token_type, self._clock())
            return next((key for key in directory.load_keys(token_type) if key.encoded == wanted), None)
        except Malformed as error:
            raise IssuanceError(f"the issuer's directory has {error.detail}") from None


def directory_url(url: str) -> str:
    """Say where an issuer's directory is (RFC 9578 §4).

    Args:
        url: `https://host[:port]`, or the whole URL of the directory.

    Raises:
        IssuanceError: it is neither.
    """
    if not _is_https(url):
        raise IssuanceError("the issuer's URL must be https://host[:port], or that of its directory")
    return url if urlsplit(url).path not in ("", "/") else urljoin(url, DIRECTORY_PATH)


def issuer_authority(url: str) -> str:
    """Return the name that challenges give to an issuer at this URL: its host, with a port when it is not 443.

    Args:
        url: as in `directory_url`.

    Raises:
        IssuanceError: this is no such URL.
    """
    parts = urlsplit(directory_url(url))
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return host if parts.port in (None, 443) else f"{host}:{parts.port}"


def _is_https(url: str) -> bool:
    """Tell whether a text is a URL that we may ask: https, a host, a port that is one, no user."""
    try:
        parts = urlsplit(url)
        is_plain = parts.port != 0 and parts.username is None
    except ValueError:
        return False
    return is_plain and parts.scheme == "https" and bool(parts.hostname) and url.isascii() and url.isprintable()
