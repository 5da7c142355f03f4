"""How a connection spends tokens: as few as the relay lets it, and none twice where that would not be admitted.

What a token admits is the relay's business: one tunnel, some, or all of the connection. A client finds out:

1. The first tunnel is asked for without a token. The 407 says which tokens are taken.
2. The token that was admitted goes with the next tunnels too. A relay whose tokens admit a connection, or several
   tunnels, admits them; no token is spent.
3. When a token is refused that admitted one tunnel only, the relay takes one for each. From then on each tunnel of
   this connection brings a fresh one along, for the challenges that were last seen.

A relay that cannot say now whether it admits (503), or not so many (429), may not have counted the token: it goes
with the next tunnel, before a fresh one is taken. If it was counted after all, that tunnel is asked for once more.

A tunnel asks three times at most and spends two tokens at most. Another connection begins anew, with another token:
the relay is not told that it is the same client.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from masque.head import Fields
from masque.privacypass import encode_credentials
from relay.client.failure import ClientError
from relay.client.tokens import TokenOffer, TokenSource, read_offers
from relay.exchange import Exchange

__all__ = ["Attempt", "Spender"]

Attempt = Callable[[Fields], Awaitable[Exchange]]
"Asks for the tunnel with these field lines; raises ClientError when it is refused."


_NOT_NOW = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)
"Refusals after which a token may still be good: later, or for another tunnel."


class _Held:
    """A token that was shown to the relay."""

    def __init__(self, token: bytes) -> None:
        self.fields: Fields = ((b"proxy-authorization", encode_credentials(token)),)
        self.asked = 0
        "Tunnels that were asked for with it and not refused, or not yet."


class Spender:
    """One connection's tokens."""

    def __init__(self, source: TokenSource, origin: str) -> None:
        """Take nothing yet.

        Args:
            source: where tokens come from.
            origin: the relay's name, with its port when it is not 443.
        """
        self._source = source
        self._origin = origin
        self._held: _Held | None = None
        self._is_per_tunnel = False
        self._spares: deque[_Held] = deque()
        "Tokens that were shown, and may not have been spent; as many as tunnels were asked for at the same time."
        self._offers: list[TokenOffer] = []
        self._turn = asyncio.Lock()

    async def open(self, attempt: Attempt) -> Exchange:
        """Open a tunnel, with a token where the relay wants one.

        Args:
            attempt: asks for the tunnel; it is called up to three times.

        Returns:
            The tunnel's exchange.

        Raises:
            ClientError: the relay refused for another reason, or even with a fresh token, or there is none.
        """
        return await (self._open_with_own(attempt) if self._is_per_tunnel else self._open_with_shared(attempt))

    async def _open_with_shared(self, attempt: Attempt) -> Exchange:
        """Open a tunnel with the token that other tunnels have, if any; find out whether that is how it goes."""
        held = self._held
        answer = await _try(attempt, held)
        if isinstance(answer, Exchange):
            return answer
        if self._is_per_tunnel:
            return await self._spend(attempt, answer)
        async with self._turn:  # who waits here may find that a token was admitted meanwhile
            if self._held is not held and not self._is_per_tunnel:
                held = self._held
                answer = await _try(attempt, held)
                if isinstance(answer, Exchange):
                    return answer
            if held is not None and held.asked == 1:
                self._is_per_tunnel = True
            if not self._is_per_tunnel:
                return await self._spend(attempt, answer)
        return await self._spend(attempt, answer)

    async def _open_with_own(self, attempt: Attempt) -> Exchange:
        """Open a tunnel with a token of its own: one that is left over, or a fresh one."""
        held: _Held | None
        if self._spares:
            held = self._spares.popleft()
        else:
            token = await self._source.take(self._offers)
            held = None if token is None else _Held(token)
        try:
            answer = await _try(attempt, held)
        except ClientError as error:
            if held is not None:
                self._keep(held, error)
            raise
        return answer if isinstance(answer, Exchange) else await self._spend(attempt, answer)

    def _keep(self, held: _Held, error: ClientError) -> None:
        """Keep a token whose tunnel was refused for another reason, for the tunnels that it may be good for."""
        if error.status is None:
            return  # nobody knows what became of it
        if not self._is_per_tunnel:
            self._held = held
        elif error.status in _NOT_NOW:
            self._spares.append(held)

    async def _spend(self, attempt: Attempt, refusal: ClientError) -> Exchange:
        """Answer a 407 with a token that nobody has seen."""
        offers = read_offers(refusal.challenges, self._origin)
        if not offers:
            raise refusal
        self._offers = offers
        token = await self._source.take(offers)
        if token is None:
            asked = sorted({f"{offer.challenge.issuer_name} (type {offer.token_type.value})" for offer in offers})
            reason = f"the relay wants a token of {', '.join(asked)} for its challenge, and there is none left"
            raise ClientError(reason, status=refusal.status, proxy_status=refusal.proxy_status)
        held = _Held(token)
        try:
            answer = await _try(attempt, held)
        except ClientError as error:
            self._keep(held, error)
            raise
        if not isinstance(answer, Exchange):
            reason = "the relay wants another token than the one that was made for its challenge"
            raise ClientError(
                reason, status=answer.status, proxy_status=answer.proxy_status, challenges=answer.challenges
            )
        self._held = held
        return answer


async def _try(attempt: Attempt, held: _Held | None) -> Exchange | ClientError:
    """Ask once. Returns the tunnel, or the refusal when it is for want of a token."""
    if held is not None:
        held.asked += 1
    try:
        return await attempt(() if held is None else held.fields)
    except ClientError as error:
        is_unwanted = error.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
        if held is not None and (is_unwanted or error.status in _NOT_NOW):
            held.asked -= 1
        if not is_unwanted:
            raise
        return error
