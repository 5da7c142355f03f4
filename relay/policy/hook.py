"""Policy as hooks: ports before anything is resolved, addresses after, each one that would be tried."""

from __future__ import annotations

from masque.target import IPAddress, Target
from relay.errors import Failure, FailureKind, Side
from relay.hooks import Continue, ExchangeContext, Hooks, Reject, Replace, Verdict
from relay.policy.rules import AddressPolicy
from relay.settings import PolicySettings

__all__ = ["policy_hooks"]


def policy_hooks(settings: PolicySettings) -> Hooks:
    """Build the hooks that hold an exchange to the operator's rules."""
    policy = AddressPolicy(settings.allow, settings.deny, frozenset(settings.denied_ports))
    gate = _PolicyGate(policy)
    return Hooks(authorize=gate.authorize, check_addresses=gate.check_addresses)


class _PolicyGate:
    """Asks the policy in two phases."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy

    async def authorize(self, ctx: ExchangeContext) -> Verdict[Target]:
        """Refuse a denied port, and an IP literal that may not be reached, before any work is done."""
        if not self._policy.permits_port(ctx.target.port):
            return Reject(Failure(FailureKind.HTTP_REQUEST_DENIED, Side.RELAY))
        address = ctx.target.address
        if address is not None and not self._policy.permits_address(address):
            return Reject(Failure(FailureKind.DESTINATION_IP_PROHIBITED, Side.RELAY))
        return Continue()

    async def check_addresses(
        self, ctx: ExchangeContext, addresses: tuple[IPAddress, ...]
    ) -> Verdict[tuple[IPAddress, ...]]:
        """Keep the addresses that may be reached, in their order (RFC 9298 §7).

        A name with one good and one forbidden address is served with the good one: who owns the name cannot
        make the relay reach the other.
        """
        permitted = tuple(address for address in addresses if self._policy.check(address, ctx.target.port))
        if not permitted:
            return Reject(Failure(FailureKind.DESTINATION_IP_PROHIBITED, Side.RELAY))
        return Continue() if permitted == addresses else Replace(permitted)
