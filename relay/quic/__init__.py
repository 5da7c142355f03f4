"""QUIC: UDP sockets in batches, the router by connection id, and the seam to the libraries."""

from __future__ import annotations
