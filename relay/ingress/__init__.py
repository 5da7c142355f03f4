"""Where clients come in."""

from __future__ import annotations

from relay.ingress.drain import Drain
from relay.ingress.h3 import H3Ingress

__all__ = ["Drain", "H3Ingress"]
