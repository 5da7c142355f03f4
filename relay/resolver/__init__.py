"""The relay's own resolver."""

from __future__ import annotations

from relay.resolver.answer import (
    FAILURE_TTL,
    MAX_ADDRESSES,
    MAX_ALIASES,
    NEGATIVE_TTL,
    Answer,
    Question,
    failed_answer,
    read_answer,
)
from relay.resolver.cache import AnswerCache
from relay.resolver.flight import Flights
from relay.resolver.hook import resolver_hooks
from relay.resolver.service import SECOND_FAMILY_GRACE, Resolver
from relay.resolver.upstream import ask_upstreams

__all__ = [
    "FAILURE_TTL",
    "MAX_ADDRESSES",
    "MAX_ALIASES",
    "NEGATIVE_TTL",
    "SECOND_FAMILY_GRACE",
    "Answer",
    "AnswerCache",
    "Flights",
    "Question",
    "Resolver",
    "ask_upstreams",
    "failed_answer",
    "read_answer",
    "resolver_hooks",
]
