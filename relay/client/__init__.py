"""The client side: a library to open tunnels through a relay, and local forwarders."""

from __future__ import annotations

from relay.client.connection import (
    ClientError,
    RelayClient,
    RelayOptions,
    connect_relay,
    explain_no_connection,
    resolve_relay,
    split_relay_url,
)
from relay.client.flows import TunnelClosed, TunnelStream, UdpFlow
from relay.client.forward import TcpForwarder, UdpForwarder

__all__ = [
    "ClientError",
    "RelayClient",
    "RelayOptions",
    "TcpForwarder",
    "TunnelClosed",
    "TunnelStream",
    "UdpFlow",
    "UdpForwarder",
    "connect_relay",
    "explain_no_connection",
    "resolve_relay",
    "split_relay_url",
]
