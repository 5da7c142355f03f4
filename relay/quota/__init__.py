"""Quotas: how many tunnels, how fast, and how many bytes each principal may have."""

from __future__ import annotations

from relay.quota.account import Account, Shortage, coarse
from relay.quota.accounts import Accounts
from relay.quota.hook import quota_hooks
from relay.quota.limits import QuotaLimits, QuotaTable
from relay.quota.meter import Lease, Meter

__all__ = [
    "Account",
    "Accounts",
    "Lease",
    "Meter",
    "QuotaLimits",
    "QuotaTable",
    "Shortage",
    "coarse",
    "quota_hooks",
]
