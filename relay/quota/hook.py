"""Quotas as hooks: a place is taken when a tunnel is authorized, and given back when its exchange is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from masque.target import Target
from relay.errors import Failure, FailureKind, Side
from relay.hooks import Continue, ExchangeContext, Hooks, Principal, Reject, Verdict
from relay.quota.account import Account, Shortage, coarse
from relay.quota.accounts import Accounts
from relay.quota.limits import QuotaLimits, QuotaTable
from relay.quota.meter import Lease, Meter
from relay.settings import QuotaSettings
from relay.telemetry import Metric, Metrics, QuotaName

__all__ = ["quota_hooks"]


def quota_hooks(settings: QuotaSettings, metrics: Metrics, clock: Callable[[], float] | None = None) -> Hooks:
    """Build the hooks that hold every principal to its quotas; call it on the running loop.

    They belong after the hooks that refuse for other reasons, so that what is refused anyway uses up nothing.

    Args:
        settings: the quotas.
        metrics: where it is counted that one bit.
        clock: seconds that only grow; the loop's by default.
    """
    table = QuotaTable(settings)
    if not table.is_bounded:
        return Hooks()
    loop = asyncio.get_running_loop()
    now = loop.time if clock is None else clock
    counter = _Counter(table, Accounts(settings.principals, metrics), Meter(loop, now, metrics), metrics, now)
    return Hooks(authorize=counter.authorize, tunnel_opened=counter.tunnel_opened)


class _Counter:
    """Takes places and gives them back."""

    def __init__(
        self, table: QuotaTable, accounts: Accounts, meter: Meter, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._table = table
        self._accounts = accounts
        self._meter = meter
        self._metrics = metrics
        self._clock = clock

    async def authorize(self, ctx: ExchangeContext) -> Verdict[Target]:
        """Admit one more tunnel of `ctx.principal`, or refuse it with 429."""
        principal = ctx.principal
        if principal is None:
            return Reject(Failure(FailureKind.AUTHENTICATION_REQUIRED, Side.CLIENT))
        limits = self._table.limits(principal)
        if not limits.is_bounded:
            return Continue()
        now = self._clock()
        account = self._account(ctx, principal, limits, now)
        if account is None:
            return self._refuse(Shortage(QuotaName.PRINCIPALS, None))
        shortage = account.admit(limits, now)
        if shortage is not None:
            return self._refuse(shortage)
        lease = Lease(account, limits)
        ctx.at_end(partial(self._give_back, lease, principal))  # before anything can fail or wait
        ctx.put(lease)
        return Continue()

    def tunnel_opened(self, ctx: ExchangeContext) -> None:
        """Count what the tunnel relays from now on."""
        lease = ctx.get(Lease)
        if lease is not None and ctx.tunnel is not None:
            lease.open(ctx.tunnel)
            if lease.is_metered:
                self._meter.watch(lease)

    def _account(self, ctx: ExchangeContext, principal: Principal, limits: QuotaLimits, now: float) -> Account | None:
        """The principal's account; that of the connection when the principal may be anybody."""
        if principal.scheme.is_linkable:
            return self._accounts.find(principal.name, limits, now)
        account = ctx.connection.get(Account)
        if account is None:
            account = Account()
            ctx.connection.put(account)
        return account

    def _give_back(self, lease: Lease, principal: Principal) -> None:
        now = self._clock()
        lease.give_back(now)
        if principal.scheme.is_linkable:
            self._accounts.rest(principal.name, now)

    def _refuse(self, shortage: Shortage) -> Reject:
        self._metrics.count(Metric.QUOTAS_HIT, 1, shortage.quota)
        wait = None if shortage.wait is None else coarse(shortage.wait)
        return Reject(Failure(FailureKind.RATE_LIMITED, Side.CLIENT, retry_after=wait, context="quota"))
