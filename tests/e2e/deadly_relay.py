"""A relay that kills itself around the commit of a spent token: `python -m tests.e2e.deadly_relay MODE serve ...`."""

from __future__ import annotations

import sys

from relay.cli import main
from tests.relay.spent.spender import die_after_commit, die_before_commit

__all__: list[str] = []

if __name__ == "__main__":
    {"die_before_commit": die_before_commit, "die_after_commit": die_after_commit}[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
