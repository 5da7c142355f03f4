"""How targets with several addresses are connected to."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from relay.settings.branches.bounds import Branch, Duration, lasting, within

__all__ = ["DialSettings"]


class DialSettings(Branch):
    """Happy Eyeballs (RFC 8305): which of a target's addresses are tried first, and how soon the next one."""

    attempt_delay: Annotated[Duration, lasting(0.1, 2)] = timedelta(milliseconds=250)
    """How long a connection attempt is alone before the next address is tried beside it (RFC 8305 §5)."""
    first_family_count: Annotated[int, within(1, 8)] = 1
    """How many addresses of the first family are tried before the families take turns (RFC 8305 §4)."""
    remember: Annotated[Duration, lasting(0, 600)] = timedelta(seconds=60)
    """How long it is remembered that a destination did or did not answer, so that one that did not is tried last; 0
    is not at all. Kept are an IPv4 address's first 24 bits, an IPv6 address's first 48, and nothing of who asked."""
    remember_entries: Annotated[int, within(1, 1_000_000)] = 4096
    """Destinations that are remembered; the one learned of longest ago goes first."""
