"""Egress: the addresses that targets see."""

from __future__ import annotations

from relay.egress.check import Finding, check_sources
from relay.egress.geofeed import encode_geofeed
from relay.egress.pools import EgressPlan, Pool, PoolDraft, count_pools, load_plan, make_plan, read_draft
from relay.egress.service import Egress, PoolBinding
from relay.egress.sources import KEY_SIZE, Source, SourceState, SourceTable, can_bind
from relay.egress.status import StatusSocket, bind_status, describe_plan, read_status, serving_status

__all__ = [
    "KEY_SIZE",
    "Egress",
    "EgressPlan",
    "Finding",
    "Pool",
    "PoolBinding",
    "PoolDraft",
    "Source",
    "SourceState",
    "SourceTable",
    "StatusSocket",
    "bind_status",
    "can_bind",
    "check_sources",
    "count_pools",
    "describe_plan",
    "encode_geofeed",
    "load_plan",
    "make_plan",
    "read_draft",
    "read_status",
    "serving_status",
]
