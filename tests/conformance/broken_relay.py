"""A relay that is wrong in one way: `python -m tests.conformance.broken_relay FAULT serve ...`.

Each fault changes the running relay before it starts; the conformance cases must find it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import relay.pipeline
import relay.tunnels.tunnel
from masque.datagram import encode_prefix
from masque.errors import ErrorCode, Malformed
from masque.h3 import H3Connection
from masque.tunnel import TcpTunnel, UdpTunnel
from masque.varint import encode_varint
from relay.cli import main

__all__ = ["FAULTS"]


def _replace(owner: object, name: str, value: object) -> None:
    """Put something else in a class's or module's place of that name."""
    setattr(owner, name, value)


def _wrong_context_id() -> None:
    """Payloads leave with context id 2."""
    make = UdpTunnel.__init__

    def broken(self: UdpTunnel, stream_id: int, capsule_limit: int = 65536) -> None:
        make(self, stream_id, capsule_limit)
        self.prefix = encode_prefix(stream_id, 2)

    _replace(UdpTunnel, "__init__", broken)


def _no_settings() -> None:
    """There is no control stream and no SETTINGS."""
    _replace(H3Connection, "start", lambda self: None)


def _no_datagram_setting() -> None:
    """H3_DATAGRAM is not announced."""
    make = H3Connection.__init__

    def broken(self: H3Connection, **options: object) -> None:
        make(self, **{**options, "enable_datagram": False})  # type: ignore[arg-type]

    _replace(H3Connection, "__init__", broken)


def _capsules_ignored() -> None:
    """Capsules of the client are thrown away."""
    _replace(UdpTunnel, "receive_data", lambda self, data, fin=False: [])


def _unknown_capsules_refused() -> None:
    """An unknown capsule type costs the tunnel. It is known by its type: data may begin in a capsule's middle."""
    receive = UdpTunnel.receive_data
    unknown = encode_varint(0x2F3A)

    def broken(self: UdpTunnel, data: bytes, fin: bool = False) -> list[bytes]:
        if data.startswith(unknown):
            raise Malformed("an unknown capsule")
        return receive(self, data, fin)

    _replace(UdpTunnel, "receive_data", broken)


def _no_capsule_protocol() -> None:
    """The answer to CONNECT-UDP lacks capsule-protocol."""
    _replace(relay.pipeline, "connect_udp_response_fields", lambda: ())


def _end_swallowed() -> None:
    """The client's end does not reach the target."""
    receive = TcpTunnel.receive_data

    def broken(self: TcpTunnel, data: bytes, fin: bool = False, *, is_crowded: bool = False) -> None:
        receive(self, data, False, is_crowded=is_crowded)

    _replace(TcpTunnel, "receive_data", broken)


def _wrong_status() -> None:
    """Every refusal is 500, and does not say why."""
    _replace(relay.pipeline, "http_status", lambda failure: 500)
    _replace(relay.pipeline, "response_fields", lambda failure, identity: ())


def _wrong_reset_code() -> None:
    """Every reset has H3_INTERNAL_ERROR."""
    _replace(relay.tunnels.tunnel, "h3_code", lambda failure: ErrorCode.H3_INTERNAL_ERROR)


def _no_goaway() -> None:
    """A relay that stops says nothing."""
    _replace(H3Connection, "send_goaway", lambda self, final: None)


FAULTS: dict[str, Callable[[], None]] = {
    "wrong-context-id": _wrong_context_id,
    "no-settings": _no_settings,
    "no-datagram-setting": _no_datagram_setting,
    "capsules-ignored": _capsules_ignored,
    "unknown-capsules-refused": _unknown_capsules_refused,
    "no-capsule-protocol": _no_capsule_protocol,
    "end-swallowed": _end_swallowed,
    "wrong-status": _wrong_status,
    "wrong-reset-code": _wrong_reset_code,
    "no-goaway": _no_goaway,
}
"Every fault by name."

if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
