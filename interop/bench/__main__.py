"""The relay beside Envoy and the kernel's floor, in one run: `python -m interop.bench`.

Everything runs on loopback. The server under test has one core for itself; the load generator and the origins share
another. A figure is the CPU time of the server's process alone, divided by the work done.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from interop.bench.bench import Bench
from interop.bench.command import names, prepare_process
from interop.bench.lab import Lab
from interop.bench.names import run_names
from interop.bench.plan import FULL, GROUPS, QUICK
from interop.bench.processes import ChildError
from interop.bench.relays import SERVERS, server_specs
from interop.bench.report import encode_report, judge_gates, render_gates, render_table
from interop.bench.tokens import run_tokens

__all__ = ["main"]

_LEGEND = """\
datagrams/BYTES/TUNNELS: CPU microseconds of the server for one relayed datagram; an echo is two.
datagrams/.../lone: one datagram under way at a time, so that nothing can be batched: what a quiet relay pays.
streams/DIRECTION/TUNNELS: CPU seconds for 10^9 bytes. handshakes: connections made in one CPU second.
memory: resident KiB for each idle connection or tunnel. floor/BYTES/BATCH: the kernel alone, no QUIC, with so many
datagrams to a system call; the cost of its Python is spread over them.
tokens/checks/TYPE/STORE: tokens checked and spent in one CPU second. tokens/loop/.../RATE: how late the loop comes to
what arrives while so many a second are. tokens/admission/...: from a request to its 200, with a token or with a key.
names/cached: names that the cache answers in one CPU second. names/upstream: what an upstream on loopback takes for
both families of a name. names/uncached/added: what the resolver adds to that.
done: share of what was sent that arrived. proxy, load: share of its core that the server, and that generator and
origins used. Where load is near 100 % the generator sets the pace: the server has time to spare, its batches are
smaller than they could be, and its figure is not flattered."""


def _parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m interop.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of everything")
    parser.add_argument("--only", type=names(SERVERS), default=SERVERS, metavar="SERVERS", help=",".join(SERVERS))
    parser.add_argument("--rows", type=names(GROUPS), default=GROUPS, metavar="GROUPS", help=",".join(GROUPS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there as well")
    parser.add_argument("--gate", action="store_true", help="end with 1 when a gate is missed")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting for the relay")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print the report.

    Args:
        arguments: the command line without the program's name, or None for the process's own.

    Returns:
        0; 1 when a server did not start, or a gate is missed and `--gate` was given; 130 when interrupted.
    """
    options = _parse_arguments(arguments)
    prepare_process()
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-bench-")))
            bench = Bench(Lab(stack, folder), QUICK if options.quick else FULL)
            try:
                _run(bench, options)
            except ChildError as error:
                bench.failures["the run"] = str(error)
            return _print_report(bench, options)
    except ChildError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(bench: Bench, options: argparse.Namespace) -> None:
    """Measure what was asked for."""
    if set(options.rows) - {"floor", "tokens", "names"}:
        specs = server_specs(options.set)
        bench.run_servers([specs[name] for name in options.only], options.rows)
    if "floor" in options.rows:
        bench.run_floor()
    if "tokens" in options.rows:
        bench.lines += run_tokens(bench.lab, bench.pace)
    if "names" in options.rows:
        bench.lines += run_names(bench.lab.folder, bench.pace)


def _print_report(bench: Bench, options: argparse.Namespace) -> int:
    """Print tables and gates, write JSON, and choose the exit code."""
    print()
    for server in (*SERVERS, "floor", "tokens", "names"):
        if any(line.server == server for line in bench.lines):
            print(render_table(bench.lines, server), end="\n\n")
    print(_LEGEND, end="\n\n")
    verdicts = judge_gates(bench.lines)
    print(render_gates(verdicts))
    for name, reason in bench.failures.items():
        print(f"FAILED  {name}: {reason}")
    if options.json is not None:
        options.json.write_text(json.dumps(encode_report(bench.lines, verdicts), indent=1) + "\n")
    is_missed = options.gate and not all(verdict.is_kept for verdict in verdicts)
    return 1 if is_missed or bench.failures else 0


if __name__ == "__main__":
    sys.exit(main())
