"""How an upstream is spoken to: datagrams, and streams of four kinds whose connections are kept and shared."""

from __future__ import annotations

from relay.resolver.transport.transport import Transport, make_transport, require_trust

__all__ = ["Transport", "make_transport", "require_trust"]
