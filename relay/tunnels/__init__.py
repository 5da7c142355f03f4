"""Tunnels: what an accepted exchange becomes."""

from __future__ import annotations

from relay.tunnels.dial import Dialer, dial_tcp
from relay.tunnels.leave import open_udp
from relay.tunnels.reach import ReachMemory, Standing, interleave
from relay.tunnels.sink import DatagramSink
from relay.tunnels.tcp import TcpSplice
from relay.tunnels.tunnel import Tunnel, TunnelLimits
from relay.tunnels.udp import UdpRelay

__all__ = [
    "DatagramSink",
    "Dialer",
    "ReachMemory",
    "Standing",
    "TcpSplice",
    "Tunnel",
    "TunnelLimits",
    "UdpRelay",
    "dial_tcp",
    "interleave",
    "open_udp",
]
