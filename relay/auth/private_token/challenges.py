"""Which challenges a 407 carries, and which tokens are good: a table of today's keys and contexts (RFC 9577 §2.1.1).

One challenge for each issuer and type. The table is made anew when a key or the window has changed, and looked up
otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from masque.privacypass import (
    ChallengeOffer,
    TokenChallenge,
    TokenType,
    challenge_digest,
    encode_challenges,
    encode_token_challenge,
)
from relay.auth.private_token.contexts import Contexts
from relay.auth.private_token.key_file import OriginKey
from relay.auth.private_token.key_ring import KeyRing

__all__ = ["Challenges", "Issued", "Table"]


@dataclass(frozen=True, slots=True)
class Issued:
    """What an accepted challenge asks for."""

    issuer: int
    "The issuer's place in the settings."
    expires: float
    "Until when its tokens are taken."
    has_keys: bool
    "False while no key of the issuer's for this type is known."


@dataclass(frozen=True, slots=True)
class Table:
    """What is accepted, until the next change."""

    keys: Mapping[bytes, Mapping[bytes, OriginKey]] = field(repr=False)
    "`AcceptedChallenges`: for each challenge's digest the keys by id."
    issued: Mapping[bytes, Issued] = field(repr=False)
    "For each challenge's digest what it asks for."
    offered: Sequence[tuple[KeyRing, TokenType, bytes, float]] = field(repr=False)
    "The challenges of this window, in order: whose, for which type, encoded, and until when its tokens are taken."
    version: tuple[int, ...]
    "The versions of all key rings."
    until: float
    "When another window begins."


class Challenges:
    """The challenges of one relay."""

    def __init__(
        self, rings: Sequence[KeyRing], origins: tuple[str, ...], contexts: Contexts, clock: Callable[[], float]
    ) -> None:
        """Make the first table.

        Args:
            rings: the issuers' keys.
            origins: the relay's names, for origin_info.
            contexts: redemption contexts.
            clock: the wall clock.
        """
        self._rings = rings
        self._origins = origins
        self._contexts = contexts
        self._clock = clock
        self._table = self._make(clock())

    def table(self) -> Table:
        """Return what is accepted now."""
        now, table = self._clock(), self._table
        if table.until != self._contexts.until(now) or table.version != tuple(ring.version for ring in self._rings):
            table = self._table = self._make(now)
        return table

    def offers(self) -> tuple[bytes, ...]:
        """Return the values of `Proxy-Authenticate`, one for each issuer and type (RFC 9577 §2.1.2)."""
        now = self._clock()
        return tuple(
            encode_challenges(
                [
                    ChallengeOffer(
                        challenge,
                        ring.preferred(token_type, now),
                        None if expires == math.inf else max(0, int(expires - now)),
                    )
                ]
            )
            for ring, token_type, challenge, expires in self.table().offered
        )

    def _make(self, now: float) -> Table:
        keys: dict[bytes, Mapping[bytes, OriginKey]] = {}
        issued: dict[bytes, Issued] = {}
        offered = []
        contexts = self._contexts.current(now)
        for ring in self._rings:
            for token_type in ring.types:
                live = ring.live(token_type)
                for context in contexts:
                    asked = TokenChallenge(token_type, ring.settings.name, context.value, self._origins)
                    challenge = encode_token_challenge(asked)
                    digest = challenge_digest(challenge)
                    keys[digest] = live
                    issued[digest] = Issued(ring.number, context.expires, bool(live))
                    if context is contexts[0]:
                        offered.append((ring, token_type, challenge, context.expires))
        version = tuple(ring.version for ring in self._rings)
        return Table(keys, issued, offered, version, self._contexts.until(now))
