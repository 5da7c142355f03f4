"""`relay check --target`: which rule decides about a target, said without asking the network for anything."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from ipaddress import ip_address

from masque.errors import LocalMisuse
from masque.target import IPAddress, Target, build_target
from relay.cli.options import parse_address
from relay.client import ClientError
from relay.hooks import AuthScheme, Principal, TunnelKind
from relay.policy import Decision, Question, RuleSet, Selection, read_rules
from relay.server import own_addresses
from relay.settings import Settings

__all__ = ["add_target", "explain_target"]

_REFUSED = 1


def add_target(parser: argparse.ArgumentParser) -> None:
    """Add what asks about a target."""
    asking = parser.add_argument_group("asking the policy", "exit code 0 when the target may be reached, 1 when not")
    asking.add_argument("--target", metavar="HOST:PORT", help="say which rule decides; nothing is resolved")
    asking.add_argument(
        "--address",
        action="append",
        type=ip_address,
        default=[],
        metavar="ADDRESS",
        help="an address that the target's name would resolve to; may be repeated",
    )
    asking.add_argument("--alias", action="append", default=[], metavar="NAME", help="a name it would be an alias of")
    asking.add_argument("--principal", default="nobody", metavar="NAME", help="who asks, as rules name it")
    asking.add_argument(
        "--scheme", choices=[one.value for one in AuthScheme], default=AuthScheme.PRESHARED.value, help="and how"
    )
    asking.add_argument("--kind", choices=[one.value for one in TunnelKind], default=TunnelKind.TCP.value)


def explain_target(settings: Settings, options: argparse.Namespace) -> int:
    """Print what the policy says of a target; returns the exit code.

    Raises:
        SettingsError: the rules cannot be used.
        ClientError: the target or an alias is none.
    """
    target = _target(*parse_address(options.target, "--target"), "--target")
    rules = RuleSet(
        read_rules(settings.policy), own_addresses(settings, (settings.listen.host, settings.listen.port))
    )
    selection = rules.select(
        Question(
            TunnelKind(options.kind),
            target.port,
            target.host if target.address is None else None,
            tuple(_target(alias, target.port, "--alias").host for alias in options.alias),
            Principal(options.principal, AuthScheme(options.scheme)),
        )
    )
    addresses = options.address if target.address is None else [target.address]
    return _explain_addresses(selection, addresses) if addresses else _explain_name(selection)


def _explain_addresses(selection: Selection, addresses: Sequence[IPAddress]) -> int:
    decisions = [selection.decide(address) for address in addresses]
    for address, decision in zip(addresses, decisions, strict=True):
        print(f"{address}: {_text(decision)}")
    return 0 if any(decision.is_allowed for decision in decisions) else _REFUSED


def _explain_name(selection: Selection) -> int:
    decision = selection.refused_already()
    if decision is not None:
        print(f"before it is resolved: {_text(decision)}")
        return _REFUSED
    print("before it is resolved: nothing refuses it; each address is judged then (try --address)")
    ordinary = selection.decide_ordinary()
    print(f"at an address that no rule names and that is globally reachable: {_text(ordinary)}")
    return 0 if ordinary.is_allowed else _REFUSED


def _text(decision: Decision) -> str:
    return f"{decision.ruling.value}, by {decision.reason}"


def _target(host: str, port: int, name: str) -> Target:
    try:
        return build_target(host, port)
    except LocalMisuse as error:
        raise ClientError(f"{name}: {error.detail}") from None
