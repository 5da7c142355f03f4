"""The relay's own resolver."""

from __future__ import annotations

from relay.resolver.answer import (
    FAILURE_TTL,
    MAX_ADDRESSES,
    MAX_ALIASES,
    NEGATIVE_TTL,
    Reading,
    failed_reading,
    read_answer,
)
from relay.resolver.cache import AnswerCache
from relay.resolver.flight import Flights
from relay.resolver.forward import ask_upstreams
from relay.resolver.hook import resolver_hooks
from relay.resolver.service import SECOND_FAMILY_GRACE, Resolver
from relay.resolver.upstream import Answer, Asker, Question, Subnet

__all__ = [
    "FAILURE_TTL",
    "MAX_ADDRESSES",
    "MAX_ALIASES",
    "NEGATIVE_TTL",
    "SECOND_FAMILY_GRACE",
    "Answer",
    "AnswerCache",
    "Asker",
    "Flights",
    "Question",
    "Reading",
    "Resolver",
    "Subnet",
    "ask_upstreams",
    "failed_reading",
    "read_answer",
    "resolver_hooks",
]
