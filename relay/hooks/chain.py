"""Runs hooks in order, phase by phase: the rules of Continue, Reject and Replace are here and nowhere else.

Continue asks the next hook, Reject stops, Replace hands its value to the hooks that follow. A deciding hook
that raises, or answers with anything but a verdict, refuses the exchange. A watching hook that raises is
counted and the rest are still told. No exception's text is logged: it may quote what a peer sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import ParamSpec, TypeVar

from masque.target import Target
from relay.errors import Failure, FailureKind, RelayError, Side
from relay.hooks.context import EgressBinding, ExchangeContext, IPAddress, Principal, Resolution
from relay.hooks.phases import Hooks, Phase
from relay.hooks.verdicts import Continue, Reject, Replace, Verdict
from relay.outcome import Outcome
from relay.telemetry import Metric, Metrics, NoMetrics, get_logger

__all__ = ["HookChain"]

P = ParamSpec("P")
T = TypeVar("T")

_log = get_logger()


class HookChain:
    """The hooks of all rooms and of the application, in the order given."""

    def __init__(self, hooks: Sequence[Hooks], metrics: Metrics | None = None) -> None:
        """Sort the hooks by phase.

        Args:
            hooks: in the order in which they are asked; earlier ones decide first.
            metrics: where failing hooks are counted; by default nowhere.
        """
        self._metrics: Metrics = NoMetrics() if metrics is None else metrics
        self._authenticate = [h.authenticate for h in hooks if h.authenticate is not None]
        self._authorize = [h.authorize for h in hooks if h.authorize is not None]
        self._resolve = [h.resolve for h in hooks if h.resolve is not None]
        self._check_addresses = [h.check_addresses for h in hooks if h.check_addresses is not None]
        self._choose_egress = [h.choose_egress for h in hooks if h.choose_egress is not None]
        self._opened = [h.tunnel_opened for h in hooks if h.tunnel_opened is not None]
        self._closed = [h.tunnel_closed for h in hooks if h.tunnel_closed is not None]
        self._challenges = [h.challenges for h in hooks]

    @property
    def challenges(self) -> tuple[bytes, ...]:
        """The challenges of all hooks as they are now, each once, for the 407 (RFC 9110 §11.7.1)."""
        offered = [each() if callable(each) else each for each in self._challenges]
        return tuple(dict.fromkeys(challenge for group in offered for challenge in group))

    async def authenticate(self, ctx: ExchangeContext) -> Principal | Reject:
        """Find out who asks, and keep it in `ctx.principal`.

        Returns:
            The principal, or the rejection; AUTHENTICATION_REQUIRED when no hook named one.
        """
        for hook in self._authenticate:
            verdict = await self._ask(Phase.AUTHENTICATE, hook, ctx)
            if isinstance(verdict, Reject):
                return verdict
            if isinstance(verdict, Replace):
                ctx.principal = verdict.value
        if ctx.principal is None:
            return Reject(Failure(FailureKind.AUTHENTICATION_REQUIRED, Side.CLIENT, challenges=self.challenges))
        return ctx.principal

    async def authorize(self, ctx: ExchangeContext) -> Target | Reject:
        """Decide whether the tunnel may exist, and keep a replaced target in `ctx.target`.

        Returns:
            The target to go to, or the rejection.
        """
        for hook in self._authorize:
            verdict = await self._ask(Phase.AUTHORIZE, hook, ctx)
            if isinstance(verdict, Reject):
                return verdict
            if isinstance(verdict, Replace):
                ctx.target = verdict.value
        return ctx.target

    async def resolve(self, ctx: ExchangeContext) -> Resolution | Reject:
        """Find the addresses of `ctx.target`, and keep them in `ctx.resolution`.

        Returns:
            The resolution, or the rejection; PROXY_CONFIGURATION_ERROR when no hook resolved.
        """
        for hook in self._resolve:
            verdict = await self._ask(Phase.RESOLVE, hook, ctx, ctx.target)
            if isinstance(verdict, Reject):
                return verdict
            if isinstance(verdict, Replace):
                ctx.resolution = verdict.value
        if ctx.resolution is None:
            return Reject(Failure(FailureKind.PROXY_CONFIGURATION_ERROR, Side.RELAY, context="no resolver"))
        return ctx.resolution

    async def check_addresses(
        self, ctx: ExchangeContext, addresses: tuple[IPAddress, ...]
    ) -> tuple[IPAddress, ...] | Reject:
        """Reduce the addresses to those that may be tried (RFC 9298 §7).

        Returns:
            At least one address, or the rejection; DESTINATION_IP_PROHIBITED when none is left.
        """
        for hook in self._check_addresses:
            verdict = await self._ask(Phase.CHECK_ADDRESSES, hook, ctx, addresses)
            if isinstance(verdict, Reject):
                return verdict
            if isinstance(verdict, Replace):
                addresses = verdict.value
        if not addresses:
            return Reject(Failure(FailureKind.DESTINATION_IP_PROHIBITED, Side.RELAY))
        return addresses

    async def choose_egress(self, ctx: ExchangeContext, address: IPAddress) -> EgressBinding | Reject:
        """Choose how one address is reached, and keep it in `ctx.egress`.

        Returns:
            The binding, by default one that leaves the choice to the system, or the rejection.
        """
        ctx.egress = None
        for hook in self._choose_egress:
            verdict = await self._ask(Phase.CHOOSE_EGRESS, hook, ctx, address)
            if isinstance(verdict, Reject):
                return verdict
            if isinstance(verdict, Replace):
                ctx.egress = verdict.value
        if ctx.egress is None:
            ctx.egress = EgressBinding()
        return ctx.egress

    def tunnel_opened(self, ctx: ExchangeContext) -> None:
        """Tell the watching hooks that the tunnel was accepted."""
        for hook in self._opened:
            self._tell(Phase.TUNNEL_OPENED, hook, ctx)

    def tunnel_closed(self, ctx: ExchangeContext, outcome: Outcome) -> None:
        """Tell the watching hooks that the tunnel ended, and how."""
        for hook in self._closed:
            self._tell(Phase.TUNNEL_CLOSED, hook, ctx, outcome)

    def exchange_ended(self, ctx: ExchangeContext) -> None:
        """Give back what hooks took for the exchange, the latest first; a fault of one stays its own."""
        for release in ctx.take_releases():
            self._tell(Phase.EXCHANGE_ENDED, release)

    async def _ask(
        self, phase: Phase, hook: Callable[P, Awaitable[Verdict[T]]], *args: P.args, **kwargs: P.kwargs
    ) -> Verdict[T]:
        """Wait for a verdict; whatever else comes is a rejection."""
        try:
            verdict: object = await hook(*args, **kwargs)
        except RelayError as error:
            return Reject(error.failure)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # the exchange ends; otherwise something of the hook's own was cancelled
            self._report(phase, error)
            return Reject(Failure(FailureKind.PROXY_INTERNAL_ERROR, Side.RELAY, cause=error, context=phase.value))
        except Exception as error:  # noqa: BLE001  an application's fault refuses one exchange, nothing more
            self._report(phase, error)
            return Reject(Failure(FailureKind.PROXY_INTERNAL_ERROR, Side.RELAY, cause=error, context=phase.value))
        if isinstance(verdict, Continue | Reject | Replace):
            return verdict
        self._report(phase, TypeError())
        return Reject(Failure(FailureKind.PROXY_INTERNAL_ERROR, Side.RELAY, context=phase.value))

    def _tell(self, phase: Phase, hook: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call a watching hook; its faults stay its own."""
        try:
            hook(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  who only watches may not end a tunnel
            self._report(phase, error)

    def _report(self, phase: Phase, error: BaseException) -> None:
        self._metrics.count(Metric.HOOK_FAILURES, 1, phase)
        _log.error("hook_failed", phase=phase.value, exception_type=type(error).__name__)
