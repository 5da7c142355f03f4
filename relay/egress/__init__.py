"""Egress: the addresses that targets see."""

from __future__ import annotations

from relay.egress.pools import EgressPlan, Pool, load_plan
from relay.egress.service import Egress, PoolBinding
from relay.egress.sources import Source, SourceState, SourceTable

__all__ = ["Egress", "EgressPlan", "Pool", "PoolBinding", "Source", "SourceState", "SourceTable", "load_plan"]
