"""Strategies for valid hosts and ports."""

from __future__ import annotations

import string

from hypothesis import strategies as st

__all__ = ["HOSTS", "NAMES", "PORTS"]

_LETTERS = string.ascii_letters
_INNER_LABELS = st.text(_LETTERS + string.digits + "-_", min_size=1, max_size=63)
_LAST_LABELS = st.builds(str.__add__, st.sampled_from(_LETTERS), st.text(_LETTERS + string.digits + "-", max_size=62))

NAMES = st.builds(
    lambda inner, last, dot: ".".join([*inner, last]) + dot,
    st.lists(_INNER_LABELS, max_size=3),
    _LAST_LABELS,
    st.sampled_from(["", "."]),
).filter(lambda name: len(name) <= 253)
"Names, some with a final dot."

HOSTS = NAMES | st.ip_addresses().map(str)
"Names and addresses."

PORTS = st.integers(1, 65535)
"All ports."
