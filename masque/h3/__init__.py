"""HTTP/3 without I/O, server and client: bytes in, events and actions out (RFC 9114, 9204, 9220, 9297).

The door of the package. `H3Connection` is the machine; the rest is what it takes and gives.
"""

from __future__ import annotations

from masque.h3.actions import Action, CloseConnection, StreamReset, StreamStop, StreamWrite
from masque.h3.connection import H3Connection
from masque.h3.events import (
    ConnectionFailed,
    DataReceived,
    GoawayReceived,
    H3Event,
    RequestReceived,
    ResetReceived,
    ResponseReceived,
    SettingsReceived,
    StopSendingReceived,
    StreamFailed,
    TrailersReceived,
)
from masque.h3.frames import encode_data_header
from masque.h3.limits import H3Limits
from masque.h3.settings import Settings

__all__ = [
    "Action",
    "CloseConnection",
    "ConnectionFailed",
    "DataReceived",
    "GoawayReceived",
    "H3Connection",
    "H3Event",
    "H3Limits",
    "RequestReceived",
    "ResetReceived",
    "ResponseReceived",
    "Settings",
    "SettingsReceived",
    "StopSendingReceived",
    "StreamFailed",
    "StreamReset",
    "StreamStop",
    "StreamWrite",
    "TrailersReceived",
    "encode_data_header",
]
