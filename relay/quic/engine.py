"""The seam to a QUIC library: one connection's protocol machine, batched, with time as an argument.

Everything the relay needs of QUIC goes through `Engine`; one file per library implements it, and the library's
private names are touched in that file alone. UDP payloads go in, plain events and datagrams come out, and UDP
payloads to send come out. Nothing here opens a socket or reads a clock.

Order of use: `receive` any number of times, then `take_events` and `take_datagrams`, then send, then `transmit`
once, then look at `deadline`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol, assert_never

__all__ = [
    "ALL_STREAMS",
    "CONNECTION_ID_LENGTH",
    "Address",
    "Burst",
    "Certificate",
    "ClientCheck",
    "ClientOptions",
    "Engine",
    "EngineError",
    "EngineFactory",
    "EngineName",
    "Established",
    "Event",
    "IdIssued",
    "IdRetired",
    "StopSending",
    "StreamData",
    "StreamReset",
    "Terminated",
    "TransportLimits",
    "cut",
    "load_factory",
]

CONNECTION_ID_LENGTH = 8
"Length in bytes of the connection ids that we issue; the router relies on it."

ALL_STREAMS = -1
"For `Engine.hold`: no stream's sender gets credit until it is released again."

Address = tuple[str, int] | tuple[str, int, int, int]
"A socket address as the standard library gives it for IPv4 and IPv6."


class EngineName(StrEnum):
    """The QUIC libraries there are engines for."""

    QH3 = "qh3"
    AIOQUIC = "aioquic"


class EngineError(Exception):
    """The engine cannot be used as asked: a bad certificate or an option it does not have. Safe to print."""


@dataclass(frozen=True, slots=True)
class TransportLimits:
    """What we announce and keep, the same for every engine."""

    max_datagram_size: int = 1350
    "Largest UDP payload sent, in bytes. A qh3 client starts there and looks for more (RFC 9000 §14.3)."
    idle: float = 60.0
    "Idle timeout announced, in seconds (RFC 9000 §10.1)."
    streams: int = 100
    "Bidirectional streams the peer may have open at once."
    stream_window: int = 1 << 20
    "Bytes a stream's sender may be ahead of us."
    connection_window: int = 4 << 20
    "Bytes all streams' senders may be ahead of us."
    datagram_queue: int = 256
    "DATAGRAM frames waiting to be sent; the oldest is dropped beyond."
    max_datagram_frame_size: int = 65535
    "Largest DATAGRAM frame accepted (RFC 9221 §3)."
    reset_key: bytes = field(default_factory=lambda: os.urandom(32), repr=False)
    "Makes the stateless reset token of a server's first connection id (RFC 9000 §10.3.2)."


@dataclass(frozen=True, slots=True)
class Certificate:
    """Where a certificate chain, leaf first, and its key are, as PEM files."""

    chain: Path
    private_key: Path


@dataclass(frozen=True, slots=True)
class ClientCheck:
    """That clients are asked for a certificate in the handshake, and whose (RFC 8446 §4.3.2)."""

    ca_file: Path
    "PEM file of the authorities that may have signed it."
    is_required: bool
    "False lets clients without one connect too. A bad one is refused in any case."


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How a client checks the server it connects to."""

    server_name: str
    "Name (or address) the certificate must be valid for; sent as SNI when it is a name."
    ca_file: Path | None = None
    "PEM file of trusted authorities; None trusts the library's own set."
    is_verified: bool = True
    "False accepts any certificate. Only for tests."
    alpn: tuple[str, ...] = field(default=("h3",))
    certificate: Certificate | None = None
    "What to prove ourselves by when the server asks; None sends no certificate."


Burst = tuple[list[bytes], Address]
"UDP payloads and the address that all of them go to."


class StreamData(NamedTuple):
    """In-order bytes of a stream; `fin` is True with the last of them."""

    stream_id: int
    data: bytes | memoryview
    fin: bool


class StreamReset(NamedTuple):
    """The peer abandoned its sending side (RESET_STREAM)."""

    stream_id: int
    code: int


class StopSending(NamedTuple):
    """The peer wants no more of what we send on this stream."""

    stream_id: int
    code: int


class Established(NamedTuple):
    """The TLS handshake is complete."""

    alpn: str | None


class IdIssued(NamedTuple):
    """Packets with this destination connection id now belong to this connection."""

    connection_id: bytes


class IdRetired(NamedTuple):
    """Packets with this destination connection id no longer belong to it."""

    connection_id: bytes


class Terminated(NamedTuple):
    """The connection is over for the application, closed by either side or timed out; nothing follows.

    Keep feeding and transmitting until `Engine.is_over`, so that a lost CONNECTION_CLOSE is sent again.
    """

    code: int


Event = StreamData | StreamReset | StopSending | Established | IdIssued | IdRetired | Terminated


class Engine(Protocol):
    """One QUIC connection."""

    dropped_datagrams: int
    "DATAGRAM payloads dropped from the queue since the connection began."

    @property
    def connection_id(self) -> bytes:
        """The first connection id we chose; later ones come as `IdIssued`."""

    @property
    def max_datagram_payload(self) -> int:
        """Largest DATAGRAM payload that fits now, in bytes; 0 when the peer takes no DATAGRAM frames."""

    @property
    def holds_connection(self) -> bool:
        """True when holding one stream's reading also stops the other streams' (see `hold`)."""

    @property
    def has_sent_events(self) -> bool:
        """True when `transmit` made events, such as ids it has just told the peer: to be taken before the peer uses
        them."""

    @property
    def peer_certificate(self) -> bytes | None:
        """Server: SHA-256 of the certificate that the client proved to own, once `Established` came; None when it was
        not asked for one or has none."""

    @property
    def is_over(self) -> bool:
        """True when nothing needs to be received, sent or timed any more."""

    def receive(self, data: bytes, segment: int, address: Address, now: float) -> None:
        """Feed UDP payloads: `data` is one or more of `segment` bytes each, the last may be shorter."""

    def take_events(self) -> list[Event]:
        """Events since the last call, in order."""

    def take_datagrams(self) -> list[bytes]:
        """DATAGRAM payloads since the last call, in order of arrival."""

    def send_stream(self, stream_id: int, data: bytes | memoryview, fin: bool = False) -> None:
        """Queue bytes on a stream; they are copied. Ignored on a stream that can no longer send."""

    def backlog(self, stream_id: int) -> int:
        """Bytes of the stream queued and never sent yet."""

    def hold(self, stream_id: int) -> None:
        """Stop giving the peer credit for this stream, or ALL_STREAMS, until `release`; memory stays bounded."""

    def release(self, stream_id: int) -> None:
        """Undo `hold`. Afterwards take events: some may have waited."""

    def reset_stream(self, stream_id: int, code: int) -> None:
        """Abandon our sending side (RESET_STREAM). Ignored when it is over."""

    def stop_sending(self, stream_id: int, code: int) -> None:
        """Ask the peer to stop sending (STOP_SENDING). Ignored when it is over."""

    def send_datagrams(self, prefix: bytes, data: bytes, segment: int) -> int:
        """Queue DATAGRAM frames: `prefix` before each piece of `segment` bytes of `data`.

        Args:
            prefix: put before every piece.
            data: the pieces back to back, the last may be shorter; empty is one empty piece.
            segment: bytes of a piece.

        Returns:
            How many fitted the path and the peer. The others were not queued. When the queue is full, the oldest
            are dropped and counted in `dropped_datagrams`.
        """

    def transmit(self, now: float) -> list[Burst]:
        """UDP payloads to send now, in order."""

    def deadline(self) -> float | None:
        """When `on_deadline` is due, on the clock of `now`; None when nothing is waiting."""

    def on_deadline(self, now: float) -> None:
        """Do what time demands. Then take events and transmit."""

    def close(self, code: int, reason: str = "") -> None:
        """Close with an application error code. `Terminated` follows; then see `is_over`."""


class EngineFactory(Protocol):
    """Makes connections of one engine."""

    def server(
        self, initial_destination_id: bytes, peer_id: bytes, retry_source_id: bytes | None, now: float
    ) -> Engine:
        """A connection for a client's first Initial packet.

        Args:
            initial_destination_id: what the client chose as our id in its very first packet.
            peer_id: the client's own connection id.
            retry_source_id: the id of the Retry packet that the client answered, or None.
            now: the time.
        """

    def client(self, options: ClientOptions, address: Address, now: float) -> Engine:
        """A connection to `address`; `transmit` gives its first packets.

        Raises:
            EngineError: the authorities, or our certificate or key, cannot be used.
        """


def cut(prefix: bytes, data: bytes, segment: int, limit: int) -> list[bytes]:
    """The DATAGRAM payloads of `Engine.send_datagrams` that are at most `limit` bytes long."""
    if not data:
        return [prefix] if len(prefix) <= limit else []
    size = len(data)
    if len(prefix) + min(segment, size) <= limit:
        return [prefix + data[start : start + segment] for start in range(0, size, segment)]
    last = data[size - size % segment :]
    return [prefix + last] if last and len(prefix) + len(last) <= limit else []


def load_factory(
    name: EngineName, limits: TransportLimits, certificate: Certificate | None, clients: ClientCheck | None = None
) -> EngineFactory:
    """The factory of the engine called `name`, its library imported now.

    Args:
        name: which engine.
        limits: what connections announce and keep.
        certificate: the server's, or None for a client only.
        clients: asks a server's clients for certificates, or None.

    Raises:
        EngineError: the certificate, key or authorities cannot be used, or the engine cannot ask for certificates.
    """
    match name:
        case EngineName.QH3:
            from relay.quic.qh3_engine import Qh3Factory

            return Qh3Factory(limits, certificate, clients)
        case EngineName.AIOQUIC:
            from relay.quic.aioquic_engine import AioquicFactory

            return AioquicFactory(limits, certificate, clients)
    assert_never(name)
