"""Proof of egress: an origin in another network namespace says who came. `python -m interop.egress` runs it."""
