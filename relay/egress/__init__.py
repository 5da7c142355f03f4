"""Egress: the addresses that targets see."""

from __future__ import annotations

from relay.egress.hook import egress_hooks

__all__ = ["egress_hooks"]
