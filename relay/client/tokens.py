"""Where a client's tokens come from: a file, an issuer, or one after the other (RFC 9577 §2.1.3).

A source is given what the relay asks for and hands out a token that answers one of it, and that nobody else gets.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio.to_thread

from masque.errors import LimitExceeded, Malformed
from masque.privacypass import (
    ChallengeOffer,
    TokenChallenge,
    TokenType,
    challenge_digest,
    parse_challenges,
    parse_token_challenge,
)
from relay.client.failure import ClientError
from relay.client.token_file import TokenFile
from relay.issuance import IssuanceError, Issuer

__all__ = ["FileTokens", "IssuedTokens", "TokenOffer", "TokenSource", "TokenSources", "read_offers", "run_stocked"]


@dataclass(frozen=True, slots=True)
class TokenOffer:
    """A challenge that we may answer."""

    offer: ChallengeOffer
    "As it came."
    challenge: TokenChallenge
    "What it says."
    token_type: TokenType
    "A type that we know."
    digest: bytes
    "What a token for it carries."


class TokenSource(Protocol):
    """What has tokens."""

    async def take(self, offers: Sequence[TokenOffer]) -> bytes | None:
        """Hand out a token, once.

        Args:
            offers: what it may answer, the most preferred first.

        Returns:
            The token, or None when this source has none for any of them.

        Raises:
            ClientError: there might be one, but it cannot be had.
        """


def read_offers(values: Sequence[bytes], origin: str | None) -> list[TokenOffer]:
    """Find the challenges that a client may answer (RFC 9577 §2.1.3).

    Args:
        values: the field lines of `Proxy-Authenticate`.
        origin: the name under which we know who sent them: a host, with a port when it is not 443. None when that
            is not known, and does not matter.

    Returns:
        The challenges of types that we know, for this origin or for any; none when the field is malformed.
    """
    try:
        offers = parse_challenges(values)
    except (Malformed, LimitExceeded):
        return []
    found = []
    for offer in offers:
        try:
            challenge = parse_token_challenge(offer.challenge)
        except Malformed:
            continue
        token_type = challenge.known_type
        if token_type is not None and (origin is None or challenge.admits(origin)):
            found.append(TokenOffer(offer, challenge, token_type, challenge_digest(offer.challenge)))
    return found


class FileTokens:
    """Tokens of a file, which several processes may share."""

    def __init__(self, path: Path) -> None:
        """Name the file; it need not exist yet."""
        self._file = TokenFile(path)

    async def take(self, offers: Sequence[TokenOffer]) -> bytes | None:
        """Take a token out of the file, in a thread: the disk is waited for. See `TokenSource`."""
        take = functools.partial(self._file.take, [offer.digest for offer in offers])
        return await anyio.to_thread.run_sync(take)


class IssuedTokens:
    """Tokens of an issuer, fetched for exactly the challenge that was sent.

    A challenge that comes again is worth a stock: `keep_stock` fetches ahead, so that most tunnels need not wait for
    the issuer, and the issuer cannot tell from the time which tunnel a token is for. The stock is of one key: when
    the challenge names another, the issuer has changed it, and tokens of the old one may not be taken any more.
    """

    def __init__(self, issuer: Issuer, name: str, stock: int = 4) -> None:
        """Ask nothing yet.

        Args:
            issuer: who is asked.
            name: the issuer's name in challenges; those of others are not answered.
            stock: how many tokens `keep_stock` has ready; 0 fetches none ahead.
        """
        self._issuer = issuer
        self._name = name.lower()
        self._stock = stock
        self._tokens: deque[bytes] = deque()
        self._offer: TokenOffer | None = None
        self._is_wanted = asyncio.Event()

    async def take(self, offers: Sequence[TokenOffer]) -> bytes | None:
        """Take a token out of the stock, or ask for one. See `TokenSource`."""
        ours = [offer for offer in offers if offer.challenge.issuer_name.lower() == self._name]
        if not ours:
            return None
        wanted = next((offer for offer in ours if self._is_current(offer)), None)
        if wanted is not None:
            self._is_wanted.set()  # it came a second time, so it may come a third
            if self._tokens:
                return self._tokens.popleft()
        else:
            wanted = self._follow(ours)
        try:
            return (await self._issuer.fetch(wanted.offer))[0]
        except IssuanceError as error:
            raise ClientError(str(error)) from None

    async def keep_stock(self) -> None:
        """Fetch ahead, until cancelled. What fails is left to the next token that is wanted."""
        while True:
            await self._is_wanted.wait()
            self._is_wanted.clear()
            offer, missing = self._offer, self._stock - len(self._tokens)
            if offer is None or missing <= 0:
                continue
            try:
                tokens = await self._issuer.fetch(offer.offer, missing)
            except IssuanceError:
                continue
            if self._offer is offer:  # else they are for another challenge, or of a key that was replaced
                self._tokens.extend(tokens)

    def _is_current(self, offer: TokenOffer) -> bool:
        """Tell whether the stock answers an offer: it is for this challenge, and of the key that this names."""
        current = self._offer
        return (
            current is not None
            and current.digest == offer.digest
            and current.offer.token_key == offer.offer.token_key
        )

    def _follow(self, ours: Sequence[TokenOffer]) -> TokenOffer:
        """Give the stock up for another offer: the same challenge with the key that it names now, or the first."""
        digest = None if self._offer is None else self._offer.digest
        self._offer = next((offer for offer in ours if offer.digest == digest), ours[0])
        self._tokens.clear()
        return self._offer


class TokenSources:
    """Several sources, asked in order: what is in a file costs no round trip."""

    def __init__(self, sources: Sequence[TokenSource]) -> None:
        """Ask them in this order."""
        self._sources = tuple(sources)

    async def take(self, offers: Sequence[TokenOffer]) -> bytes | None:
        """Take the first token that there is. See `TokenSource`."""
        for source in self._sources:
            token = await source.take(offers)
            if token is not None:
                return token
        return None


async def run_stocked(tokens: IssuedTokens | None, work: Callable[[], Awaitable[None]]) -> None:
    """Do some work while an issuer's tokens are kept in stock.

    Args:
        tokens: whose stock; None has none.
        work: what is done.

    Raises:
        ClientError: what the work raised, and not a group of it; so with OSError.
    """
    if tokens is None:
        await work()
        return
    failure: ClientError | OSError | None = None
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(tokens.keep_stock())
        try:
            await work()
        except (ClientError, OSError) as error:
            failure = error
        finally:
            keeping.cancel()
    if failure is not None:
        raise failure
