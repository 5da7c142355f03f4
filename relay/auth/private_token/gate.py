"""Admission by tokens: an origin of Privacy Pass, as a hook (RFC 9577 §2.2.3).

A token is looked at in the order of what that costs: its form, the challenge that it answers, the key that it names;
whether it is known to be spent; its authenticator; and last the store, which counts it. It is spent when it admits,
before any other phase: what comes of the tunnel does not bring it back, or a refused target could be tried for ever.

What is wrong with a token costs it nothing and is answered by 407 with today's challenges. When nobody can say
whether it is good, the answer is 503: the client may try the same token again, and nobody is admitted.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from functools import partial

from masque.errors import MasqueError
from masque.privacypass import Refusal, Token, TokenType, parse_credentials, read_token, select_key
from relay.auth.credentials import find_credentials
from relay.auth.private_token.challenges import Challenges, Issued
from relay.auth.private_token.checks import CheckQueue, ChecksBusy, ChecksFailed, CheckShare, verify_all
from relay.auth.private_token.connection_pass import Admit, ConnectionPass
from relay.auth.private_token.evaluation import Evaluation
from relay.auth.private_token.key_file import OriginKey
from relay.auth.private_token.prepare import TokenParts
from relay.errors import Failure, FailureKind, RelayError, Side
from relay.hooks import AuthScheme, Continue, ExchangeContext, Hooks, Principal, Replace, Verdict
from relay.spent import AwayReason, StoreAway
from relay.telemetry import Metric, Metrics, TokenRefusal

__all__ = ["TokenGate"]

_BATCH_2, _BATCH_1 = 64, 16
"Checks of each type in a batch: one and ten milliseconds of them."
_REFUSALS = {
    Refusal.MALFORMED: TokenRefusal.MALFORMED,
    Refusal.UNKNOWN_TYPE: TokenRefusal.UNKNOWN_TYPE,
    Refusal.WRONG_CHALLENGE: TokenRefusal.WRONG_CHALLENGE,
    Refusal.UNKNOWN_KEY: TokenRefusal.UNKNOWN_KEY,
    Refusal.WRONG_TYPE: TokenRefusal.WRONG_TYPE,
    Refusal.BAD_AUTHENTICATOR: TokenRefusal.BAD_AUTHENTICATOR,
}


class TokenGate:
    """Admits clients by tokens. `run` must run while it is asked."""

    def __init__(self, parts: TokenParts, metrics: Metrics) -> None:
        """Join the parts; nothing is started.

        Args:
            parts: from `prepare_tokens`.
            metrics: where tokens are counted.
        """
        settings = parts.settings
        self._parts = parts
        self._store = parts.store
        self._metrics = metrics
        self._challenges = Challenges(parts.rings, settings.origins, parts.contexts, parts.clock)
        self._limit = settings.admits if isinstance(settings.admits, int) else 1
        self._admits_connection = settings.admits == "connection"
        evaluation = Evaluation()
        self._checks = {
            TokenType.BLIND_RSA_2048: CheckQueue("tokens-2", verify_all, waiting=settings.waiting, batch=_BATCH_2),
            TokenType.VOPRF_P384: CheckQueue(
                "tokens-1", evaluation.verify, evaluation.close, waiting=settings.waiting, batch=_BATCH_1
            ),
        }
        self._tasks: asyncio.TaskGroup | None = None
        self._hurry: list[Callable[[], None]] = []

    @property
    def hooks(self) -> Hooks:
        """What takes part in exchanges' lives."""
        return Hooks(authenticate=self._authenticate, challenges=self._challenges.offers)

    async def reload(self) -> None:
        """Read the files of keys again, in a thread, all or none of them, and fetch directories soon.

        Raises:
            relay.settings.SettingsError: a file cannot be used; the keys so far stay.
        """
        loaded = await asyncio.to_thread(lambda: [ring.load_files() for ring in self._parts.rings])
        for ring, keys in zip(self._parts.rings, loaded, strict=True):
            ring.use_files(keys)
        for hurry in self._hurry:
            hurry()

    async def run(self) -> None:
        """Keep keys fresh and own what outlives an exchange, until cancelled; then let go of everything."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._refresh(tasks)
                try:
                    await self._store.probe()
                except StoreAway:
                    pass  # it has said so in the log, and admits nobody until it is back
                await asyncio.get_running_loop().create_future()
        finally:
            self._tasks = None
            await self._close()

    def _refresh(self, tasks: asyncio.TaskGroup) -> None:
        """Start to fetch directories."""
        for ring in self._parts.rings:
            trust = self._parts.trusts.get(ring.number)
            if trust is not None:
                from relay.auth.private_token.refresh import Refresh

                refresh = Refresh(ring, trust, self._metrics)
                self._hurry.append(refresh.hurry)
                tasks.create_task(refresh.run())

    async def _close(self) -> None:
        for queue in self._checks.values():
            await queue.close()
        await self._store.close()

    async def _authenticate(self, ctx: ExchangeContext) -> Verdict[Principal]:
        """Admit by a token; a principal that an earlier hook has found stays."""
        if ctx.principal is not None:
            return Continue()
        admitted = ctx.connection.get(ConnectionPass) if self._admits_connection else None
        if admitted is not None and admitted.principal is not None:
            return Replace(admitted.principal)
        credentials = find_credentials(ctx.head.fields)
        if credentials is None or credentials.scheme != AuthScheme.PRIVATE_TOKEN:
            return Continue()
        share = ctx.connection.get(CheckShare)
        if share is None:
            share = CheckShare()
            ctx.connection.put(share)
        admit = partial(self._admit, credentials.value, share)
        if not self._admits_connection:
            principal = await admit()
        else:
            if admitted is None:
                admitted = ConnectionPass()
                ctx.connection.put(admitted)
            principal = await self._admit_connection(admitted, admit)
        return Continue() if principal is None else Replace(principal)

    async def _admit_connection(self, admitted: ConnectionPass, admit: Admit) -> Principal | None:
        """Admit a whole connection, by a task that goes on when the exchange that asked for it does not."""
        if self._tasks is None:
            raise RelayError(Failure(FailureKind.AUTHENTICATION_UNAVAILABLE, Side.RELAY))
        try:
            return await admitted.admit(self._tasks, admit)
        except ChecksBusy:
            raise self._unavailable(TokenRefusal.BUSY) from None

    async def _admit(self, value: bytes, share: CheckShare) -> Principal | None:
        """Check a token, and spend it.

        Args:
            value: the credentials.
            share: of the connection that they came on.

        Returns:
            Who is admitted, or None when the token is not good.

        Raises:
            RelayError: nobody can say now.
        """
        try:
            found = await self._spend(value, share)
        except StoreAway as away:
            is_busy = away.reason is AwayReason.BUSY
            raise self._unavailable(TokenRefusal.BUSY if is_busy else TokenRefusal.STORE_AWAY) from None
        except ChecksBusy:
            raise self._unavailable(TokenRefusal.BUSY) from None
        except ChecksFailed:
            raise self._unavailable(TokenRefusal.CHECK_FAILED) from None
        if isinstance(found, TokenRefusal):
            self._metrics.count(Metric.TOKENS_REFUSED, 1, found)
            return None
        self._metrics.count(Metric.TOKENS_SPENT)
        return Principal(f"token-{found.issuer + 1}", AuthScheme.PRIVATE_TOKEN)

    async def _spend(self, value: bytes, share: CheckShare) -> Issued | TokenRefusal:
        """All that is done with a token, in order. Raises what its parts do when they cannot say."""
        found = self._read(value)
        if isinstance(found, TokenRefusal):
            return found
        token, key, issued = found
        token_id = hashlib.sha256(token.input).digest()
        if await self._store.is_spent(token_id, self._limit):
            return TokenRefusal.SPENT
        if not await self._checks[token.token_type].verify(key, token.input, token.authenticator, share):
            return TokenRefusal.BAD_AUTHENTICATOR
        if not await self._store.spend(token_id, self._limit, issued.expires):
            return TokenRefusal.SPENT
        return issued

    def _read(self, value: bytes) -> tuple[Token, OriginKey, Issued] | TokenRefusal:
        """Read credentials and find the key that they name. Raises RelayError when its issuer has no keys yet."""
        try:
            token = read_token(parse_credentials(value))
        except MasqueError:
            return TokenRefusal.MALFORMED
        if isinstance(token, Refusal):
            return _REFUSALS[token]
        table = self._challenges.table()
        issued = table.issued.get(token.challenge_digest)
        if issued is not None and not issued.has_keys:
            raise self._unavailable(TokenRefusal.NO_KEYS)
        key = select_key(token, table.keys)
        if isinstance(key, Refusal):
            return _REFUSALS[key]
        assert issued is not None
        return token, table.keys[token.challenge_digest][token.key_id], issued

    def _unavailable(self, reason: TokenRefusal) -> RelayError:
        self._metrics.count(Metric.TOKENS_REFUSED, 1, reason)
        return RelayError(Failure(FailureKind.AUTHENTICATION_UNAVAILABLE, Side.RELAY, context=reason.value))
