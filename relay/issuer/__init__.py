"""A development issuer of tokens (RFC 9578): for trying a relay out, and for tests."""

from __future__ import annotations

from relay.issuer.answer import MAX_REQUEST_SIZE, REQUEST_PATH, Answer, DevelopmentIssuer, Request
from relay.issuer.server import serve_issuer

__all__ = ["MAX_REQUEST_SIZE", "REQUEST_PATH", "Answer", "DevelopmentIssuer", "Request", "serve_issuer"]
