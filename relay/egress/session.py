"""A client's session as egress sees it: a key that nobody else has, and the sources that follow from it.

The key is drawn when a connection first opens a tunnel and again when its time is over, and never leaves the process.
Rendezvous hashing over it spreads sessions evenly, and moves only those whose source goes. A session stays with a
source it was moved to when its first one comes back: what a target sees changes no more often than it must. Python's
hash of bytes is SipHash, a keyed function made to be unpredictable; the hash of a tuple of numbers is not even.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial

from relay.egress.pools import Pool
from relay.egress.sources import KEY_SIZE, Source
from relay.hooks import ConnectionContext

__all__ = ["EgressSession", "session_of"]


@dataclass(slots=True)
class EgressSession:
    """What one connection's tunnels share."""

    since: float
    "When its key was drawn, on the loop's clock."
    key: bytes = field(default_factory=partial(secrets.token_bytes, KEY_SIZE), repr=False)
    "Ephemeral and secret."
    _chosen: dict[tuple[str, int], tuple[Pool, Source]] = field(default_factory=dict, repr=False)

    def pick(self, pool: Pool, version: int, refused: Collection[Source] = ()) -> Source | None:
        """Choose the session's source in a pool.

        Args:
            pool: where to choose.
            version: IP version.
            refused: sources that will not do for the tunnel at hand. The session's own choice stays.

        Returns:
            A source in service, or None when there is none.
        """
        sources = pool.sources[version]
        its_pool, kept = self._chosen.get((pool.name, version), (None, None))
        if kept is not None and kept.is_up and (its_pool is pool or kept in sources):
            if its_pool is not pool:  # a reload made the pools anew
                self._chosen[pool.name, version] = (pool, kept)
            if kept not in refused:
                return kept
        else:
            kept = None
        key = self.key
        candidates = [source for source in sources if source.is_up and source not in refused]
        best = max(candidates, key=lambda source: hash(key + source.seed), default=None)
        if best is not None and kept is None:
            self._chosen[pool.name, version] = (pool, best)
        return best


def session_of(connection: ConnectionContext, now: float, rotation: float) -> EgressSession:
    """Return a connection's session, a fresh one when the last one's time is over.

    Args:
        connection: the client's.
        now: seconds on the loop's clock.
        rotation: seconds that a key lasts; 0 for as long as the connection.
    """
    session = connection.get(EgressSession)
    if session is None or (rotation and now - session.since >= rotation):
        session = EgressSession(now)
        connection.put(session)
    return session
