"""The interface of every store of spent tokens, and what it says when it cannot be asked."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Protocol

__all__ = [
    "GRACE",
    "MAX_LIMIT",
    "TOKEN_ID_SIZE",
    "AwayReason",
    "SpentStore",
    "StoreAway",
    "StoreFull",
    "check_spend",
]

TOKEN_ID_SIZE = 32
"Bytes of a token's id: a SHA-256."
MAX_LIMIT = 2**31 - 1
"The most uses of one token that a store counts."
GRACE = 3600.0
"Seconds that an entry outlives its token: wall clocks of a fleet differ, and one clock may be set back."


class AwayReason(StrEnum):
    """Why a store cannot be asked now."""

    BUSY = "busy"
    "More spends wait than may."
    CLOSED = "closed"
    "It was closed."
    CORRUPT = "corrupt"
    "What is there is not a store of spent tokens, or is damaged."
    DISK_FULL = "disk_full"
    "The disk is full."
    EVICTS = "evicts"
    "The server is set to forget entries when its memory is full (`maxmemory-policy`)."
    FAILED = "failed"
    "Anything else; the log has the exception's type."
    FULL = "full"
    "It holds as many live entries as it may."
    LOCKED = "locked"
    "Another process holds the file for too long."
    MISSING = "missing"
    "The file is gone or was replaced, or its folder does not exist."
    NOT_REPLICATED = "not_replicated"
    "Too few replicas confirmed the spend in time."
    READ_ONLY = "read_only"
    "It can be read but not written."
    REFUSED = "refused"
    "The server wants other credentials or grants too little."
    TIMEOUT = "timeout"
    "No answer came in time."
    UNREACHABLE = "unreachable"
    "The server cannot be reached."
    UNTRUSTED = "untrusted"
    "The server's certificate is not valid, or TLS failed otherwise."
    VERSION = "version"
    "The file was made by another version of the relay."


class StoreAway(Exception):
    """The store cannot be asked now, so the token must not be admitted. Its text is the reason's name only."""

    def __init__(self, reason: AwayReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class StoreFull(StoreAway):
    """The store holds as many live entries as it may, and forgets none of them."""

    def __init__(self) -> None:
        super().__init__(AwayReason.FULL)


class SpentStore(Protocol):
    """Counts the uses of tokens. A store belongs to one event loop, the first that uses it."""

    async def probe(self) -> None:
        """Ask the store whether it can record a spend now, without one. For a start and for health checks.

        Raises:
            StoreAway: it cannot.
        """
        ...

    async def is_spent(self, token_id: bytes, limit: int) -> bool:
        """Say whether a token is known to be used up. Cheap: to be asked before a signature is verified.

        It never waits. True is final. False is a hint: only `spend` decides.

        Args:
            token_id: `TOKEN_ID_SIZE` bytes.
            limit: how often the token may be used.

        Raises:
            StoreAway: the token is not known to be used up, and `spend` would fail now.
        """
        ...

    async def spend(self, token_id: bytes, limit: int, expires: float) -> bool:
        """Record one more use, if fewer than `limit` are recorded.

        Over all connections, workers, processes and restarts, at most `limit` callers ever get True for a token;
        exactly `limit` do when so many ask and none is interrupted. A caller that is cancelled or that gets
        StoreAway may have used the token up, never the other way round.

        Args:
            token_id: `TOKEN_ID_SIZE` bytes.
            limit: how often the token may be used, from 1 to `MAX_LIMIT`.
            expires: when the token's key is dead, in seconds of the store's wall clock. The entry is kept until
                the latest time that came with a use, and `GRACE` seconds longer. What is expired already is refused,
                so that a forgotten token stays refused. A key whose end can still move needs `math.inf`, which is
                never: what was recorded is not prolonged later.

        Returns:
            True when this caller may be admitted.

        Raises:
            StoreAway: nobody knows; do not admit.
            ValueError: an argument is out of its range: a fault of the caller.
        """
        ...

    async def close(self) -> None:
        """Answer who waits, then let go of everything. After this the store is away. May be called twice."""
        ...


def check_spend(token_id: bytes, limit: int, expires: float = math.inf) -> None:
    """Refuse arguments that no store can count with.

    Raises:
        ValueError: the id has the wrong size, the limit is out of range, or the time is no number. The text does not
            hold the id.
    """
    if len(token_id) != TOKEN_ID_SIZE:
        raise ValueError(f"a token's id has {TOKEN_ID_SIZE} bytes")
    if not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"a token's limit is from 1 to {MAX_LIMIT}")
    if math.isnan(expires):
        raise ValueError("the time of expiry is not a number")
