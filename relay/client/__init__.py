"""The client side: a library to open tunnels through a relay, and local forwarders."""

from __future__ import annotations

from relay.client.connection import (
    RelayClient,
    RelayOptions,
    connect_relay,
    explain_no_connection,
    relay_origin,
    resolve_relay,
    split_relay_url,
)
from relay.client.failure import ClientError
from relay.client.flows import TunnelClosed, TunnelStream, UdpFlow
from relay.client.forward import TcpForwarder, UdpForwarder
from relay.client.token_file import TokenFile
from relay.client.tokens import (
    FileTokens,
    IssuedTokens,
    TokenOffer,
    TokenSource,
    TokenSources,
    read_offers,
    run_stocked,
)

__all__ = [
    "ClientError",
    "FileTokens",
    "IssuedTokens",
    "RelayClient",
    "RelayOptions",
    "TcpForwarder",
    "TokenFile",
    "TokenOffer",
    "TokenSource",
    "TokenSources",
    "TunnelClosed",
    "TunnelStream",
    "UdpFlow",
    "UdpForwarder",
    "connect_relay",
    "explain_no_connection",
    "read_offers",
    "relay_origin",
    "resolve_relay",
    "run_stocked",
    "split_relay_url",
]
