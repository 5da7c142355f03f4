"""Policy as hooks: what a name, a port or a principal decides before anything is resolved, addresses after.

Every address is judged, each time a name is resolved: a name that pointed elsewhere a moment ago gains nothing by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from masque.target import IPAddress, Target
from relay.errors import Failure, FailureKind, RelayError, Side, failure_from_os_error
from relay.hooks import Continue, ExchangeContext, Hooks, Reject, Replace, Verdict
from relay.policy.rules import Question
from relay.policy.ruleset import Decision, RuleSet, Selection

__all__ = ["PolicyGate"]


@dataclass(frozen=True, slots=True)
class _Permitted:
    """A target that is an address, and may be reached: it need not be judged twice."""

    rules: RuleSet
    target: Target = field(repr=False)


class PolicyGate:
    """Holds exchanges to the operator's rules, in two phases."""

    def __init__(self, rules: RuleSet) -> None:
        """Begin with these rules."""
        self.rules = rules
        "What is in force. Replace it at any time: phases from then on are held to the new rules, tunnels stay."

    @property
    def hooks(self) -> Hooks:
        """The hooks of both phases."""
        return Hooks(authorize=self.authorize, check_addresses=self.check_addresses)

    async def authorize(self, ctx: ExchangeContext) -> Verdict[Target]:
        """Refuse what no address could rescue, and an IP literal that may not be reached, before any work is done."""
        selection = self._select(ctx)
        address = ctx.target.address
        decision = selection.refused_already() if address is None else _decide(selection, address)
        if decision is not None and not decision.is_allowed:
            return _rejection([decision])
        if address is not None:
            ctx.put(_Permitted(self.rules, ctx.target))
        return Continue()

    async def check_addresses(
        self, ctx: ExchangeContext, addresses: tuple[IPAddress, ...]
    ) -> Verdict[tuple[IPAddress, ...]]:
        """Keep the addresses that may be reached, in their order (RFC 9298 §7).

        A name with one good and one forbidden address is served with the good one: who owns the name cannot
        make the relay reach the other.
        """
        literal = ctx.get(_Permitted)
        if (
            literal is not None
            and literal.rules is self.rules
            and literal.target is ctx.target
            and addresses == (ctx.target.address,)
        ):
            return Continue()
        selection = self._select(ctx)
        decisions = [_decide(selection, address) for address in addresses]
        permitted = tuple(a for a, decision in zip(addresses, decisions, strict=True) if decision.is_allowed)
        if not permitted:
            return _rejection(decisions)
        return Continue() if permitted == addresses else Replace(permitted)

    def _select(self, ctx: ExchangeContext) -> Selection:
        target = ctx.target
        name = target.host if target.address is None else None
        aliases = ctx.resolution.aliases if ctx.resolution is not None else ()
        return self.rules.select(Question(ctx.kind, target.port, name, aliases, ctx.principal))


def _decide(selection: Selection, address: IPAddress) -> Decision:
    try:
        return selection.decide(address)
    except OSError as error:
        raise RelayError(failure_from_os_error(error)) from error


def _rejection(decisions: list[Decision]) -> Reject:
    """Name the failure: of the address, if the address decided for one at least."""
    is_of_address = not decisions or any(decision.is_of_address for decision in decisions)
    kind = FailureKind.DESTINATION_IP_PROHIBITED if is_of_address else FailureKind.HTTP_REQUEST_DENIED
    return Reject(Failure(kind, Side.RELAY))
