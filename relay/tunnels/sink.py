"""What all that take a CONNECT-UDP exchange do with what arrives: payloads out of datagrams and capsules."""

from __future__ import annotations

from masque.errors import MasqueError
from masque.tunnel import UdpTunnel

__all__ = ["DatagramSink"]


class DatagramSink:
    """The receiving side of a CONNECT-UDP exchange (RFC 9297 §3.5, RFC 9298 §5)."""

    _machine: UdpTunnel

    def payloads_received(self, payloads: list[bytes]) -> None:
        """UDP payloads of the peer, at least one."""
        raise NotImplementedError

    def refused(self) -> None:
        """The peer broke a rule on the stream."""
        raise NotImplementedError

    def fin_received(self) -> None:
        """The peer ended the stream, between capsules."""
        raise NotImplementedError

    def datagram_received(self, datagram: bytes) -> None:
        """An HTTP Datagram, context id first."""
        try:
            payload = self._machine.receive_datagram(datagram)
        except MasqueError:
            self.refused()
            return
        if payload is not None:
            self.payloads_received([payload])

    def data_received(self, data: bytes, fin: bool) -> None:
        """Capsules; the stream's end is the tunnel's end."""
        try:
            payloads = self._machine.receive_data(data, fin)
        except MasqueError:
            self.refused()
            return
        if payloads:
            self.payloads_received(payloads)
        if fin:
            self.fin_received()
