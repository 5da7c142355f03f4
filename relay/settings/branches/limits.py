"""The bounds of what others could make grow."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import ByteSize, model_validator

from relay.settings.branches.bounds import MIB, Branch, Duration, lasting, sized, within

__all__ = ["LimitSettings"]


class LimitSettings(Branch):
    """The bounds of everything that a client or a target could make grow."""

    streams: Annotated[int, within(1, 65536)] = 100
    """Bidirectional streams that a client may have open on a connection."""
    connections: Annotated[int, within(1, 10_000_000)] = 10_000
    """Connections at the same time, half-open ones included."""
    strangers: Annotated[int, within(1, 10_000_000)] = 256
    """Connections on which nobody was authenticated yet. For one more, the oldest of them is closed: each may hold a
    whole receive window of memory."""
    idle: Annotated[Duration, lasting(1, 3600)] = timedelta(seconds=60)
    """A connection on which nothing arrives for so long is closed."""
    handshake: Annotated[Duration, lasting(0.1, 300)] = timedelta(seconds=10)
    """How long a handshake may take."""
    udp_idle: Annotated[Duration, lasting(1, 86_400)] = timedelta(seconds=120)
    """A UDP tunnel without a datagram for so long is closed. RFC 9298 §6.1 advises not less than 2 minutes."""
    tcp_idle: Annotated[Duration, lasting(1, 86_400)] = timedelta(seconds=300)
    """A TCP tunnel without a byte for so long is closed."""
    decide: Annotated[Duration, lasting(0.1, 300)] = timedelta(seconds=15)
    """How long authentication, policy and resolving, with all hooks, may take before connecting begins."""
    connect: Annotated[Duration, lasting(0.1, 300)] = timedelta(seconds=10)
    """How long connecting to a target may take, over all its addresses."""
    field_section: Annotated[ByteSize, sized(1024, MIB)] = ByteSize(16 * 1024)
    """The largest header section, counted as RFC 9114 §4.2.2 does."""
    early_data: Annotated[ByteSize, sized(0, 16 * MIB)] = ByteSize(64 * 1024)
    """Bytes of a TCP tunnel kept before the answer."""
    early_datagrams: Annotated[int, within(0, 4096)] = 32
    """Datagrams of a UDP tunnel kept before the answer."""
    capsule: Annotated[ByteSize, sized(1500, 16 * MIB)] = ByteSize(64 * 1024)
    """The largest capsule that is read (RFC 9297 §3.2)."""
    datagram_queue: Annotated[int, within(1, 65536)] = 256
    """Datagrams waiting to be sent on a connection; the oldest is dropped."""
    tunnel_buffer: Annotated[ByteSize, sized(64 * 1024, 1024 * MIB)] = ByteSize(4 * MIB)
    """Stream data buffered for one tunnel, each way."""
    connection_buffer: Annotated[ByteSize, sized(64 * 1024, 8192 * MIB)] = ByteSize(32 * MIB)
    """Stream data buffered for all tunnels of a connection."""
    drain: Annotated[Duration, lasting(0, 86_400)] = timedelta(seconds=30)
    """How long tunnels may go on after the relay was asked to stop."""
    write_stall: Annotated[Duration, lasting(0.1, 3600)] = timedelta(seconds=10)
    """How long a target may take no byte while its full buffer holds up the whole connection's reading."""

    @model_validator(mode="after")
    def _buffer_order(self) -> LimitSettings:
        if self.tunnel_buffer > self.connection_buffer:
            raise ValueError("tunnel_buffer, connection_buffer: the first must not be larger than the second")
        return self
