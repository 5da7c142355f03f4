"""The relay's own resolver."""

from __future__ import annotations

from relay.resolver.answer import (
    FAILURE_TTL,
    MAX_ADDRESSES,
    MAX_ALIASES,
    MAX_RECORDS,
    NEGATIVE_TTL,
    Reading,
    failed_reading,
    joined_reading,
    read_answer,
)
from relay.resolver.assembly import make_routes
from relay.resolver.cache import AnswerCache, Entry
from relay.resolver.flight import Abandoned, Flights
from relay.resolver.forward import Forwarder
from relay.resolver.health import Health
from relay.resolver.hook import resolver_hooks
from relay.resolver.lookup import Lookup, LookupKey
from relay.resolver.names import canonical_name, known_reading, parse_name
from relay.resolver.query import (
    MAX_MESSAGE,
    MAX_SIGNED_MESSAGE,
    UDP_PAYLOAD,
    CookieJar,
    Mismatch,
    Query,
    Truncated,
    make_query,
)
from relay.resolver.routes import Routes
from relay.resolver.service import SECOND_FAMILY_GRACE, Resolver
from relay.resolver.transport import Transport, make_transport, require_trust
from relay.resolver.upstream import Answer, Asker, Question, Subnet

__all__ = [
    "FAILURE_TTL",
    "MAX_ADDRESSES",
    "MAX_ALIASES",
    "MAX_MESSAGE",
    "MAX_RECORDS",
    "MAX_SIGNED_MESSAGE",
    "NEGATIVE_TTL",
    "SECOND_FAMILY_GRACE",
    "UDP_PAYLOAD",
    "Abandoned",
    "Answer",
    "AnswerCache",
    "Asker",
    "CookieJar",
    "Entry",
    "Flights",
    "Forwarder",
    "Health",
    "Lookup",
    "LookupKey",
    "Mismatch",
    "Query",
    "Question",
    "Reading",
    "Resolver",
    "Routes",
    "Subnet",
    "Transport",
    "Truncated",
    "canonical_name",
    "failed_reading",
    "joined_reading",
    "known_reading",
    "make_query",
    "make_routes",
    "make_transport",
    "parse_name",
    "read_answer",
    "require_trust",
    "resolver_hooks",
]
