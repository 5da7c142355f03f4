"""A ledger in a Redis or Valkey server: for a fleet of relays on many hosts.

One script counts a whole batch, and the server runs scripts one at a time, so no two relays are ever given the same
use. How exact that is over a failure depends on the server:

- **Restart.** Without `appendonly yes` it forgets what came after its last snapshot, and those tokens are good
  again. `appendfsync always` loses nothing, `everysec` up to two seconds of spends.
- **Failover.** Replication is asynchronous: a primary that dies may have answered for uses that its replica never
  saw, and the replica, once promoted, lets those tokens in again. The same happens when a primary that is cut off
  goes on answering while a replica has been promoted. `replicas` makes each batch wait (WAIT) until that many have
  it, and fails closed when they do not. That leaves one gap: a replica is promoted that was not among those who
  confirmed, or that restarted empty. The first is closed by asking for as many as may be promoted.
- **Eviction.** A server with `maxmemory` and any policy but `noeviction` forgets live entries. It is refused, as is a
  replica. Where INFO is forbidden to the relay's user, the operator must see to both.

Redis Cluster is not supported: one script has keys of many slots. The client library is used without its retries, in
the store's own thread: a repeated batch would count twice, and its connecting, TLS and parsing would otherwise run on
the packet loop.
"""

from __future__ import annotations

import contextlib
import math
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)
from redis.retry import Retry

from relay.spent.ledger import LedgerError, Spend
from relay.spent.store import AwayReason

__all__ = ["RedisLedger", "RedisServer"]

_SCRIPT = """
local answers = {}
for i, key in ipairs(KEYS) do
  local limit, keep = tonumber(ARGV[2 * i - 1]), ARGV[2 * i]
  local uses = tonumber(redis.call('GET', key) or 0)
  answers[i] = uses < limit and redis.call('INCR', key) or 0
  if answers[i] > 0 and redis.call('PTTL', key) < tonumber(keep) then
    redis.call('PEXPIRE', key, keep)
  end
end
return answers
"""
"Counts each key up if it is below its limit, and never shortens its life. PTTL is -1 for a key without an end."
_LONGEST = 2**53
"The longest life of a key, in milliseconds: what Lua's numbers hold exactly, and longer than any server's."
_EXPLANATIONS: tuple[tuple[type[RedisError], AwayReason], ...] = (
    (AuthenticationError, AwayReason.REFUSED),
    (AuthorizationError, AwayReason.REFUSED),
    (NoPermissionError, AwayReason.REFUSED),
    (ReadOnlyError, AwayReason.READ_ONLY),
    (OutOfMemoryError, AwayReason.FULL),
    (redis.exceptions.TimeoutError, AwayReason.TIMEOUT),
    (redis.exceptions.ConnectionError, AwayReason.UNREACHABLE),
)


@dataclass(frozen=True, slots=True)
class RedisServer:
    """Which server, and how to use it."""

    url: str = field(repr=False)
    "`redis://`, `rediss://` (TLS) or `unix://`, with user and password if needed; no query."
    prefix: str
    "What every key begins with. Relays that share it share their tokens."
    ca_file: Path | None
    "The authorities trusted with `rediss://`; the system's when None."
    replicas: int
    "How many replicas must have a batch before it is answered."
    patience: float
    "Seconds for connecting, and for each answer."

    def client(self) -> redis.Redis:
        """Make a client; it connects when it is first used.

        Raises:
            ValueError: the URL cannot be used. The text does not hold it.
        """
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in {"redis", "rediss", "unix"} and not parts.query and not parts.fragment
            if not usable:
                raise ValueError
            trust: dict[str, Any] = {"ssl_ca_certs": str(self.ca_file)} if self._has_own_authorities() else {}
            return redis.Redis.from_url(
                self.url,
                max_connections=1,
                socket_connect_timeout=self.patience,
                socket_timeout=self.patience,
                socket_keepalive=True,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                **trust,
            )
        except ValueError:
            raise ValueError(
                "the URL of the Redis server is redis://, rediss:// or unix://, without a query"
            ) from None

    def _has_own_authorities(self) -> bool:
        return self.ca_file is not None and self.url.startswith("rediss:")


class RedisLedger:
    """A connection to the server that counts."""

    def __init__(self, server: RedisServer) -> None:
        """Connect, and look at what would make the server forget.

        Raises:
            LedgerError: it cannot be used now.
        """
        self._server = server
        self._prefix = server.prefix.encode()
        self._client = server.client()
        try:
            with _explained():
                self._inspect()
        except BaseException:
            self.close()
            raise

    def record(self, spends: Sequence[Spend], now: float) -> list[int]:
        """Record uses by one run of the script; see `Ledger`."""
        keys = [self._prefix + spend.token_id for spend in spends]
        bounds = [bound for spend in spends for bound in (spend.limit, _milliseconds(spend.keep_until - now))]
        with _explained():
            pipe = self._client.pipeline(transaction=False)
            pipe.eval(_SCRIPT, len(keys), *keys, *bounds)
            if self._server.replicas:
                pipe.wait(self._server.replicas, max(1, int(self._server.patience * 500)))
            results = pipe.execute(raise_on_error=False)  # with True the library would quote the ids
            for result in results:
                if isinstance(result, RedisError):
                    raise result
        if self._server.replicas and results[1] < self._server.replicas:
            raise LedgerError(AwayReason.NOT_REPLICATED)
        return [int(use) for use in results[0]]

    def close(self) -> None:
        """Close the connection; see `Ledger`."""
        with contextlib.suppress(RedisError, OSError):
            self._client.close()

    def _inspect(self) -> None:
        """Refuse a replica, and a server that evicts. A user who may not ask is believed."""
        try:
            about: dict[str, Any] = {**self._client.info("memory"), **self._client.info("replication")}
        except NoPermissionError:
            return
        if about.get("role") == "slave":
            raise LedgerError(AwayReason.READ_ONLY)
        if about.get("maxmemory") and about.get("maxmemory_policy") != "noeviction":
            raise LedgerError(AwayReason.EVICTS)


def _milliseconds(seconds: float) -> int:
    """Turn a life into what PEXPIRE takes."""
    return _LONGEST if seconds * 1000 >= _LONGEST else max(1, math.ceil(seconds * 1000))


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn the library's errors into reasons."""
    try:
        yield
    except (RedisError, OSError) as exc:
        raise LedgerError(_reason(exc), exc) from exc


def _reason(exc: RedisError | OSError) -> AwayReason:
    if isinstance(exc.__context__, ssl.SSLError) or isinstance(exc, ssl.SSLError):
        return AwayReason.UNTRUSTED
    for kind, reason in _EXPLANATIONS:
        if isinstance(exc, kind):
            return reason
    return AwayReason.FAILED if isinstance(exc, RedisError) else AwayReason.UNREACHABLE
