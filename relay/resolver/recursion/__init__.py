"""Iterative resolution: from the root's servers to those that know, with no upstream in between (RFC 1034 §5.3.3)."""

from __future__ import annotations

from relay.resolver.recursion.delegation import Delegation
from relay.resolver.recursion.hints import parse_root_hints, read_root_hints
from relay.resolver.recursion.limits import BoundedAsker, RecursionLimits
from relay.resolver.recursion.recursor import Recursor

__all__ = ["BoundedAsker", "Delegation", "RecursionLimits", "Recursor", "parse_root_hints", "read_root_hints"]
