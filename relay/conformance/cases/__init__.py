"""All cases, in the order of the report. The door of the package."""

from __future__ import annotations

from relay.conformance.case import Case
from relay.conformance.cases.connections import CONNECTION_CASES
from relay.conformance.cases.inside import INSIDE_CASES
from relay.conformance.cases.refusals import REFUSAL_CASES
from relay.conformance.cases.tcp import TCP_CASES
from relay.conformance.cases.tokens import TOKEN_CASES
from relay.conformance.cases.udp import UDP_CASES
from relay.conformance.cases.wire import WIRE_CASES

__all__ = ["ALL_CASES"]

ALL_CASES: tuple[Case, ...] = (
    *TCP_CASES.cases,
    *UDP_CASES.cases,
    *REFUSAL_CASES.cases,
    *CONNECTION_CASES.cases,
    *INSIDE_CASES.cases,
    *WIRE_CASES.cases,
    *TOKEN_CASES.cases,
)
"Every case; names are unique."
