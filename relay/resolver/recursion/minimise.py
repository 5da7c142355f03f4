"""QNAME minimisation: a server is shown no more of a name than it needs to refer us on (RFC 9156 §2.3)."""

from __future__ import annotations

import dns.name

from relay.resolver.recursion.limits import RecursionLimits

__all__ = ["next_name"]


def next_name(shown: dns.name.Name, name: dns.name.Name, steps: int, limits: RecursionLimits) -> dns.name.Name:
    """Return how much of a name to show next.

    The first steps add one label each. What is left after them is spread over the steps that remain, so that a name
    of a hundred labels does not take a hundred queries.

    Args:
        shown: the ancestor of the name that is known to exist: the zone, or what was shown last.
        name: the full name.
        steps: how often part of this name was shown already.
        limits: how many steps there may be.
    """
    missing = len(name.labels) - len(shown.labels)
    if missing <= 1 or steps >= limits.minimised:
        return name
    added = 1 if steps < limits.one_label else -(-missing // (limits.minimised - steps))
    return name.split(min(len(shown.labels) + added, len(name.labels)))[1]
