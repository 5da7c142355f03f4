"""Which rule decides: rules put under what they name, so that few are looked at however many there are.

A rule stands under its names, else its networks, else its principals, else its few ports; what names none of these
stands in a list that is always looked at. An exchange gathers the rules under its own name, aliases, principal and
port once, each of its addresses those under its networks, and the lowest number among those that fit decides.

Of an address that carries an IPv4 address inside, a rule that denies speaks also when it names that one. A rule that
allows opens such a form only where the address inside may be reached too, unless its network is long enough to name
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import merge

from masque.target import IPAddress
from relay.hooks import TunnelKind
from relay.policy.addresses import special_network
from relay.policy.embedded import embedded_ipv4, isatap_ipv4
from relay.policy.own import OwnAddresses
from relay.policy.prefixes import PrefixTable
from relay.policy.rules import Question, Rule, Ruling, suffixes

__all__ = ["Decision", "RuleSet", "Selection"]

_MANY_PORTS = 64
"A rule with more ports than this is not put under each."


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about an address, and by what."""

    ruling: Ruling
    "May it be reached?"
    reason: str
    "Where the deciding rule is written, or what the default says. For an operator; it may not be logged."
    is_of_address: bool
    "It is decided by the address; another one might be judged otherwise."

    @property
    def is_allowed(self) -> bool:
        """Whether the address may be reached."""
        return self.ruling is Ruling.ALLOW


_ORDINARY = Decision(Ruling.ALLOW, "the default: globally reachable", is_of_address=True)


class RuleSet:
    """All rules, and the default."""

    def __init__(self, rules: Sequence[Rule], own: OwnAddresses | None = None) -> None:
        """Put the rules under what they name.

        Args:
            rules: in order; the first that fits decides.
            own: the addresses that are refused before all rules; by default none.
        """
        self.rules = tuple(rules)
        "All rules, in order."
        self.own = OwnAddresses() if own is None else own
        "The addresses that are refused before all rules."
        self._by_name: dict[str, list[int]] = {}
        self._by_network: PrefixTable[int] = PrefixTable()
        self._by_principal: dict[str, list[int]] = {}
        self._by_port: dict[int, list[int]] = {}
        self._others: list[int] = []
        for number, rule in enumerate(self.rules):
            self._put(number, rule)
        unseen = (n for n, rule in enumerate(self.rules) if rule.networks and not rule.names)
        opening = (n for n in unseen if self.rules[n].ruling is Ruling.ALLOW)
        self.first_opening = next(opening, len(self.rules))
        """The number of the first rule that allows and is found by addresses alone: behind it, nothing is known to be
        refused before there are addresses."""

    def _put(self, number: int, rule: Rule) -> None:
        if rule.names:
            for name in rule.names:
                self._by_name.setdefault(name, []).append(number)
        elif rule.networks:
            for network in rule.networks:
                self._by_network.add(network, number)
        elif rule.principals:
            for principal in rule.principals:
                self._by_principal.setdefault(principal, []).append(number)
        elif rule.ports and sum(high - low + 1 for low, high in rule.ports) <= _MANY_PORTS:
            for port in {port for low, high in rule.ports for port in range(low, high + 1)}:
                self._by_port.setdefault(port, []).append(number)
        else:
            self._others.append(number)

    def select(self, question: Question) -> Selection:
        """Gather the rules that may speak of an exchange, to ask about its addresses."""
        found: set[int] = set(self._others)
        found.update(self._by_port.get(question.port, ()))
        if question.principal is not None:
            found.update(self._by_principal.get(question.principal.name, ()))
        if self._by_name:
            for name in (question.name, *question.aliases):
                for suffix in suffixes(name or ""):
                    found.update(self._by_name.get(suffix, ()))
        return Selection(self, question, [n for n in sorted(found) if self.rules[n].fits(question)])

    def about(self, address: IPAddress) -> list[int]:
        """Return the numbers of the rules that stand under an address's networks, in order.

        Those under the networks of an IPv4 address inside are among them; they count only if they deny.
        """
        found = {number for _, number in self._by_network.find(address)}
        for inside in embedded_ipv4(address):
            found.update(n for _, n in self._by_network.find(inside) if self.rules[n].ruling is Ruling.DENY)
        return sorted(found)


class Selection:
    """The rules that may speak of one exchange."""

    def __init__(self, rules: RuleSet, question: Question, numbers: list[int]) -> None:
        self._set = rules
        self._question = question
        self._numbers = numbers

    def refused_already(self) -> Decision | None:
        """Return the decision that refuses the exchange whatever its address is, or None."""
        for number in self._numbers:
            rule = self._set.rules[number]
            if number > self._set.first_opening or rule.ruling is Ruling.ALLOW:
                return None
            if not rule.networks:
                return Decision(Ruling.DENY, rule.origin, is_of_address=False)
        return None

    def decide_ordinary(self) -> Decision:
        """Decide about an address that is globally reachable, not this machine's, and in no rule's networks."""
        for number in self._numbers:
            rule = self._set.rules[number]
            if not rule.networks:
                return Decision(rule.ruling, rule.origin, is_of_address=False)
        return _ORDINARY

    def decide(self, address: IPAddress) -> Decision:
        """Decide about one address (RFC 9298 §7).

        Raises:
            OSError: the kernel did not say whether the address is this machine's.
        """
        if self._is_own(address):
            return Decision(Ruling.DENY, "an address of this machine (policy.allow_own)", is_of_address=True)
        for number in self._in_order(self._set.about(address)):
            rule = self._set.rules[number]
            if self._speaks_of(rule, address):
                return Decision(rule.ruling, rule.origin, is_of_address=bool(rule.networks))
        problem = self._problem(address)
        if problem is None:
            return _ORDINARY
        return Decision(Ruling.DENY, f"the default: {problem}", is_of_address=True)

    def _in_order(self, about: list[int]) -> Iterable[int]:
        fitting = [number for number in about if self._set.rules[number].fits(self._question)]
        return merge(self._numbers, fitting) if self._numbers and fitting else self._numbers or fitting

    def _is_own(self, address: IPAddress) -> bool:
        own, question = self._set.own, self._question
        for one in (address, *embedded_ipv4(address)):
            if own.holds(one) or (question.kind is TunnelKind.UDP and own.listens(one, question.port)):
                return True
        return False

    def _speaks_of(self, rule: Rule, address: IPAddress) -> bool:
        """Say whether a rule that fits the exchange is about this address."""
        if rule.ruling is Ruling.DENY:
            places = (address, *embedded_ipv4(address))
            return not rule.networks or any(rule.reach(place) is not None for place in places)
        if not rule.networks:
            return self._problem(address) is None
        length = rule.reach(address)
        return length is not None and all(self.decide(inside).is_allowed for inside in embedded_ipv4(address, length))

    def _problem(self, address: IPAddress) -> str | None:
        """Say why an address is not globally reachable, or None."""
        row = special_network(address)
        if row is not None:
            return f"{row.purpose}, {row.network} ({row.reference})"
        inside = isatap_ipv4(address)
        if inside is not None and (row := special_network(inside)) is not None:
            return f"ISATAP (RFC 5214 §6.1) with {row.purpose} inside, {row.network} ({row.reference})"
        return None
