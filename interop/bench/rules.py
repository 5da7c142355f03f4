"""What the policy costs, by the number of rules: `python -m interop.bench.rules`.

The rules are a mixture of names, networks of both families and principals. The exchange that is judged fits none of
them, has a name, an alias and an address of each family, and so asks the whole of the table.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from relay.hooks import AuthScheme, Principal, TunnelKind
from relay.policy import OwnAddresses, Question, RuleSet, probe_local_routes, read_rules
from relay.settings import PolicySettings

__all__ = ["COUNTS", "judgements", "main", "write_rules"]

COUNTS = (0, 10, 1000, 10_000)
"Numbers of rules."

_QUESTION = Question(
    TunnelKind.TCP,
    443,
    "www.shop.example.org",
    ("cdn.example.net",),
    Principal("preshared-1", AuthScheme.PRESHARED),
)
_ADDRESSES = (ip_address("93.184.216.34"), ip_address("2606:2800:220:1::1"))
_SECONDS = 0.5


def write_rules(file: Path, count: int) -> None:
    """Write a file of so many rules."""
    members = (
        lambda number: f'names = ["blocked{number}.example.com"]',
        lambda number: f'networks = ["{IPv4Address(0x0B000000 + (number << 12))}/24"]',
        lambda number: f'principals = ["client-{number}"]\nports = [{number + 1}]',
        lambda number: f'networks = ["{IPv6Address((0x2A00 << 112) + (number << 80))}/48"]',
    )
    rules = [f'[[rules]]\nverdict = "deny"\n{members[number % 4](number)}\n' for number in range(count)]
    file.write_text("\n".join(rules) if rules else "rules = []\n")


def judgements(rules: RuleSet, seconds: float = _SECONDS) -> float:
    """Return how many exchanges the policy judges in a second of CPU, two addresses each."""

    def judge() -> None:
        selection = rules.select(_QUESTION)
        for address in _ADDRESSES:
            selection.decide(address)

    return _per_second(judge, seconds)


def _per_second(work: Callable[[], None], seconds: float) -> float:
    started = time.process_time()
    done = 0
    while (taken := time.process_time() - started) < seconds:
        for _ in range(100):
            work()
        done += 100
    return done / taken


def main() -> int:
    """Measure each number of rules and print it; returns 0."""
    asking = OwnAddresses(is_local=probe_local_routes())
    print(f"{'rules':>8} {'read, s':>8} {'exchanges/CPU s':>16} {'us each':>8} {'us with the kernel asked':>25}")
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as folder:
        file = Path(folder) / "rules.toml"
        for count in COUNTS:
            write_rules(file, count)
            started = time.process_time()
            rules = read_rules(PolicySettings(file=file))
            alone = RuleSet(rules)
            taken = time.process_time() - started
            rate, whole = judgements(alone), judgements(RuleSet(rules, asking))
            print(f"{count:8} {taken:8.3f} {rate:16.0f} {1e6 / rate:8.1f} {1e6 / whole:25.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
