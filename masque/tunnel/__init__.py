"""The tunnels' machines: what passes between a stream and a socket, without either."""

from __future__ import annotations

from masque.tunnel.tcp import TcpAction, TcpTunnel
from masque.tunnel.udp import UdpTunnel

__all__ = ["TcpAction", "TcpTunnel", "UdpTunnel"]
