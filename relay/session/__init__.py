"""HTTP/3 connections: the session between `masque.h3` and a QUIC link, in either role."""

from __future__ import annotations

from relay.session.contracts import SessionObserver, Transport
from relay.session.session import Session

__all__ = ["Session", "SessionObserver", "Transport"]
