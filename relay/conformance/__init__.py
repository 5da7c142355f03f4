"""Cases that any MASQUE server should pass, clients that carry them out, and the report: `relay interop`.

The door of the package: what a runner needs. The verbs of a client are in `relay.conformance.driver`.
"""

from __future__ import annotations

from relay.conformance.case import Case, CaseFailed, CaseList, Check, Need, Server, Stage
from relay.conformance.cases import ALL_CASES
from relay.conformance.driver import Driver, DriverError, DriverTimeout, Feature, Kind
from relay.conformance.origins import Origins, Seen, can_listen, running_origins
from relay.conformance.play import Outcome, Verdict, play
from relay.conformance.report import encode_report, render_cases, render_outcome, render_summary
from relay.conformance.tokens import OwnTokens, TokenDriver, TokenKeys
from relay.conformance.wire import WireClient, WireOptions, WireStream, connect_wire
from relay.conformance.wire_driver import WireDriver

__all__ = [
    "ALL_CASES",
    "Case",
    "CaseFailed",
    "CaseList",
    "Check",
    "Driver",
    "DriverError",
    "DriverTimeout",
    "Feature",
    "Kind",
    "Need",
    "Origins",
    "Outcome",
    "OwnTokens",
    "Seen",
    "Server",
    "Stage",
    "TokenDriver",
    "TokenKeys",
    "Verdict",
    "WireClient",
    "WireDriver",
    "WireOptions",
    "WireStream",
    "can_listen",
    "connect_wire",
    "encode_report",
    "play",
    "render_cases",
    "render_outcome",
    "render_summary",
    "running_origins",
]
